# SPDX-License-Identifier: Apache-2.0
"""Claims about checking a dataset's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.data.check import check_dataset
from bundle.errors import UserError

LESION = np.zeros((20, 30), dtype=np.uint8)
LESION[5:10, 5:12] = 255


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    """Three good images, one of each class."""
    folder = tmp_path / "set"
    rng = np.random.default_rng(0)
    for label in ("benign", "malignant", "normal"):
        _save(folder / label / f"{label} (1).png", rng.integers(0, 256, LESION.shape, dtype=np.uint8))
        _save(folder / label / f"{label} (1)_mask.png", LESION * (label != "normal"))
    return folder


def test_good_dataset_gives_its_cases(busi: Path) -> None:
    checked = check_dataset(busi)
    assert [case.image for case in checked.cases] == [
        f"{name}/{name} (1).png" for name in ("benign", "malignant", "normal")
    ]
    assert checked.cases[0].size == (20, 30)
    assert (checked.name, checked.source, checked.synthetic, checked.skipped) == ("set", "busi", False, ())


def test_masks_are_merged_by_or(busi: Path) -> None:
    before = check_dataset(busi).cases[0]
    _save(busi / "benign/benign (1)_mask_1.png", np.flipud(LESION))
    after = check_dataset(busi).cases[0]
    assert after.sha256 == before.sha256
    assert after.mask_sha256 != before.mask_sha256
    _save(busi / "benign/benign (1)_mask.png", np.maximum(LESION, np.flipud(LESION)))
    assert check_dataset(busi).cases[0].mask_sha256 == after.mask_sha256


def test_checksum_is_of_pixels_not_of_the_file(busi: Path) -> None:
    before = check_dataset(busi)
    path = busi / "benign/benign (1).png"
    Image.open(path).convert("RGB").save(path, compress_level=1)
    assert check_dataset(busi).dataset_sha256 == before.dataset_sha256


def _break(busi: Path) -> None:
    good = busi / "benign/benign (1).png"
    for number in range(2, 6):
        (busi / f"benign/benign ({number}).png").write_bytes(good.read_bytes())
    (busi / "benign/benign (2).png").write_bytes(good.read_bytes()[:300])
    _save(busi / "benign/benign (2)_mask.png", LESION)
    _save(busi / "benign/benign (3)_mask.png", LESION[:, :20])
    _save(busi / "benign/benign (4)_mask.png", LESION * 0)
    _save(busi / "benign/benign (9)_mask.png", LESION)
    _save(busi / "normal/normal (1)_mask.png", LESION)
    _save(busi / "cyst/a.png", LESION)


REASONS = {
    "benign/benign (2).png": "cannot be decoded",
    "benign/benign (3)_mask.png": "the mask is 20×20, its image 20×30",
    "benign/benign (4)_mask.png": "is empty",
    "benign/benign (5).png": "without a mask",
    "benign/benign (9)_mask.png": "without its image",
    "normal/normal (1)_mask.png": "marks 35 pixels",
    "cyst": "no class",
}


def test_all_bad_files_are_told_at_once(busi: Path) -> None:
    _break(busi)
    with pytest.raises(UserError, match="7 bad files") as caught:
        check_dataset(busi)
    for path, reason in REASONS.items():
        assert any(path in line and reason in line for line in str(caught.value).splitlines()), path


def test_skip_bad_leaves_them_out_and_lists_them(busi: Path) -> None:
    _break(busi)
    checked = check_dataset(busi, skip_bad=True)
    assert [case.image for case in checked.cases] == ["benign/benign (1).png", "malignant/malignant (1).png"]
    assert {entry["path"] for entry in checked.skipped} == set(REASONS)
    assert all(REASONS[entry["path"]] in entry["reason"] and entry["mend"] for entry in checked.skipped)


def test_long_lists_are_cut_with_a_count(tmp_path: Path) -> None:
    for number in range(25):
        _save(tmp_path / f"benign/{number}_mask.png", LESION)
    with pytest.raises(UserError, match="and 5 more") as caught:
        check_dataset(tmp_path)
    assert len(str(caught.value).splitlines()) == 22


def test_dataset_without_a_good_case_is_refused_even_with_skip_bad(tmp_path: Path) -> None:
    _save(tmp_path / "benign/1_mask.png", LESION)
    with pytest.raises(UserError, match="no usable image"):
        check_dataset(tmp_path, skip_bad=True)


def test_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(
        UserError, match=r"neither manifest\.csv nor a folder benign, malignant, normal; it holds images"
    ):
        check_dataset(tmp_path)
    with pytest.raises(UserError, match="no such dataset"):
        check_dataset(tmp_path / "absent")


@pytest.mark.parametrize("name", ["manifest.csv", "other.csv"])
def test_manifest_is_read_as_file_or_from_its_folder(busi: Path, name: str) -> None:
    text = "image,mask,label,patient\nbenign/benign (1).png,benign/benign (1)_mask.png,benign,P\n"
    (busi / name).write_text(text + "normal/gone.png,,normal,P\nx,,cyst,P\n")
    checked = check_dataset(busi if name == "manifest.csv" else busi / name, skip_bad=True)
    assert (checked.source, [case.patient for case in checked.cases]) == ("manifest", ["P"])
    assert [entry["path"] for entry in checked.skipped] == [f"{name} line 4", "normal/gone.png"]
