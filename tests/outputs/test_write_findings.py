# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.findings."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ignite.engine import Engine
from PIL import Image

from bundle.data.folder import list_images
from bundle.outputs import WriteFindings
from bundle.outputs.findings import write_findings, write_pictures
from bundle.prediction import Predictor

NAMES = ("benign (1).png", "sub/benign (1).png", "=1+1.jpg")


@pytest.fixture
def images(small_phantom: Path, tmp_path: Path) -> Path:
    """Three images, two of one name, and a broken one."""
    folder = tmp_path / "ward of Ann" / "images"
    (folder / "sub").mkdir(parents=True)
    for name, source in zip(NAMES[:2], ("benign (1)", "benign (2)"), strict=True):
        shutil.copy(small_phantom / "benign" / f"{source}.png", folder / name)
    Image.open(folder / NAMES[0]).save(folder / NAMES[2])
    (folder / "sub" / "broken.png").write_bytes(b"")
    return folder


@pytest.fixture
def written(images: Path, tiny_models: Path, tmp_path: Path) -> Path:
    """The folder that the handler wrote, in two batches."""
    predictor, listed = Predictor.from_folder(tiny_models, "cpu"), list_images(images)
    engine = Engine(lambda _, batch: [{"finding": predictor.predict(path)} for path in batch])
    WriteFindings(tmp_path / "out", images, listed).attach(engine)
    engine.run([listed.readable[:1], listed.readable[1:]])
    return tmp_path / "out"


def _findings(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "findings.json").read_text())


def test_each_image_has_a_finding_a_mask_and_an_overlay_of_its_size(written: Path, images: Path) -> None:
    findings = {finding["image"]: finding for finding in _findings(written)["findings"]}
    assert findings.keys() == {"=1+1.jpg.png", *NAMES[:2]}
    for name, finding in findings.items():
        source = images / (name if name in NAMES else NAMES[2])
        mask, overlay = (Image.open(written / kind / name) for kind in ("masks", "overlays"))
        assert mask.size == overlay.size == Image.open(source).size
        assert (mask.mode, overlay.mode) == ("L", "RGB")
        assert finding["size"] == [mask.height, mask.width]
        assert (np.asarray(mask) == 255).sum() == finding["lesion"]["area_px"]


def test_the_json_holds_neither_arrays_nor_folders(written: Path, tmp_path: Path) -> None:
    text = (written / "findings.json").read_text()
    assert "ward of Ann" not in text
    assert str(tmp_path) not in text
    content = json.loads(text)
    assert not {"mask", "probability_map"} & content["findings"][0].keys()
    assert [bad["path"] for bad in content["skipped"]] == ["sub/broken.png"]
    assert "empty" in content["skipped"][0]["reason"]
    assert "not a medical device" in content["notice"]


def test_the_table_has_one_row_per_image_and_no_formula(written: Path) -> None:
    with open(written / "findings.csv", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    findings = _findings(written)["findings"]
    assert len(rows) == len(findings) == 3
    assert "'=1+1.jpg.png" in rows
    for finding in findings[1:]:
        row = rows[finding["image"].replace("=1", "'=1")]
        assert float(row["probability"]) == finding["probability"]
        assert [int(row[side]) for side in ("top", "left", "bottom", "right")] == finding["box"]
        assert row["decision at sensitivity 0.90"] == finding["decisions"]["sensitivity 0.90"]["decision"]
        assert row["call"] == (finding["call"] or "")
        assert row["area_mm2"] == ""
        assert row["lesion_state"] == finding["lesion_state"] == "found"
        assert row["classifier_sha256"] == finding["models"]["classifier"]
        assert row["notice"] == finding["notice"]


def test_a_run_without_any_finding_still_lists_what_was_skipped(tmp_path: Path) -> None:
    write_findings([], [{"path": "a.png", "reason": "empty", "mend": "replace it"}], tmp_path)
    assert _findings(tmp_path)["skipped"][0]["path"] == "a.png"
    assert (tmp_path / "findings.csv").read_text() == ""


def test_an_explanation_is_drawn_where_a_finding_has_one(images: Path, tiny_models: Path, tmp_path: Path) -> None:
    finding = Predictor.from_folder(tiny_models, "cpu").predict(images / NAMES[0])
    write_pictures(finding, Path("a.png"), tmp_path / "out")
    assert not (tmp_path / "out" / "explanations").exists()
    write_pictures(replace(finding, explanation=finding.probability_map), Path("a.png"), tmp_path / "out")
    assert Image.open(tmp_path / "out" / "explanations" / "a.png").size == Image.open(images / NAMES[0]).size


def test_without_pictures_only_the_two_files_are_written(images: Path, tiny_models: Path, tmp_path: Path) -> None:
    predictor, listed = Predictor.from_folder(tiny_models, "cpu"), list_images(images)
    engine = Engine(lambda _, batch: [{"finding": predictor.predict(path)} for path in batch])
    WriteFindings(tmp_path / "out", images, listed, name="predictions", pictures=False).attach(engine)
    engine.run([listed.readable])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.json", "predictions.csv"}
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]) == 3
