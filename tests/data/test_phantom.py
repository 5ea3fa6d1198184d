# SPDX-License-Identifier: Apache-2.0
"""Claims about the synthetic dataset: layout, pixels, determinism, and that no user's file is ever touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bundle.data import phantom
from bundle.data.phantom import ensure_phantom, is_synthetic, make_phantom
from bundle.errors import UserError

SMALL = ((64, 80), (90, 120))
COUNTS = {"benign": 24, "malignant": 16, "normal": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "dataset"
    make_phantom(folder, counts=COUNTS, size_range=SMALL)
    return folder


def images(dataset: Path, label: str) -> list[Path]:
    return sorted((dataset / label).glob("*).png"))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def lesion(image: Path) -> np.ndarray:
    return np.any([pixels(mask) for mask in image.parent.glob(f"{image.stem}_mask*.png")], axis=0)


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(pixels(p).tobytes()).hexdigest() for p in folder.rglob("*.png")}


def test_files_are_named_as_in_busi(dataset: Path) -> None:
    for label, count in COUNTS.items():
        assert {p.name for p in images(dataset, label)} == {f"{label} ({i}).png" for i in range(1, count + 1)}
        for image in images(dataset, label):
            assert image.with_name(f"{image.stem}_mask.png").is_file()
    assert {p.name for p in dataset.iterdir()} == {"benign", "malignant", "normal", "SYNTHETIC.json"}


def test_images_are_8_bit_grey_and_masks_1_bit_of_the_same_size(dataset: Path) -> None:
    for label in COUNTS:
        for path in images(dataset, label):
            image, mask = Image.open(path), Image.open(path.with_name(f"{path.stem}_mask.png"))
            assert (image.mode, mask.mode, mask.size) == ("L", "1", image.size)
            assert SMALL[0][0] <= image.height <= SMALL[0][1]
            assert SMALL[1][0] <= image.width <= SMALL[1][1]
    assert len({Image.open(p).size for p in images(dataset, "benign")}) > 10


def test_lesions_cover_2_to_20_percent_and_about_9_on_average(dataset: Path) -> None:
    areas = [lesion(p).mean() for label in ("benign", "malignant") for p in images(dataset, label)]
    assert min(areas) >= 0.02
    assert max(areas) <= 0.20
    assert 0.07 <= np.mean(areas) <= 0.11


def test_normals_have_an_all_black_mask(dataset: Path) -> None:
    assert not any(lesion(p).any() for p in images(dataset, "normal"))


def test_a_few_cases_have_two_lesions_in_two_files(dataset: Path) -> None:
    second = sorted(p.name for p in dataset.rglob("*_mask_1.png"))
    assert second == ["benign (19)_mask_1.png", "benign (4)_mask_1.png", "malignant (4)_mask_1.png"]
    assert all(pixels(p).any() for p in dataset.rglob("*_mask_1.png"))


def test_lesions_are_darker_but_a_threshold_does_not_find_them(dataset: Path) -> None:
    darker, best_dice = [], []
    for path in images(dataset, "benign") + images(dataset, "malignant"):
        image, mask = pixels(path), lesion(path)
        darker.append(image[~mask].mean() - image[mask].mean())
        dice = [2 * (mask & (image < t)).sum() / (mask.sum() + (image < t).sum()) for t in range(5, 200, 5)]
        best_dice.append(max(dice))
    assert np.mean(np.array(darker) > 0) > 0.9
    assert np.mean(best_dice) < 0.75


def test_malignant_lesions_stand_taller_with_overlap(dataset: Path) -> None:
    def aspect(path: Path) -> float:
        rows, columns = np.nonzero(pixels(path.with_name(f"{path.stem}_mask.png")))
        return float(np.ptp(rows) + 1) / float(np.ptp(columns) + 1)

    benign, malignant = ([aspect(p) for p in images(dataset, label)] for label in ("benign", "malignant"))
    assert np.median(malignant) > 1.2 * np.median(benign)
    assert max(benign) > min(malignant)


def test_class_is_not_written_in_brightness_or_corners(dataset: Path) -> None:
    def means(label: str, crop: slice) -> np.ndarray:
        return np.array([pixels(p)[crop, crop].mean() for p in images(dataset, label)])

    for crop in (slice(None), slice(0, 12), slice(-12, None)):
        benign, malignant = means("benign", crop), means("malignant", crop)
        auc = np.mean(benign[:, None] > malignant) + 0.5 * np.mean(benign[:, None] == malignant)
        assert 0.2 < auc < 0.8


def test_same_seed_gives_same_pixels_whatever_the_counts(dataset: Path, tmp_path: Path) -> None:
    make_phantom(tmp_path / "again", counts={"malignant": 2, "normal": 1}, size_range=SMALL)
    again, first = digest(tmp_path / "again"), digest(dataset)
    assert len(again) == 6
    assert again.items() <= first.items()


def test_another_seed_gives_other_pixels(dataset: Path, tmp_path: Path) -> None:
    make_phantom(tmp_path / "other", counts={"benign": 2}, seed=1, size_range=SMALL)
    other, first = digest(tmp_path / "other"), digest(dataset)
    assert all(other[name] != first[name] for name in other)


def test_images_do_not_repeat(dataset: Path) -> None:
    found = [value for name, value in digest(dataset).items() if "_mask" not in name]
    assert len(set(found)) == sum(COUNTS.values())


def test_marker_says_what_it_is(dataset: Path) -> None:
    marker = json.loads((dataset / "SYNTHETIC.json").read_text(encoding="utf-8"))
    assert is_synthetic(dataset)
    assert (marker["seed"], marker["counts"]) == (0, COUNTS)
    assert marker["version"] >= 1
    assert marker["note"] == "SYNTHETIC: not ultrasound, not for clinical use"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**63), height=st.integers(48, 90), width=st.integers(48, 90))
def test_any_seed_and_size_gives_a_usable_case(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int
) -> None:
    folder = tmp_path_factory.mktemp("any") / "dataset"
    make_phantom(folder, counts={"malignant": 1}, seed=seed, size_range=((height, height), (width, width)))
    image, mask = pixels(folder / "malignant" / "malignant (1).png"), lesion(folder / "malignant" / "malignant (1).png")
    assert image.shape == mask.shape == (height, width)
    assert image.std() > 10
    assert 0.015 <= mask.mean() <= 0.21


@pytest.fixture
def tiny_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_phantom, "__kwdefaults__", {"counts": {"benign": 1}, "seed": 0, "size_range": SMALL})


@pytest.mark.usefixtures("tiny_default")
def test_ensure_makes_it_once_and_then_leaves_it_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "dataset"
    ensure_phantom(folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    ensure_phantom(folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert (folder / "benign" / "benign (1).png") in before


@pytest.mark.usefixtures("tiny_default")
def test_ensure_fills_an_empty_folder(tmp_path: Path) -> None:
    ensure_phantom(tmp_path)
    assert is_synthetic(tmp_path)


def test_ensure_refuses_a_folder_of_the_user_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine: is not empty.*choose another folder"):
        ensure_phantom(folder)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


@pytest.mark.usefixtures("tiny_default")
def test_interrupted_generation_leaves_nothing_and_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(phantom, "display", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ensure_phantom(tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []
    ensure_phantom(tmp_path / "dataset")
    assert is_synthetic(tmp_path / "dataset")


@pytest.mark.usefixtures("tiny_default")
def test_ensure_accepts_the_phantom_of_a_process_that_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, draw = tmp_path / "dataset", phantom.display

    def overtaken(*arguments: object) -> np.ndarray:
        monkeypatch.setattr(phantom, "display", draw)
        ensure_phantom(folder)
        return draw(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(phantom, "display", overtaken)
    ensure_phantom(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]
    assert is_synthetic(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": {"bening": 3}}, "unknown class 'bening'; allowed are benign, malignant, normal"),
        ({"counts": {"benign": -1}}, "benign is -1; give 0 or more"),
        ({"seed": -5}, "seed is -5; give 0 or more"),
        ({"size_range": ((90, 60), (90, 120))}, "height range is 90 to 60"),
        ({"size_range": ((90, 100), (8, 120))}, "width range is 8 to 120; it must rise and start at 48 or more"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_phantom(tmp_path / "dataset", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_a_finished_phantom_is_not_overwritten(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="file: is a file; give a folder"):
        make_phantom(tmp_path / "file")
    with pytest.raises(UserError, match="already holds a phantom; delete it first"):
        make_phantom(dataset)
