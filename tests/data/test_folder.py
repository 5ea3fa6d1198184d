# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.data.folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.data.folder import SOME_CASES_FAILED, list_images
from bundle.errors import UserError


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., Path]:
    """Write a small image under the test's folder."""

    def write(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 9), 80, np.uint8)).save(path)
        return path

    return write


def _names(folder: Path) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in list_images(folder).readable]


def test_images_of_every_format_and_depth_are_found_in_order(add: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c/d/e.tif", "c/f.bmp"):
        add(name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    assert _names(tmp_path) == ["a.JPG", "b.png", "c/d/e.tif", "c/f.bmp"]


def test_masks_beside_their_image_are_left_out(add: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "x.jpg", "x_mask.png"):
        add(name)
    assert _names(tmp_path) == ["benign (1).png", "x.jpg"]


def test_a_name_that_only_looks_like_a_mask_is_kept(add: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("lone_mask.png", "other/y.png", "y_mask.png", "z.png", "z_mask_new.png", "z_masked.png"):
        add(name)
    expected = ["lone_mask.png", "other/y.png", "y_mask.png", "z.png", "z_mask_new.png", "z_masked.png"]
    assert _names(tmp_path) == expected


def test_a_bad_file_is_named_and_the_others_are_kept(add: Callable[..., Path], tmp_path: Path) -> None:
    add("good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    images = list_images(tmp_path)
    assert images.readable == (str(tmp_path / "good.png"),)
    assert [Path(bad.path).name for bad in images.skipped] == ["bad.png", "torn.png"]
    assert all(bad.reason and bad.mend for bad in images.skipped)


def test_an_incomplete_run_ends_with_its_own_exit_code_and_names_what_is_missing(
    add: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add("good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(SystemExit) as leaving:
        list_images(tmp_path).exit_if_incomplete()
    assert leaving.value.code == SOME_CASES_FAILED == 3
    shown = capsys.readouterr().err
    assert "bad.png" in shown
    assert "1 of 2 images" in shown


def test_a_complete_run_goes_on(add: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add("good.png")
    list_images(tmp_path).exit_if_incomplete()
    assert capsys.readouterr().err == ""


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no readable image \(\.png"):
        list_images(tmp_path)


def test_a_folder_of_bad_files_is_refused_and_names_them(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"bad\.png.*empty"):
        list_images(tmp_path)


def test_a_missing_folder_or_a_file_is_refused(add: Callable[..., Path], tmp_path: Path) -> None:
    for path in (tmp_path / "absent", add("image.png")):
        with pytest.raises(UserError, match="no such folder"):
            list_images(path)
