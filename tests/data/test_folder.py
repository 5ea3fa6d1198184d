# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.data.folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.data.folder import SOME_CASES_FAILED, list_images, pair_with_maps
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


@pytest.mark.parametrize("name", [".", "out", "a/b/out"])
def test_results_among_the_images_are_refused_in_one_line(add: Callable[..., Path], tmp_path: Path, name: str) -> None:
    add("images/a.png")
    folder = tmp_path / "images"
    with pytest.raises(UserError, match=r"lies inside .*; give an output folder outside it") as caught:
        list_images(folder, folder / name)
    assert "\n" not in str(caught.value)
    assert list_images(folder, tmp_path / "images_out").readable == (str(folder / "a.png"),)


def test_results_that_a_link_leads_among_the_images_are_refused(add: Callable[..., Path], tmp_path: Path) -> None:
    add("images/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    with pytest.raises(UserError, match="lies inside"):
        list_images(tmp_path / "images", tmp_path / "link" / "out")


def test_images_with_a_map_are_kept_and_the_others_named_with_the_reason(
    add: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a.png", "sub/b.jpg", "c.png", "d.png", "e.png"):
        add(f"images/{name}")
        add(f"maps/{name}{'' if name.endswith('.png') else '.png'}")
    (tmp_path / "images" / "broken.png").write_bytes(b"")
    (tmp_path / "maps" / "c.png").unlink()
    Image.fromarray(np.zeros((5, 9), np.uint8)).save(tmp_path / "maps" / "d.png")
    Image.fromarray(np.full((6, 9, 3), (200, 0, 0), np.uint8)).save(tmp_path / "maps" / "e.png")
    folder = tmp_path / "images"
    images = pair_with_maps(list_images(folder), folder, tmp_path / "maps")
    assert images.readable == (str(folder / "a.png"), str(folder / "sub/b.jpg"))
    assert images.maps == (str(tmp_path / "maps/a.png"), str(tmp_path / "maps/sub/b.jpg.png"))
    skipped = {Path(bad.path).relative_to(folder).as_posix(): bad.reason for bad in images.skipped}
    assert skipped.keys() == {"broken.png", "c.png", "d.png", "e.png"}
    assert skipped["c.png"] == "its probability map c.png is missing"
    assert skipped["d.png"] == "its probability map d.png has 5×9 pixels, the image 6×9"
    assert "coloured" in skipped["e.png"]
    assert not any(str(tmp_path) in reason for reason in skipped.values())


def test_a_folder_without_a_usable_map_is_refused(add: Callable[..., Path], tmp_path: Path) -> None:
    add("images/a.png")
    images = list_images(tmp_path / "images")
    with pytest.raises(UserError, match=r"no such folder; name the folder 'probabilities'"):
        pair_with_maps(images, tmp_path / "images", tmp_path / "maps")
    add("maps/b.png")
    with pytest.raises(UserError, match=r"no usable map .*name the folder 'probabilities'"):
        pair_with_maps(images, tmp_path / "images", tmp_path / "maps")


def test_maps_among_the_images_are_refused_since_they_would_be_read_as_images(
    add: Callable[..., Path], tmp_path: Path
) -> None:
    add("images/a.png")
    add("images/maps/a.png")
    with pytest.raises(UserError, match=r"lies inside .*; move the maps out of it"):
        pair_with_maps(list_images(tmp_path / "images"), tmp_path / "images", tmp_path / "images" / "maps")
