# SPDX-License-Identifier: Apache-2.0
"""Claims about listing BUSI's folders."""

from __future__ import annotations

from pathlib import Path

from bundle.data.busi import is_busi_layout, list_busi
from bundle.data.cases import Listed


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def test_several_masks_belong_to_one_image(tmp_path: Path) -> None:
    _touch(tmp_path, "benign/benign (4).png", "benign/benign (4)_mask.png", "benign/benign (4)_mask_1.png")
    _touch(tmp_path, "benign/benign (40).png", "benign/benign (40)_mask.png", "normal/normal (1).png")
    listed, problems = list_busi(tmp_path)
    assert listed == [
        Listed("benign/benign (4).png", ("benign/benign (4)_mask.png", "benign/benign (4)_mask_1.png"), "benign"),
        Listed("benign/benign (40).png", ("benign/benign (40)_mask.png",), "benign"),
        Listed("normal/normal (1).png", (), "normal"),
    ]
    assert problems == []


def test_mask_may_have_another_format_than_its_image(tmp_path: Path) -> None:
    _touch(tmp_path, "malignant/a.JPG", "malignant/a_mask.tif")
    assert list_busi(tmp_path)[0] == [Listed("malignant/a.JPG", ("malignant/a_mask.tif",), "malignant")]


def test_orphan_mask_twin_name_and_unknown_class_are_told(tmp_path: Path) -> None:
    _touch(tmp_path, "benign/a_mask.png", "benign/b.png", "benign/b.jpg", "cyst/c.png", "notes/readme.txt")
    _, problems = list_busi(tmp_path)
    told = sorted(str(problem) for problem in problems)
    assert len(told) == 3
    assert "a_mask.png: a mask without its image 'a'" in told[0]
    assert "b.png: has the same name as b.jpg" in told[1]
    assert "'cyst' is no class" in told[2]


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "benign/._a.png", "benign/.DS_Store", "benign/Thumbs.db")
    assert list_busi(tmp_path) == ([], [])
    assert is_busi_layout(tmp_path)


def test_clips_beside_stills_are_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "benign/a.png", "benign/a_mask.png", "benign/b.mp4", "malignant/c.avi")
    listed, told = list_busi(tmp_path)
    assert ([item.image for item in listed], told) == (["benign/a.png"], [])


def test_folder_without_classes_is_no_busi_layout(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.png")
    assert not is_busi_layout(tmp_path)
