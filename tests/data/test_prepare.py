# SPDX-License-Identifier: Apache-2.0
"""Claims about prepared datasets."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path
from shutil import copytree

import pytest
from PIL import Image

from bundle.data.cases import CASES, read_cases
from bundle.data.changes import SEEN
from bundle.data.datalists import DATALIST, LISTS, load_datalist
from bundle.data.phantom import make_phantom
from bundle.data.prepare import ensure_prepared, prepare, prepared_name
from bundle.errors import UserError

SPLIT = "60:20:20"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom, one image copied under an odd name, with three folds; tests that change it copy it first."""
    root = tmp_path_factory.mktemp("prepare")
    make_phantom(root / "set", counts={"benign": 12, "malignant": 8, "normal": 4}, size_range=((48, 60), (48, 60)))
    for name in ("", "_mask"):
        source = root / f"set/benign/benign (1){name}.png"
        (root / f"set/malignant/co\rpy{name}.png").write_bytes(source.read_bytes())
    prepare(root / "set", root / "out", split=SPLIT, folds=3, seed=1)
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return copytree(made, tmp_path / "own")


def test_all_files_are_written_and_no_rests(made: Path) -> None:
    folds = {f"datalist_segmentation_fold{fold}.json" for fold in range(3)}
    names = {path.name for path in (made / "out").iterdir()}
    assert names == {CASES, DATALIST, SEEN, "groups.csv", "class_counts.png", *folds}
    with Image.open(made / "out/class_counts.png") as plot:
        assert plot.format == "PNG"


def test_groups_in_two_classes_are_kept_or_left_out_by_name(made: Path, tmp_path: Path) -> None:
    torn = {"benign/benign (1).png", "malignant/co\rpy.png"}
    prepare(made / "set", tmp_path / "dropped", split=SPLIT, seed=1, conflicts="drop")
    kept, dropped = (read_cases(folder / CASES) for folder in (made / "out", tmp_path / "dropped"))
    assert {case.image for case in kept.cases} - {case.image for case in dropped.cases} == torn
    assert {entry["path"] for entry in dropped.skipped} == torn
    assert all("several classes" in entry["reason"] for entry in dropped.skipped)
    assert kept.dataset_sha256 != dropped.dataset_sha256
    # The curated subset is a datalist like any other: it is taken as it is, and its table still tells of the group.
    datalist = ensure_prepared(made / "set", tmp_path / "dropped", split=SPLIT, seed=1)
    assert datalist["dataset_sha256"] == dropped.dataset_sha256
    assert "co" in (tmp_path / "dropped/groups.csv").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="keep, drop"):
        prepare(made / "set", tmp_path / "other", split=SPLIT, conflicts="merge")


@pytest.mark.parametrize("name", [DATALIST, "datalist_segmentation_fold2.json"])
def test_datalist_places_every_case_once_and_normals_apart(made: Path, name: str) -> None:
    datalist = json.loads((made / "out" / name).read_text())
    images = sorted(record["image"] for part in LISTS for record in datalist[part])
    assert images == [case.image for case in read_cases(made / "out" / CASES).cases]
    assert {r["class"] for part in LISTS[:3] for r in datalist[part]} == {"benign", "malignant"}
    assert {r["class"] for part in LISTS[3:] for r in datalist[part]} == {"normal"}
    assert all(datalist[part] for part in LISTS[:3])
    assert (datalist["source"], datalist["synthetic"], datalist["labels"]["1"]) == ("phantom", True, "lesion")


