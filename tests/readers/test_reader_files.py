# SPDX-License-Identifier: Apache-2.0
"""Claims about the readers' front door: frames, and names of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from bundle.readers import UltrasoundImage, count_frames, read_image, split_frame


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A TIFF of three frames of grey 10, 20 and 30."""
    first, *others = (Image.new("L", (9, 6), grey) for grey in (10, 20, 30))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=others)
    return tmp_path / "pages.tif"


def test_several_frames_need_a_choice_and_the_error_says_how(pages: Path) -> None:
    with pytest.raises(InputError, match=r"pages\.tif: holds 3 frames.*name one of them, 0 to 2"):
        read_image(pages)


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_frame_is_chosen_by_number_or_in_the_name(pages: Path, frame: int) -> None:
    for image in (read_image(pages, frame), read_image(f"{pages}[{frame}]")):
        assert image.pixels.mean() == 10 * (frame + 1)
        assert (image.frame, image.frames) == (frame, 3)


@pytest.mark.parametrize("frame", [3, -1])
def test_a_frame_that_is_not_there_is_refused(pages: Path, frame: int) -> None:
    with pytest.raises(InputError, match=rf"has no frame {frame}"):
        read_image(pages, frame)


def test_frames_are_counted(pages: Path, tmp_path: Path) -> None:
    Image.new("L", (9, 6)).save(tmp_path / "one.png")
    assert count_frames(pages) == 3
    assert count_frames(tmp_path / "one.png") == count_frames(f"{pages}[1]") == 1


def test_a_file_of_one_image_has_no_frame_number(tmp_path: Path) -> None:
    Image.new("L", (9, 6)).save(tmp_path / "one.png")
    for image in (read_image(tmp_path / "one.png"), read_image(tmp_path / "one.png", 0)):
        assert (image.frame, image.frames) == (None, 1)


def test_a_file_whose_own_name_ends_in_brackets_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "scan[2]"
    Image.new("L", (9, 6), 50).save(path, format="PNG")
    assert split_frame(path) == (str(path), None)
    assert split_frame(tmp_path / "cine.dcm[12]") == (str(tmp_path / "cine.dcm"), 12)
    assert read_image(path).pixels.mean() == 50


def test_the_tissue_is_the_region_or_all() -> None:
    pixels = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert UltrasoundImage(pixels, None, ()).tissue.shape == (4, 5)
    np.testing.assert_array_equal(UltrasoundImage(pixels, None, (), (1, 2, 3, 5)).tissue, pixels[1:3, 2:5])
