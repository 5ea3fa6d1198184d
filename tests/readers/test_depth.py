# SPDX-License-Identifier: Apache-2.0
"""Claims about grey values in containers that are deeper than the picture: the same picture comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from fabricate import save, save_nifti, speckle, ultrasound
from PIL import Image

from bundle.errors import InputError
from bundle.readers import read_image
from bundle.readers.depth import scale_unknown_range

GREY = speckle()


def _png(values: np.ndarray, tmp_path: Path) -> Any:
    Image.fromarray(values).save(tmp_path / "a.png")
    return read_image(tmp_path / "a.png")


@pytest.mark.parametrize("factor", [1, 4, 16, 64], ids=["8 bits", "10 bits", "12 bits", "14 bits"])
def test_a_shallow_picture_in_a_png_of_16_bits_is_not_dark(tmp_path: Path, factor: int) -> None:
    image = _png(GREY.astype(np.uint16) * factor, tmp_path)
    np.testing.assert_allclose(image.pixels, GREY, atol=1)
    assert f"use {8 + int(np.log2(factor))} of 16 bits" in image.warnings[0]


@pytest.mark.parametrize("factor", [1, 4, 16, 64])
def test_a_shallow_picture_in_a_dicom_file_of_16_bits_is_not_dark(tmp_path: Path, factor: int) -> None:
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        deep = ultrasound(GREY.astype(np.uint16) * factor)
        if photometric == "MONOCHROME1":
            values = (255 - GREY).astype(np.uint16) * factor
            deep.PixelData, deep.PhotometricInterpretation = values.tobytes(), photometric
        image = read_image(save(deep, tmp_path / "a.dcm"))
        np.testing.assert_allclose(image.pixels, GREY, atol=1.1)
        assert any("of 16 bits" in warning for warning in image.warnings)


def test_signed_dicom_of_a_shallow_picture_is_not_washed_out(tmp_path: Path) -> None:
    for values in (GREY.astype(np.int16), GREY.astype(np.int16) - 128):
        image = read_image(save(ultrasound(values, PixelRepresentation=1), tmp_path / "a.dcm"))
        np.testing.assert_allclose(image.pixels, GREY, atol=1)


def test_a_full_range_of_16_bits_is_taken_as_it_is(tmp_path: Path) -> None:
    image = _png(GREY.astype(np.uint16) * 257, tmp_path)
    np.testing.assert_allclose(image.pixels, GREY, atol=1e-3)
    assert image.warnings == ()


def test_a_hot_pixel_does_not_darken_the_picture(tmp_path: Path) -> None:
    hot = GREY.astype(np.uint16) * 16
    hot[9, 9] = 65535
    image = _png(hot, tmp_path)
    np.testing.assert_allclose(np.delete(image.pixels, 9, axis=0), np.delete(GREY, 9, axis=0), atol=1)
    assert "1 brighter pixels are cut" in image.warnings[0]


@pytest.mark.parametrize("white", [255.0, 1.0], ids=["255", "1"])
@pytest.mark.parametrize("change", ["one", "overshoot", "ringing", "hot"])
def test_values_beyond_white_are_cut_and_do_not_darken_the_picture(tmp_path: Path, white: float, change: str) -> None:
    values = GREY.astype(np.float32) * (white / 255)
    if change == "one":
        values[3, 4] = 1.002 * white
    elif change == "overshoot":
        values[GREY > 240] *= 1.12
    elif change == "ringing":
        values[GREY < 5] = -0.021 * white
    else:
        values[3, 4] = 160 * white
    expected = np.where(values < 0, 0, GREY).astype(float)
    expected[values > white] = 255
    for name in ("a.tif", "a.nii.gz"):
        if name == "a.tif":
            Image.fromarray(values).save(tmp_path / name)
        else:
            save_nifti(values, tmp_path / name)
        image = read_image(tmp_path / name)
        np.testing.assert_allclose(image.pixels, expected, atol=16 if change == "overshoot" else 0.01)
        assert any("cut" in warning for warning in image.warnings)


def test_whole_negative_numbers_are_codes_and_not_the_ringing_of_a_spline(tmp_path: Path) -> None:
    values = GREY.astype(np.int16)
    values[0, 0] = -1
    with pytest.raises(InputError, match="no grey values"):
        read_image(save_nifti(values, tmp_path / "a.nii.gz"))
    with pytest.raises(InputError, match="no grey values"):
        scale_unknown_range("a.tif", np.full((9, 9), -0.5))


def test_standardised_values_are_refused(tmp_path: Path) -> None:
    """Of mean 0 and deviation 1: what is below 0 is no ringing, and cutting it would take half of the picture."""
    values = GREY.astype(np.float32)
    values = (values - values.mean()) / values.std()
    with pytest.raises(InputError, match="no grey values"):
        read_image(save_nifti(values, tmp_path / "a.nii.gz"))


def test_twelve_bits_in_a_nifti_of_16_are_not_dark(tmp_path: Path) -> None:
    for values in (GREY.astype(np.int16) * 16, GREY.astype(np.uint16) * 16, GREY.astype(np.float32) * 16.0):
        image = read_image(save_nifti(values, tmp_path / "a.nii.gz"))
        np.testing.assert_allclose(image.pixels, GREY, atol=1)
        assert "12 bits" in image.warnings[0]
    scaled = nibabel.Nifti1Image(GREY.T.astype(np.int16), np.eye(4))
    scaled.header.set_slope_inter(16, 0)
    nibabel.save(scaled, tmp_path / "b.nii")
    np.testing.assert_allclose(read_image(tmp_path / "b.nii").pixels, GREY, atol=1)


@pytest.mark.parametrize(("divisor", "is_told"), [(1, False), (2, False), (8, True), (16, True)])
def test_a_picture_with_few_grey_levels_left_is_told(tmp_path: Path, divisor: int, is_told: bool) -> None:
    image = _png(GREY // divisor, tmp_path)
    assert any("grey levels are left" in warning for warning in image.warnings) == is_told


def test_few_levels_in_the_tissue_are_told_whatever_stands_beside_it(tmp_path: Path) -> None:
    from fabricate import region, regions

    frame = np.tile(np.arange(200, dtype=np.uint8), (80, 1))
    frame[10:70, 10:90] = GREY // 32
    items = regions(region(10, 10, 70, 90))
    image = read_image(save(ultrasound(frame, SequenceOfUltrasoundRegions=items), tmp_path / "a.dcm"))
    assert any("grey levels are left" in warning for warning in image.warnings)
