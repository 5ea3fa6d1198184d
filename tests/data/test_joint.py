# SPDX-License-Identifier: Apache-2.0
"""Claims about several datasets used at once: bundle.data.roots, bundle.data.joint, and their preparation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from shutil import copytree

import pytest
import torch
from PIL import Image

from bundle.data.ancestry import describe_start, leave_out_seen
from bundle.data.cases import CASES, Case, read_cases
from bundle.data.changes import SEEN
from bundle.data.datalists import DATALIST, load_datalist
from bundle.data.phantom import make_phantom
from bundle.data.prepare import ensure_prepared, prepare, split_again
from bundle.data.roots import dataset_name, find_roots
from bundle.data.splits import PARTS, leave_out_dataset, split_by_name
from bundle.data.training_sets import add_recorded
from bundle.errors import UserError
from bundle.networks.weights import write_weights

SPLIT = "60:20:20"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small datasets in different folders and layouts; an image of one stands, scaled in grey, in the other."""
    root = tmp_path_factory.mktemp("joint")
    for place, counts in (
        ("here/first", {"benign": 9, "malignant": 7, "normal": 3}),
        ("there/second", {"benign": 8, "malignant": 6}),
    ):
        make_phantom(root / place, counts=counts, size_range=((48, 60), (48, 60)), seed=len(place))
    second = root / "there/second"
    for name in ("", "_mask"):
        source = root / f"here/first/benign/benign (1){name}.png"
        (second / f"malignant/copy{name}.png").write_bytes(source.read_bytes())
    rows = ["image,mask,label,patient"]
    for path in sorted(second.glob("*/*.png")):
        if "_mask" not in path.name:
            mask = path.with_name(f"{path.stem}_mask.png").relative_to(second).as_posix()
            rows.append(f"{path.relative_to(second).as_posix()},{mask},{path.parent.name},P1{len(rows) // 2}")
    (second / "manifest.csv").write_text("\n".join(rows) + "\n")
    prepare([root / "here/first", second], root / "out", split=SPLIT, seed=1)
    return root


def _sets(made: Path) -> list[Path]:
    return [made / "here/first", made / "there/second"]


def test_paths_begin_with_the_datasets_name_wherever_it_lies(made: Path, tmp_path: Path) -> None:
    moved = [copytree(_sets(made)[0], tmp_path / "x/first"), copytree(_sets(made)[1], tmp_path / "second")]
    prepare(moved[::-1], tmp_path / "out", split=SPLIT, seed=1)
    assert (tmp_path / "out" / DATALIST).read_bytes() == (made / "out" / DATALIST).read_bytes()
    datalist = load_datalist(tmp_path / "out" / DATALIST, moved)
    records = [record for part in PARTS for record in datalist[part]]
    assert {Path(record["image"]).is_relative_to(tmp_path / "x/first") for record in records} == {True, False}
    assert all(Path(path).is_file() for record in records for path in (record["image"], *record["label"]))


def test_each_dataset_keeps_its_own_checksum_and_layout(made: Path, tmp_path: Path) -> None:
    joint = read_cases(made / "out" / CASES)
    for folder in _sets(made):
        prepare(folder, tmp_path / folder.name, split=SPLIT)
        assert joint.datasets[folder.name] == read_cases(tmp_path / folder.name / CASES).dataset_sha256
    assert joint.name == "first+second"
    assert joint.source == "phantom+phantom"
    assert joint.synthetic
    patients = {case.dataset: case.patient for case in joint.cases}
    assert patients["first"] is None
    assert str(patients["second"]).startswith("second/P1")


def test_near_duplicates_across_datasets_stay_in_one_part(made: Path) -> None:
    groups = {case.image: case.group for case in read_cases(made / "out" / CASES).cases}
    assert groups["first/benign/benign (1).png"] == groups["second/malignant/copy.png"]
    assert len(set(groups.values())) < len(groups)


def test_each_part_gets_its_share_of_each_dataset(made: Path) -> None:
    datalist = json.loads((made / "out" / DATALIST).read_text())
    counts = {part: Counter(record["dataset"] for record in datalist[part]) for part in PARTS}
    assert counts["training"]["first"] >= 8
    assert counts["training"]["second"] >= 7
    assert all(set(count) == {"first", "second"} for count in counts.values())


