# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.nifti."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from bundle.outputs.nifti import write_nifti_mask
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
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 0)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T > 0, MASK)


def test_equal_masks_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_nifti_mask(MASK, tmp_path / f"{name}.nii.gz", (0.1, 0.25))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("mask", [np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), bool)])
def test_what_is_not_a_binary_mask_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\) bool"):
        write_nifti_mask(mask, tmp_path / "mask.nii.gz")
    assert list(tmp_path.iterdir()) == []
