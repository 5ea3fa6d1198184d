# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.nifti."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from bundle.outputs.nifti import grid_of, write_nifti_mask
from bundle.readers import read_image, read_mask

MASK = np.random.default_rng(0).random((30, 50)) > 0.5


@pytest.mark.parametrize("spacing_mm", [(0.1, 0.25), None])
def test_a_mask_reads_back_equal_with_its_spacing(tmp_path: Path, spacing_mm: tuple[float, float] | None) -> None:
    path = tmp_path / "mask.nii.gz"
    write_nifti_mask(MASK, path, spacing_mm)
    np.testing.assert_array_equal(read_mask(path), MASK)
    read = read_image(path).spacing_mm
    assert read == (None if spacing_mm is None else pytest.approx(spacing_mm))


def test_the_first_axis_counts_columns(tmp_path: Path) -> None:
    write_nifti_mask(MASK, tmp_path / "mask.nii.gz", (0.1, 0.25))
    image = nibabel.load(tmp_path / "mask.nii.gz")
    assert image.shape == (50, 30, 1)
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_zooms()[:2] == pytest.approx((0.25, 0.1))
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T > 0, MASK)


@pytest.mark.parametrize("spacing_mm", [(0.1, 0.25), None])
def test_a_mask_of_a_picture_lies_where_itk_puts_the_picture(
    tmp_path: Path, spacing_mm: tuple[float, float] | None
) -> None:
    write_nifti_mask(MASK, tmp_path / "mask.nii.gz", spacing_mm)
    image = nibabel.load(tmp_path / "mask.nii.gz")
    row, column = spacing_mm or (1, 1)
    for affine, code in (image.get_qform(coded=True), image.get_sform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, np.diag([-column, -row, 1, 1]), atol=1e-6)


TURNED = np.array([[0.0, -0.2, 0, 3], [-0.1, 0, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]])
"""First axis to the back, second to the right."""

AFFINES = {
    "of ITK": (np.diag([-0.1, -0.2, 1, 1]), 1, 1),
    "of a scanner, in both": (TURNED, 1, 2),
    "in the quaternion alone": (TURNED, 1, 0),
    "in the matrix alone": (np.diag([0.1, 0.2, 1, 1]), 0, 4),
    "without codes": (np.diag([0.1, 0.2, 1, 1]), 0, 0),
}


def _volume(path: Path, affine: np.ndarray, qform_code: int, sform_code: int, slices: int = 1) -> Path:
    """An image that is the mask in grey, so that both can be compared after any turn."""
    stack = np.stack([np.roll(MASK, number, axis=0) for number in range(slices)], axis=2)
    image = nibabel.Nifti1Image(np.swapaxes(stack, 0, 1).astype(np.uint8) * 200, None)
    image.header.set_qform(affine, qform_code)
    image.header.set_sform(affine, sform_code)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", AFFINES)
def test_image_and_mask_still_lie_on_each_other_once_both_are_turned(tmp_path: Path, name: str) -> None:
    from monai.transforms import Compose, LoadImage, Orientation

    source, target = _volume(tmp_path / "image.nii.gz", *AFFINES[name]), tmp_path / "mask.nii.gz"
    write_nifti_mask(MASK, target, grid=grid_of(source, None, None))
    stored, written = nibabel.load(source), nibabel.load(target)
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-6)
    for code in ("qform_code", "sform_code"):
        assert written.header[code] == stored.header[code]
    canonical = [nibabel.as_closest_canonical(image) for image in (stored, written)]
    np.testing.assert_array_equal(*(np.asarray(image.dataobj) > 0 for image in canonical))
    turn = Compose([LoadImage(image_only=True, ensure_channel_first=True), Orientation("RAS")])
    image, mask = turn(source), turn(target)
    np.testing.assert_array_equal(image.numpy() > 0, mask.numpy() > 0)
    np.testing.assert_allclose(image.affine, mask.affine, atol=1e-6)
    np.testing.assert_array_equal(read_mask(target), MASK)


def test_a_mask_of_an_image_that_is_stored_upside_down_is_stored_so_too(tmp_path: Path) -> None:
    source, target = tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"
    image = nibabel.Nifti1Image(MASK[::-1].T[..., None].astype(np.uint8) * 200, None)
    image.header["srow_x"], image.header["srow_y"] = (1, 0, 0, 0), (0, 1, 0, 1 - MASK.shape[0])  # as dcm2niix does
    image.to_filename(source)
    write_nifti_mask(MASK, target, grid=grid_of(source, None, None))
    stored, written = (np.asarray(nibabel.load(file).dataobj) > 0 for file in (source, target))
    np.testing.assert_array_equal(written, stored)
    for image_file in (None, source):
        np.testing.assert_array_equal(read_mask(target, image_file), MASK)


def test_a_mask_has_the_axes_of_its_image(tmp_path: Path) -> None:
    source, target = tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(MASK.T[None].astype(np.uint8) * 200, np.diag([1, 0.1, 0.2, 1])), source)
    write_nifti_mask(MASK, target, grid=grid_of(source, None, None))
    stored, written = nibabel.load(source), nibabel.load(target)
    np.testing.assert_array_equal(np.asarray(written.dataobj) > 0, np.asarray(stored.dataobj) > 0)
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-6)


@pytest.mark.parametrize("name", AFFINES)
def test_a_mask_of_a_slice_lies_on_its_slice(tmp_path: Path, name: str) -> None:
    source, target = _volume(tmp_path / "image.nii.gz", *AFFINES[name], slices=5), tmp_path / "mask.nii.gz"
    write_nifti_mask(MASK, target, grid=grid_of(source, 3, None))
    stored, written = nibabel.load(source), nibabel.load(target)
    if name == "without codes":  # nibabel then puts the middle of a file at the origin, whatever it holds
        np.testing.assert_allclose(written.affine[:2], stored.affine[:2], atol=1e-6)
        return
    corner = np.array([4.0, 2, 0, 1])
    np.testing.assert_allclose(written.affine @ corner, stored.affine @ (corner + np.array([0, 0, 3, 0])), atol=1e-5)


def test_equal_masks_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_nifti_mask(MASK, tmp_path / f"{name}.nii.gz", (0.1, 0.25))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("mask", [np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), bool)])
def test_what_is_not_a_binary_mask_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\) bool"):
        write_nifti_mask(mask, tmp_path / "mask.nii.gz")
    assert list(tmp_path.iterdir()) == []