def test_a_left_out_dataset_is_tested_whole_and_its_twins_are_not_trained_on(made: Path, tmp_path: Path) -> None:
    split_again(made / "out", tmp_path, "leave out second", 0)
    datalist = ensure_prepared(_sets(made), tmp_path, split="leave out second", seed=0)
    assert {record["dataset"] for record in datalist["test"]} == {"second"}
    assert len(datalist["test"]) == 15
    used = [record["image"] for part in ("training", "validation") for record in datalist[part]]
    assert len(used) == 15  # of sixteen lesions: one stands in the tested dataset as well
    assert not any("benign (1).png" in image for image in used)


def test_inner_folds_hold_nothing_of_the_dataset_that_is_left_out(made: Path, tmp_path: Path) -> None:
    tested: list[str] = []
    for fold in range(2):
        split = f"leave out second, inner fold {fold} of 2"
        split_again(made / "out", tmp_path / str(fold), split, 0)
        datalist = ensure_prepared(_sets(made), tmp_path / str(fold), split=split, seed=0)
        records = [record for part in PARTS for record in datalist[part]]
        assert {record["dataset"] for record in records} == {"first"}
        tested += [record["image"] for record in datalist["test"]]
    assert len(tested) == len(set(tested)) == 15
    with pytest.raises(UserError, match="numbered from 0"):
        split_again(made / "out", tmp_path / "none", "leave out second, inner fold 2 of 2", 0)


def test_one_dataset_is_split_and_the_others_help_to_train(made: Path, tmp_path: Path) -> None:
    split_again(made / "out", tmp_path / "out", "second 40:20:40", 0)
    datalist = ensure_prepared(_sets(made), tmp_path / "out", split="second 40:20:40", seed=0)
    counts = {part: Counter(record["dataset"] for record in datalist[part]) for part in PARTS}
    own = [counts[part]["second"] for part in PARTS]
    assert sum(own) == 15
    assert all(abs(found - share) <= 2 for found, share in zip(own, (6, 3, 6), strict=True)), own  # groups of two
    assert {record["dataset"] for record in datalist["test"]} == {"second"}
    helping = [record["image"] for part in PARTS for record in datalist[part] if record["dataset"] == "first"]
    assert len(helping) == 15  # of sixteen lesions: one stands in the split dataset as well
    with pytest.raises(UserError, match="was made with split second 40:20:40, not second 40:10:50"):
        ensure_prepared(_sets(made), tmp_path / "out", split="second 40:10:50", seed=0)
    with pytest.raises(UserError, match="here: first, second"):
        split_again(made / "out", tmp_path / "third", "third 40:20:40", 0)


def test_another_dataset_left_out_is_another_split(made: Path, tmp_path: Path) -> None:
    split_again(made / "out", tmp_path, "leave out second", 0)
    with pytest.raises(UserError, match="was made with split leave out second, not leave out first"):
        ensure_prepared(_sets(made), tmp_path, split="leave out first", seed=0)


def test_a_dataset_that_is_not_there_cannot_be_left_out(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="here: first, second"):
        split_again(made / "out", tmp_path / "out", "leave out third", 0)
    with pytest.raises(UserError, match="here: one alone"):
        leave_out_dataset([Case("a.png", (), "benign", group="g")], "first", 0)


