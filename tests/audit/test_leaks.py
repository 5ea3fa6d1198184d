# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.audit.leaks, bundle.audit.factorial and scripts/leak_audit.py."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from bundle.audit.factorial import FACTORS, run_factorial
from bundle.audit.leaks import PROTOCOLS, audit_leaks, read_records, share_of_twins, split_by_protocol
from bundle.data.phantom import make_phantom
from bundle.errors import InputError
from bundle.transforms.features import GREY_SCALE
from scripts import leak_audit

RECORDS = [
    {"image": f"{i}.png", "class": "malignant" if i % 3 == 0 else "benign", "group": f"g{i // 6}"} for i in range(120)
]
TINY = {"filters": [2, 4], "spatial_size": [16, 16], "epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom, every second image of which has a copy."""
    folder = tmp_path_factory.mktemp("leaks") / "set"
    make_phantom(folder, counts={"benign": 14, "malignant": 10}, size_range=((60, 70), (70, 80)))
    for label, count in (("benign", 14), ("malignant", 10)):
        for number in range(1, count, 2):
            for kind in ("", "_mask"):
                source = folder / f"{label}/{label} ({number}){kind}.png"
                copyfile(source, source.with_name(f"copy ({number}){kind}.png"))
    return folder


@pytest.fixture(scope="module")
def audited(data: Path) -> dict[str, Any]:
    output = data.parent / "out"
    assert leak_audit.main([str(data), "--output", str(output), "--seeds", "2"]) == 0
    content: dict[str, Any] = json.loads((output / "leaks.json").read_text(encoding="utf-8"))
    assert content["grey_scale"] == GREY_SCALE
    return content


def test_a_grouped_split_has_no_twin_in_training_and_the_others_have() -> None:
    shares = {}
    for name, protocol in PROTOCOLS.items():
        training, test = split_by_protocol(RECORDS, *protocol, seed=0)
        shares[name] = share_of_twins(RECORDS, training, test)
        assert 25 <= len(test) / (1.33 if protocol[2] else 1) <= 45
        assert bool(set(training) & set(test)) == protocol[2]  # only copies stand on both sides
    assert shares["grouped 60/10/30"] == 0
    assert min(shares["random 70/30"], shares["oversampled, then random 60/10/30"]) > 0.9


def test_oversampling_before_the_split_evens_the_classes_in_both_parts() -> None:
    training, test = split_by_protocol(RECORDS, "60:10:30", False, True, seed=1)
    for part in (training, test):
        counts = Counter(RECORDS[index]["class"] for index in part)
        assert counts["benign"] == pytest.approx(counts["malignant"], abs=1)


def test_twins_and_silhouettes_of_the_phantom_are_told(audited: dict[str, Any]) -> None:
    assert (audited["images"], audited["malignant"], audited["synthetic"]) == (36, 15, True)
    twins = {name: entry["test_images_with_a_twin_in_training"] for name, entry in audited["protocols"].items()}
    assert twins["grouped 60/10/30"] == 0
    assert twins["random 60/10/30"] > 0.2
    assert set(audited["silhouettes"]) == {"ground truth"}
    shape = audited["silhouettes"]["ground truth"]["13 shape features"]["auroc"]
    assert shape["low"] <= shape["estimate"] <= shape["high"]
    assert shape["estimate"] > 0.7  # the phantom's malignant lesions are ragged
    background = audited["background"]["pixel_accuracy"]["estimate"]
    assert background == pytest.approx(1 - audited["background"]["lesion_share"])


def test_the_factorial_has_all_cells_and_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    records, about = read_records(data, tmp_path)
    for record in records:
        record["probability"] = record["masks"][0]  # stands in for a map: white on black
    result = run_factorial(records, tmp_path, seeds=1, about=about, settings=TINY)
    cells = {tuple(cell[name] for name in FACTORS) for cell in result["cells"]}
    assert cells == set(product(*FACTORS.values()))
    grouped = [cell for cell in result["cells"] if cell["split"] == "grouped"]
    assert all(cell["test_images_with_a_twin_in_training"] == 0 for cell in grouped)
    lines = (tmp_path / "cells.jsonl").read_text(encoding="utf-8").splitlines()
    # Kill it in the middle of a line, three cells before the end: the rest is trained again and comes out the same.
    (tmp_path / "cells.jsonl").write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:20], encoding="utf-8")
    again = run_factorial(records, tmp_path, seeds=1, about=about, settings=TINY)
    assert again["cells"] == result["cells"]
    with pytest.raises(InputError, match="other data or settings"):
        run_factorial(records, tmp_path, seeds=1, about=about, settings={**TINY, "epochs": 2})


def test_too_few_cases_and_missing_predictions_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    make_phantom(small, counts={"benign": 6, "malignant": 3}, size_range=((48, 60), (48, 60)))
    assert leak_audit.main([str(small), "--output", str(tmp_path / "out")]) == 2
    assert "needs more cases" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        leak_audit.main([str(data), "--output", str(tmp_path / "out"), "--factorial"])


def test_predicted_masks_are_measured_where_all_records_have_one(data: Path, tmp_path: Path) -> None:
    records, _ = read_records(data, tmp_path)
    result = audit_leaks([{**record, "probability": record["masks"][0]} for record in records], tmp_path, seeds=1)
    assert result["protocol_masks"] == "predicted"
    assert set(result["silhouettes"]) == {"ground truth", "predicted"}
