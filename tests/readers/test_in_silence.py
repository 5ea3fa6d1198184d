# SPDX-License-Identifier: Apache-2.0
"""Claims about files that would be read wrongly without a word: each is read right, told, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fabricate import encapsulated, even, put_stream, region, regions, save, save_nifti, speckle, ultrasound, ybr_jpeg
from PIL import Image, TiffImagePlugin
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from bundle.errors import InputError
from bundle.readers import read_image, read_mask
from bundle.readers.masks import MaskWarning

GREY = speckle(120, 160)
RGB = np.repeat(GREY[..., None], 3, axis=2)


def _read(dataset: Any, tmp_path: Path) -> Any:
    return read_image(save(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_that_lies_on_its_side_is_turned_and_not_torn(
    tmp_path: Path, orientation: int, turns: int, compression: str | None
) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    options = {"compression": compression} if compression else {}
    stored = np.ascontiguousarray(np.rot90(GREY, turns))
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo=tags, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, GREY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_colour_that_uses_the_lower_bits_is_refused(tmp_path: Path, suffix: str) -> None:
    """Pillow gives the upper 8 of 16 bits per channel."""
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), RGB.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path).pixels, GREY)
    for deep in (RGB.astype(np.uint16) * 16, np.dstack([RGB.astype(np.uint16) * 16, np.full_like(GREY, 65535, "u2")])):
        cv2.imwrite(str(path), deep)
        with pytest.raises(InputError, match="they use fewer bits than the file"):
            read_image(path)


def test_deep_colour_of_dicom_uses_the_depth_of_its_values(tmp_path: Path) -> None:
    image = _read(ultrasound(RGB.astype(np.uint16) * 16, "RGB"), tmp_path)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert "12 of 16 bits" in image.warnings[0]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_jpeg_that_was_cut_and_closed_again_is_told(tmp_path: Path, share: float) -> None:
    stream = ybr_jpeg(GREY)
    cut = stream[: int(len(stream) * share)] + b"\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(cut)
    dicom = save(put_stream(ultrasound(GREY), encapsulated([even(cut)]), JPEGBaseline8Bit), tmp_path / "a.dcm")
    for path in (tmp_path / "a.jpg", dicom):
        assert any("may have been cut short" in note for note in read_image(path).warnings)
    (tmp_path / "b.jpg").write_bytes(stream)
    assert read_image(tmp_path / "b.jpg").warnings == ()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_other_streams_that_were_cut_are_refused(tmp_path: Path, syntax: str) -> None:
    from pydicom.encaps import get_frame

    stream = get_frame(ultrasound(GREY, syntax=syntax).PixelData, 0, number_of_frames=1)
    for share in (0.5, 0.95):
        cut = encapsulated([even(stream[: int(len(stream) * share)])])
        with pytest.raises(InputError, match=r"a\.dcm"):
            _read(put_stream(ultrasound(GREY), cut, syntax), tmp_path)


def test_two_words_on_which_end_is_black_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Presentation LUT Shape"):
        _read(ultrasound(GREY, PresentationLUTShape="INVERSE"), tmp_path)
    for photometric, shape in (("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")):
        image = _read(ultrasound(GREY, photometric, PresentationLUTShape=shape), tmp_path)
        np.testing.assert_array_equal(image.pixels, GREY)


def test_oblong_pixels_are_told(tmp_path: Path) -> None:
    assert "oblong" in _read(ultrasound(GREY, PixelAspectRatio=[1, 2]), tmp_path).warnings[0]
    assert _read(ultrasound(GREY, PixelAspectRatio=[1, 1]), tmp_path).warnings == ()


def test_a_region_that_was_not_scaled_with_its_frame_is_told(tmp_path: Path) -> None:
    items = regions(region(0, 0, 60, 80))
    image = _read(ultrasound(GREY, SequenceOfUltrasoundRegions=items), tmp_path)
    assert any("lies outside its tissue region" in note for note in image.warnings)
    items = regions(region(5, 5, 110, 150))
    assert _read(ultrasound(GREY, SequenceOfUltrasoundRegions=items), tmp_path).warnings == ()


SMOOTH = np.asarray(Image.fromarray(GREY).resize((160, 120), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("says_signed", [False, True])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 128, "WindowWidth": 256}])
def test_unsigned_pixels_that_say_signed_are_unsigned(
    tmp_path: Path, syntax: str | None, says_signed: bool, window: dict[str, int]
) -> None:
    dataset = ultrasound(SMOOTH, **({"syntax": syntax} if syntax else {}), **window)
    dataset.PixelRepresentation = int(says_signed)
    image = _read(dataset, tmp_path)
    np.testing.assert_allclose(image.pixels, SMOOTH, atol=1)
    assert any("although its header says signed" in note for note in image.warnings) == says_signed


def test_signed_pixels_are_signed(tmp_path: Path) -> None:
    image = _read(ultrasound((SMOOTH.astype(int) - 128).astype(np.int8), PixelRepresentation=1), tmp_path)
    np.testing.assert_array_equal(image.pixels, SMOOTH)
    assert image.warnings == ()


def test_a_dark_frame_of_a_deep_palette_stays_dark(tmp_path: Path) -> None:
    table = np.arange(256, dtype="<u2") ** 2  # to 65025, yet below 256 for the first sixteen
    tables = {f"{colour}PaletteColorLookupTableData": table.tobytes() for colour in ("Red", "Green", "Blue")}
    dark = (GREY // 17).astype(np.uint8)
    np.testing.assert_array_equal(_read(ultrasound(dark, "PALETTE COLOR", **tables), tmp_path).pixels, 0)


def test_a_stream_of_more_bits_than_the_header_says_is_refused(tmp_path: Path) -> None:
    dataset = ultrasound(GREY.astype(np.uint16) * 16, syntax=JPEGLSLossless)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    with pytest.raises(InputError, match="has 16 bits where the header says 8"):
        _read(dataset, tmp_path)


def test_transparent_parts_are_told(tmp_path: Path) -> None:
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:30] = 0
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, GREY)
    assert "transparent" in image.warnings[0]


def test_an_inverted_mask_is_told(tmp_path: Path) -> None:
    lesion = np.zeros(GREY.shape, np.uint8)
    lesion[30:60, 40:90] = 1
    for values, is_inverted in ((lesion, False), (1 - lesion, True)):
        path = save_nifti(values, tmp_path / "m.nii.gz")
        Image.fromarray(values * 255).save(tmp_path / "m.png")
        for file in (path, tmp_path / "m.png"):
            if is_inverted:
                with pytest.warns(MaskWarning, match="is it inverted"):
                    assert read_mask(file).any()
            else:
                np.testing.assert_array_equal(read_mask(file), lesion > 0)