def test_splitting_again_gives_what_preparing_gives(made: Path, tmp_path: Path) -> None:
    split_again(made / "out", tmp_path / "again", "fold 1 of 3", 2)
    prepare(_sets(made), tmp_path / "afresh", split="fold 1 of 3", seed=2)
    for name in (DATALIST, CASES, "groups.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "afresh" / name).read_bytes()


def test_a_dataset_that_lost_a_file_is_noticed(made: Path, tmp_path: Path) -> None:
    sets = [copytree(folder, tmp_path / folder.name) for folder in _sets(made)]
    (sets[0] / "benign/benign (2).png").unlink()
    (sets[0] / "benign/benign (2)_mask.png").unlink()
    with pytest.raises(UserError, match=r"benign \(2\)|another list of files"):
        ensure_prepared(sets, made / "out", split=SPLIT, seed=1)


def test_names_of_datasets_must_differ(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two folders are named 'set'"):
        find_roots([tmp_path / "a/set", tmp_path / "b/set"])
    with pytest.raises(UserError, match="an empty list"):
        find_roots([])


def test_one_dataset_in_a_list_is_one_dataset(tmp_path: Path) -> None:
    assert find_roots([tmp_path]) == find_roots(tmp_path)
    assert dataset_name([tmp_path]) == dataset_name(str(tmp_path)) == tmp_path.name
    assert dataset_name([tmp_path / "b", tmp_path / "a"]) == "a+b"


def test_paths_outside_the_datasets_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    roots = find_roots([tmp_path / "a", tmp_path / "b"])
    assert roots.relative(tmp_path / "a/x/y.png") == "a/x/y.png"
    assert roots.absolute("b/x.png") == (tmp_path / "b").resolve() / "x.png"
    with pytest.raises(ValueError, match="none of the"):
        roots.relative(tmp_path / "c/x.png")
    with pytest.raises(ValueError, match="begins with none"):
        roots.absolute("c/x.png")


def test_splits_of_one_dataset_are_what_they_were() -> None:
    cases = [
        Case(f"{number}.png", (), "benign" if number % 3 else "malignant", group=f"g{number // 2}")
        for number in range(30)
    ]
    parts = split_by_name(cases, "fold 0 of 3", 5)
    assert [case.image for case in parts["test"]] == [
        case.image for case in split_by_name(cases[::-1], "fold 0 of 3", 5)["test"]
    ]


def test_a_change_in_one_of_several_datasets_is_refused_by_that_datasets_name(made: Path, tmp_path: Path) -> None:
    own = Path(copytree(made, tmp_path / "own"))
    wanted = {"dataset_dir": _sets(own), "prepared_dir": own / "out", "split": SPLIT, "seed": 1}
    ensure_prepared(**wanted)  # type: ignore[arg-type]
    seen = json.loads((own / "out" / SEEN).read_text())
    assert set(seen) == {"first/", "second/"}
    image = own / "there/second/benign/benign (2).png"
    with Image.open(image) as picture:
        turned = picture.rotate(180)
    turned.save(image)
    with pytest.raises(UserError, match=r"second: the data changed .*\(2\)\.png has other pixels") as caught:
        ensure_prepared(**wanted)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1


def test_each_of_several_datasets_may_move_alone(made: Path, tmp_path: Path) -> None:
    own = Path(copytree(made, tmp_path / "own"))
    moved = [_sets(own)[0], Path(copytree(_sets(own)[1], tmp_path / "elsewhere/second"))]
    found = ensure_prepared(moved, own / "out", split=SPLIT, seed=1)
    assert any(str(tmp_path / "elsewhere") in record["image"] for record in found["training"])
    assert set(json.loads((own / "out" / SEEN).read_text())) == {"first/", "second/"}


def test_what_start_weights_have_seen_is_left_out_of_each_of_several_datasets(made: Path, tmp_path: Path) -> None:
    whole = ensure_prepared(_sets(made), made / "out", split=SPLIT, seed=1)
    digests = {
        str(find_roots(_sets(made)).absolute(case.image)): case.sha256[:16]
        for case in read_cases(made / "out" / CASES).cases
    }
    by_set = {record["dataset"]: record for record in whole["test"]}
    assert set(by_set) == {"first", "second"}
    write_weights(tmp_path / "model.pt", {"w": torch.zeros(1)}, {"name": "others", "dataset_sha256": "d0"})
    add_recorded(tmp_path, {"d0": {digests[record["image"]] for record in by_set.values()}})
    start = describe_start(tmp_path / "model.pt")
    left = leave_out_seen(whole, _sets(made), [made / "out"], start, tmp_path)
    seen = {record["group"] for record in by_set.values()}
    assert left["test"] == [record for record in whole["test"] if record["group"] not in seen]
    assert len(left["test"]) < len(whole["test"])
