# SPDX-License-Identifier: Apache-2.0
"""Masks as NIfTI files, in the orientation that `read_mask` reads."""

from __future__ import annotations

import gzip
import os

import numpy as np

from bundle.files import write_atomically


def write_nifti_mask(
    mask: np.ndarray, path: str | os.PathLike[str], spacing_mm: tuple[float, float] | None = None
) -> None:
    """Write a mask as ``.nii.gz``: (columns, rows, 1) uint8, 1 is lesion.

    The first axis counts columns from left to right and the second rows from top to bottom, as ITK stores a picture.
    A frame of hand-held ultrasound has no place in the patient, so the affine says the spacing alone and its codes
    are 0 (unknown). Without a spacing the voxels are of size 1 and of no unit.

    Args:
        mask: (H, W) bool.
        path: the file, written atomically.
        spacing_mm: (row, column) distance of pixel centres in mm.

    Raises:
        ValueError: the mask is not two-dimensional and bool.
        InputError: the file cannot be written.
    """
    import nibabel  # which few of those who import the outputs want

    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is a (H, W) bool array, not {mask.dtype} of shape {mask.shape}")
    row, column = spacing_mm or (1.0, 1.0)
    image = nibabel.Nifti1Image(mask.T[..., None].astype(np.uint8), None)
    image.header.set_zooms((column, row, 1.0))
    image.header.set_xyzt_units("mm" if spacing_mm else "unknown")
    image.header["cal_max"] = 1
    image.header["descrip"] = b"lesion mask; research software, not a medical device"
    # Without the time of writing, equal masks are equal files.
    write_atomically(path, gzip.compress(image.to_bytes(), mtime=0))