def test_copy_stands_in_the_group_of_its_source(made: Path) -> None:
    with (made / "out/groups.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    first, second = rows["benign/benign (1).png"], rows["malignant/co\rpy.png"]
    assert first["group"] == second["group"]
    assert second["evidence"] == "equal pixels: benign/benign (1).png"
    assert Counter(row["group"] for row in rows.values())[first["group"]] == 2


def test_same_seed_gives_the_same_files(made: Path, tmp_path: Path) -> None:
    prepare(made / "set", tmp_path, split=SPLIT, folds=3, seed=1)
    for path in set((made / "out").iterdir()) - {made / "out" / SEEN}:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_groups_of_an_earlier_call_are_taken_as_corrected_and_nothing_is_searched_for(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.data.prepare.find_pairs", lambda *_: pytest.fail("searched"))
    prepare(made / "set", tmp_path / "same", split=SPLIT, folds=3, seed=1, groups=made / "out/groups.csv")
    for name in ("groups.csv", DATALIST, "datalist_segmentation_fold2.json"):
        assert (tmp_path / "same" / name).read_bytes() == (made / "out" / name).read_bytes()
    with open(made / "out/groups.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    joined = {"benign/benign (3).png", "malignant/malignant (3).png"}
    for row in rows:
        row["group"] = "by hand" if row["image"] in joined else row["group"]
    with open(tmp_path / "corrected.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    prepare(made / "set", tmp_path / "corrected", split=SPLIT, seed=1, groups=tmp_path / "corrected.csv")
    cases = read_cases(tmp_path / "corrected" / CASES).cases
    (group,) = {case.group for case in cases if case.image in joined}
    assert {case.image for case in cases if case.group == group} == joined
    with open(tmp_path / "corrected/groups.csv", newline="") as file:
        reasons = {row["image"]: row["evidence"] for row in csv.DictReader(file)}
    assert reasons["benign/benign (3).png"] == "same group in corrected.csv: malignant/malignant (3).png"


def test_a_patient_is_not_torn_by_a_table_of_groups(tmp_path: Path) -> None:
    for name in "abcd":
        Image.effect_noise((48, 48), 50).save(tmp_path / f"{name}.png")
        Image.new("L", (20, 20), 255).crop((-14, -14, 34, 34)).save(tmp_path / f"{name}_mask.png")
    lines = [f"{name}.png,{name}_mask.png,benign,{'P1' if name in 'ab' else name}" for name in "abcd"]
    (tmp_path / "manifest.csv").write_text("\n".join(["image,mask,label,patient", *lines]))
    (tmp_path / "groups.csv").write_text("image,group\na.png,1\nb.png,2\nc.png,3\nd.png,4\n")
    prepare(tmp_path / "manifest.csv", tmp_path / "out", split="1:1:1", groups=tmp_path / "groups.csv")
    groups = {case.image: case.group for case in read_cases(tmp_path / "out" / CASES).cases}
    assert groups["a.png"] == groups["b.png"]
    assert len(set(groups.values())) == 3


def test_folds_of_an_earlier_call_do_not_stay(own: Path) -> None:
    prepare(own / "set", own / "out", split=SPLIT, folds=2, seed=1)
    assert sorted(path.name for path in (own / "out").glob("*fold*")) == [
        f"datalist_segmentation_fold{fold}.json" for fold in range(2)
    ]


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_fold_that_the_dataset_comes_with_is_prepared_in_a_folder_of_its_own() -> None:
    names = {prepared_name("set", split, 0) for split in ("fold 0 of 5", "own fold 0 of 5", "own fold 1 of 5")}
    assert len(names) == 3


def test_split_that_leaves_a_part_without_lesions_is_refused(tmp_path: Path) -> None:
    make_phantom(tmp_path / "set", counts={"benign": 2}, size_range=((48, 50), (48, 50)))
    with pytest.raises(UserError, match="no lesion is left for"):
        prepare(tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepared_dataset_is_used_again(own: Path) -> None:
    before = (own / "out" / DATALIST).stat().st_mtime_ns
    start = time.perf_counter()
    datalist = ensure_prepared(own / "set", own / "out", split="3:1:1", seed=1)
    assert time.perf_counter() - start < 1
    assert (own / "out" / DATALIST).stat().st_mtime_ns == before
    assert datalist == load_datalist(own / "out" / DATALIST, own / "set")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [({"split": "15:5:80", "seed": 1}, "split 60:20:20, not 15:5:80"), ({"split": SPLIT, "seed": 2}, "seed 1, not 2")],
)
def test_other_split_or_seed_is_refused_with_a_mend(own: Path, wanted: dict, reason: str) -> None:
    with pytest.raises(UserError, match=f"{reason}; name another folder, or delete"):
        ensure_prepared(own / "set", own / "out", **wanted)


def test_dataset_that_gained_a_file_is_refused(own: Path) -> None:
    Image.new("L", (50, 50)).save(own / "set/normal/new.png")
    with pytest.raises(UserError, match="another list of files"):
        ensure_prepared(own / "set", own / "out", split=SPLIT, seed=1)


def test_cases_of_another_run_beside_the_datalist_are_refused(own: Path) -> None:
    _edit(own / "out" / DATALIST, dataset_sha256="0")
    with pytest.raises(UserError, match="other cases"):
        ensure_prepared(own / "set", own / "out", split=SPLIT, seed=1)


def test_two_processes_prepare_at_once(made: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    options = {"split": SPLIT, "seed": 1}
    ranks = [
        context.Process(target=ensure_prepared, args=(made / "set", tmp_path / "out"), kwargs=options) for _ in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert (tmp_path / "out" / DATALIST).read_bytes() == (made / "out" / DATALIST).read_bytes()
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_missing_phantom_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(folder: Path) -> None:
        counts = {"benign": 5, "malignant": 5, "normal": 3}
        make_phantom(folder, counts=counts, size_range=((48, 50), (48, 50)))

    monkeypatch.setattr("bundle.data.phantom.ensure_phantom", small)
    datalist = ensure_prepared(tmp_path / "phantom", tmp_path / "out", split=SPLIT, seed=0)
    assert datalist["synthetic"] is True
    with pytest.raises(UserError, match="no such dataset"):
        ensure_prepared(tmp_path / "absent", tmp_path / "none", split=SPLIT, seed=0)


@pytest.mark.slow
@pytest.mark.skipif("BUSI_DIR" not in os.environ, reason="set BUSI_DIR to the folder Dataset_BUSI_with_GT")
def test_busi_is_prepared_within_two_minutes(tmp_path: Path) -> None:
    start = time.perf_counter()
    prepare(os.environ["BUSI_DIR"], tmp_path)
    assert time.perf_counter() - start < 120
    cases = read_cases(tmp_path / CASES).cases
    assert Counter(case.label for case in cases) == {"benign": 437, "malignant": 210, "normal": 133}
    datalist = load_datalist(tmp_path / DATALIST, os.environ["BUSI_DIR"])
    assert [len(datalist[part]) for part in LISTS] == [97, 32, 518, 20, 7, 106]


def test_a_part_that_can_not_be_served_is_told_in_patients(tmp_path: Path) -> None:
    make_phantom(tmp_path / "set", counts={"benign": 1, "malignant": 1, "normal": 1}, size_range=((48, 50), (48, 50)))
    with pytest.raises(
        UserError, match=r"no lesion is left for .*: 2 patients, or groups of near duplicates, have one"
    ):
        prepare(tmp_path / "set", tmp_path / "out", split=SPLIT)
