# SPDX-License-Identifier: Apache-2.0
"""Claims about NIfTI images and masks."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fabricate import save_nifti

from bundle.errors import InputError
from bundle.readers import count_frames, read_image, read_mask

GREY = (np.add.outer(np.arange(40) * 3, np.arange(60) * 2) % 256).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_picture_is_the_one_it_was_made_of(tmp_path: Path, suffix: str, dtype: type) -> None:
    image = read_image(save_nifti(GREY.astype(dtype), tmp_path / f"a.{suffix}", (0.08, 0.12)))
    np.testing.assert_array_equal(image.pixels, GREY)
    assert image.spacing_mm == pytest.approx((0.08, 0.12))
    assert (image.pixels.dtype, image.warnings, image.frame) == (np.float32, (), None)


def test_a_picture_of_itk_reads_as_its_png(tmp_path: Path) -> None:
    """ITK stores columns first and gives them the signs of LPS; MONAI and nibabel's identity give other signs."""
    for affine in (np.diag([-0.2, -0.1, 1, 1]), np.diag([0.2, 0.1, 1, 1]), np.diag([0.2, -0.1, 1, 1])):
        nibabel.save(nibabel.Nifti1Image(GREY.T[..., None], affine), tmp_path / "a.nii.gz")
        image = read_image(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(image.pixels, GREY)
        assert image.spacing_mm == pytest.approx((0.1, 0.2))


def test_colour_reads_as_luma(tmp_path: Path) -> None:
    colour = np.zeros((60, 40, 1), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for channel in "RGB":
        colour[channel][..., 0] = GREY.T
    nibabel.save(nibabel.Nifti1Image(colour, np.diag([0.1, 0.1, 1, 1])), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").pixels, GREY)


def test_the_slope_of_the_header_is_used(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image((GREY // 2).T.astype(np.int16), np.eye(4))
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").pixels, (GREY // 2) * 2.0 + 1)


def test_one_slice_of_a_stack_is_chosen(tmp_path: Path) -> None:
    path = save_nifti(np.stack([GREY, GREY // 2, GREY // 3]), tmp_path / "stack.nii.gz", (0.1, 0.1))
    assert count_frames(path) == 3
    with pytest.raises(InputError, match=r"stack\.nii\.gz: holds 3 frames"):
        read_image(path)
    image = read_image(f"{path}[1]")
    np.testing.assert_array_equal(image.pixels, GREY // 2)
    assert (image.frame, image.frames) == (1, 3)


def test_a_spacing_of_one_is_no_spacing(tmp_path: Path) -> None:
    assert read_image(save_nifti(GREY, tmp_path / "a.nii")).spacing_mm is None


def test_units_are_heeded_and_their_absence_is_told(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(GREY.T, np.diag([200.0, 100.0, 1, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").spacing_mm == pytest.approx((0.1, 0.2))
    plain = nibabel.Nifti1Image(GREY.T, np.diag([0.2, 0.1, 1, 1]))
    plain.header["xyzt_units"] = 0
    nibabel.save(plain, tmp_path / "b.nii")
    without = read_image(tmp_path / "b.nii")
    assert "no unit" in without.warnings[0]
    assert without.spacing_mm == pytest.approx((0.1, 0.2))


def test_masks_of_any_two_values_read_alike(tmp_path: Path) -> None:
    mask = GREY > 128
    for number, values in enumerate((mask.astype(np.uint8), mask * np.int16(255), mask.astype(np.float32))):
        np.testing.assert_array_equal(read_mask(save_nifti(values, tmp_path / f"{number}.nii.gz")), mask)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((4, 4, 2, 3), "not that of an image"),
        ((30000, 30000, 1), "more than the limit of 25 Mpx"),
        ((4000, 4000, 100), "the limit is 400 MB"),
        ((60, 40, 9), "holds 0 bytes of a slice"),
    ],
)
def test_dimensions_are_checked_before_anything_is_inflated(
    tmp_path: Path, shape: tuple[int, ...], reason: str
) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1\0", 352
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4) + bytes(60 * 40 * 8)))
    with pytest.raises(InputError, match=reason):
        read_image(tmp_path / "a.nii.gz", frame=8 if shape[-1] == 9 else 0)


def test_torn_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = save_nifti(GREY, tmp_path / "a.nii.gz").read_bytes()
    for data in (whole[:40], whole[: len(whole) // 2], gzip.compress(b"something else")):
        (tmp_path / "a.nii.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.nii\.gz"):
            read_image(tmp_path / "a.nii.gz")
