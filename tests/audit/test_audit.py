# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.audit.dataset."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bundle.audit.dataset import audit_dataset
from bundle.data.phantom import make_phantom
from scripts import audit_data

BUSI = os.environ.get("BUSI_DIR")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A phantom with one planted specimen of everything that an audit looks for."""
    root = tmp_path_factory.mktemp("audit")
    data = root / "set"
    make_phantom(data, counts={"benign": 10, "malignant": 6, "normal": 2}, size_range=((150, 170), (180, 200)))
    # A frame in two classes, re-cropped; its contour in the other class is half as high.
    with Image.open(data / "benign/benign (1).png") as image, Image.open(data / "benign/benign (1)_mask.png") as mask:
        box = (4, 3, image.width - 5, image.height - 2)
        image.crop(box).save(data / "malignant/planted.png")
        half = np.asarray(mask.convert("L").crop(box)) > 0
        rows = np.flatnonzero(half.any(axis=1))
        half[: rows.mean().astype(int)] = False
        Image.fromarray(half).save(data / "malignant/planted_mask.png")
    for kind in ("", "_mask"):
        copyfile(data / f"benign/benign (2){kind}.png", data / f"benign/equal{kind}.png")
    with Image.open(data / "benign/benign (3).png") as image, Image.open(data / "benign/benign (3)_mask.png") as mask:
        rows, columns = np.nonzero(np.asarray(mask.convert("L")))
        marked = image.convert("RGB")
        y, x = int(rows.min()), int(columns.mean())
        ImageDraw.Draw(marked).line([(x - 6, y), (x + 6, y)], fill="white")
        ImageDraw.Draw(marked).line([(x, y - 6), (x, y + 6)], fill="white")
        marked.save(data / "benign/benign (3).png")
    with Image.open(data / "benign/benign (4).png") as image:
        drawn = image.convert("RGB")
        ImageDraw.Draw(drawn).rectangle([20, 20, 40, 30], fill="yellow")
        drawn.save(data / "benign/benign (4).png")
    for kind in ("", "_mask"):
        with Image.open(data / f"benign/benign (5){kind}.png") as image:
            image.resize((image.width * 4, image.height * 2)).save(data / f"benign/benign (5){kind}.png")
    (data / "benign/broken.png").write_bytes(b"no image")
    copyfile(data / "benign/benign (6)_mask.png", data / "benign/broken_mask.png")
    assert audit_data.main([str(data), "--output", str(root / "out")]) == 0
    return root / "out", json.loads((root / "out/audit.json").read_text(encoding="utf-8"))


def test_everything_planted_is_found_and_nothing_else(audited: tuple[Path, dict[str, Any]]) -> None:
    _, audit = audited
    assert (audit["images"], audit["classes"]) == (20, {"benign": 11, "malignant": 7, "normal": 2})
    assert (audit["repeated_groups"], audit["repeated_images"]) == (2, 4)
    (conflict,) = audit["label_conflicts"].values()
    assert conflict == {"benign/benign (1).png": "benign", "malignant/planted.png": "malignant"}
    assert audit["equal_files"] == audit["equal_pixels"] == [["benign/benign (2).png", "benign/equal.png"]]
    assert list(audit["coloured"]) == ["benign/benign (4).png"]
    assert list(audit["calipers"]) == ["benign/benign (3).png"]
    assert list(audit["outlier_sizes"]) == ["benign/benign (5).png"]
    assert [bad["path"] for bad in audit["skipped"]] == ["benign/broken.png"]
    assert audit["synthetic"] is True


def test_contours_are_compared_where_the_frames_lie_over_each_other(audited: tuple[Path, dict[str, Any]]) -> None:
    contours = {entry["second"]: entry["dice"] for entry in audited[1]["contours"]}
    assert contours["benign/equal.png"] == pytest.approx(1.0, abs=0.01)
    assert 0.5 < contours["malignant/planted.png"] < 0.78  # half an ellipse against the whole: 2/3
    assert audited[1]["contours_that_disagree"] == 1


def test_the_table_names_every_image_its_group_and_why(audited: tuple[Path, dict[str, Any]]) -> None:
    with open(audited[0] / "groups.csv", encoding="utf-8", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert len(rows) == 20
    assert rows["malignant/planted.png"]["group"] == rows["benign/benign (1).png"]["group"]
    assert rows["malignant/planted.png"]["class"] == "malignant"
    assert "same frame" in rows["malignant/planted.png"]["evidence"]


def test_the_page_shows_what_was_found_and_needs_nothing_else(audited: tuple[Path, dict[str, Any]]) -> None:
    page = (audited[0] / "audit.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4 + 2 + 3  # two groups, a contour pair, colour, caliper, size
    for text in ("SYNTHETIC", "not a medical device", "in several classes", "broken.png", "planted.png"):
        assert text.lower() in page.lower()
    assert "http" not in page.replace("http-equiv", "")


def test_an_unknown_layout_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_data.main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not BUSI, reason="BUSI_DIR does not name the BUSI set")
def test_busi_is_audited_in_five_minutes_and_its_known_faults_are_found(tmp_path: Path) -> None:
    audit = audit_dataset(str(BUSI), tmp_path)
    assert audit["images"] == 780
    assert 140 <= audit["repeated_groups"] <= 175
    assert 320 <= audit["repeated_images"] <= 390
    assert len(audit["label_conflicts"]) >= 5
    assert audit["seconds"] < 300
