# SPDX-License-Identifier: Apache-2.0
"""Claims about datalists."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from bundle.data.cases import Case, CaseList
from bundle.data.datalists import DATALIST, LISTS, build_datalist, check_no_group_crosses, load_datalist
from bundle.data.splits import UNLABELLED
from bundle.errors import UserError
from bundle.files import write_json


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A dataset of empty files, of each class in each part, and its datalist."""
    cases = tuple(
        Case(f"{label}/{number}.png", (f"{label}/{number}_mask.png",), label, group=f"{label}{number}")
        for label in ("benign", "malignant", "normal")
        for number in range(5)
    )
    for case in cases:
        for name in (case.image, *case.masks):
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).touch()
    write_json(tmp_path / "out" / DATALIST, build_datalist(CaseList("set", "busi", False, "", cases), "60:20:20", 1))
    return tmp_path


def test_loaded_paths_are_absolute_and_exist(own: Path) -> None:
    datalist = load_datalist(own / "out" / DATALIST, own / "set")
    records = [record for part in LISTS for record in datalist[part]]
    assert len(records) == 15
    assert all(os.path.isabs(path) and os.path.isfile(path) for r in records for path in (r["image"], *r["label"]))
    check_no_group_crosses(datalist)


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "change",
    [
        {"training": [{"image": "a.png"}]},
        {"training": [{"image": "../a.png", "label": [], "class": "benign", "group": "g"}]},
        {"training": [{"image": "a.png", "label": "m.png", "class": "benign", "group": "g"}]},
        {"training": [{"image": "a.png", "label": [], "class": "cyst", "group": "g"}]},
        {"training": "a.png"},
        {"training": [1]},
        {"training": None},
    ],
)
def test_malformed_datalist_is_refused_by_name(own: Path, change: dict[str, object]) -> None:
    _edit(own / "out" / DATALIST, **change)
    with pytest.raises(UserError, match=r"datalist_segmentation\.json: is no datalist"):
        load_datalist(own / "out" / DATALIST, own / "set")


def test_datalist_with_a_crossing_group_is_refused(own: Path) -> None:
    datalist = json.loads((own / "out" / DATALIST).read_text())
    datalist["test"][0]["group"] = datalist["training"][0]["group"]
    _edit(own / "out" / DATALIST, **datalist)
    with pytest.raises(UserError, match="stands in two parts"):
        load_datalist(own / "out" / DATALIST, own / "set")


def test_missing_image_is_named(own: Path) -> None:
    with pytest.raises(UserError, match=r"is named in datalist_segmentation\.json but missing"):
        load_datalist(own / "out" / DATALIST, own)


def test_crossing_group_is_named_with_its_files() -> None:
    split = {
        "training": [{"image": "a.png", "group": "g0007"}],
        "test_normal": [{"image": "b.png", "group": "g0007"}],
    }
    with pytest.raises(UserError, match=r"g0007 stands in two parts: 'a.png' in training, 'b.png' in test"):
        check_no_group_crosses(split)


def test_same_image_in_two_parts_is_refused() -> None:
    with pytest.raises(UserError, match="the same image"):
        check_no_group_crosses(
            {"training": [{"image": "a", "group": "g1"}], "validation": [{"image": "a", "group": "g2"}]}
        )


def test_a_group_that_is_both_unlabelled_and_tested_is_refused() -> None:
    record = {"image": "a.png", "group": "g1"}
    with pytest.raises(UserError, match="group g1"):
        check_no_group_crosses({"test": [record], UNLABELLED: [{**record, "image": "b.png"}]})


@pytest.mark.parametrize(
    ("table", "dataset", "least"), [("groups_busi", "f80fa00a", 30), ("groups_busi_busbra", "4c4e3486", 4)]
)
def test_the_tables_of_groups_give_the_splits_of_the_recorded_runs(table: str, dataset: str, least: int) -> None:
    results = Path(__file__).resolve().parents[2] / "docs" / "results"
    with open(results / f"{table}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    joint = "BUSBRA" in {row["image"].split("/")[0] for row in rows}
    cases = tuple(
        Case(row["image"], (), row["class"], group=row["group"], dataset=row["image"].split("/")[0] if joint else "")
        for row in rows
    )
    checked = 0
    for path in sorted(results.glob("*.json")):
        weights = json.loads(path.read_text()).get("weights") or {}
        if not str(weights.get("dataset_sha256")).startswith(dataset) or "segmenter_sha256" in weights:
            continue
        if weights.get("split_sha256"):
            datalist = build_datalist(CaseList("", "", False, "", cases), weights["split"], weights["split_seed"])
            assert datalist["split_sha256"] == weights["split_sha256"], path.name
            checked += 1
    assert checked >= least
