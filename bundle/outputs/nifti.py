# SPDX-License-Identifier: Apache-2.0
"""Masks as NIfTI files, which lie on their image in space as they do in pixels."""

from __future__ import annotations

import gzip
import os

import numpy as np

from bundle.files import write_atomically
from bundle.readers import NIFTI, kind_of
from bundle.readers.nifti_grid import Grid, read_grid

_UNKNOWN, _MILLIMETRES = 0, 2  # NIFTI_UNITS_…


def write_nifti_mask(
    mask: np.ndarray,
    path: str | os.PathLike[str],
    spacing_mm: tuple[float, float] | None = None,
    grid: Grid | None = None,
) -> None:
    """Write a mask as ``.nii.gz``: uint8, 1 is lesion.

    The first axis counts columns from left to right and the second rows from top to bottom, as ITK stores a picture,
    unless the grid says otherwise.

    Args:
        mask: (H, W) bool.
        path: the file, written atomically.
        spacing_mm: (row, column) distance of pixel centres in mm; of no use beside a grid.
        grid: of the source, see `grid_of`; by default the one that ITK gives a picture of this spacing.

    Raises:
        ValueError: the mask is not two-dimensional and bool.
        InputError: the file cannot be written.
    """
    import nibabel  # which few of those who import the outputs want

    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is a (H, W) bool array, not {mask.dtype} of shape {mask.shape}")
    grid = grid or _grid_of_picture(spacing_mm)
    voxels = grid.place(mask.astype(np.uint8))
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(voxels.shape)
    for name, value in grid.fields.items():
        header[name] = value
    header["cal_max"] = 1
    header["descrip"] = b"lesion mask; research software, not a medical device"
    # Without an affine the image keeps what its header says; without the time of writing, equal masks are equal files.
    image = nibabel.Nifti1Image(voxels, None, header)
    write_atomically(path, gzip.compress(image.to_bytes(), mtime=0))


def grid_of(source: str | os.PathLike[str], frame: int | None, spacing_mm: tuple[float, float] | None) -> Grid:
    """Where the mask of an image lies: where a NIfTI source does, else where ITK places a picture or a DICOM image.

    Args:
        source: the image's file.
        frame: of a file of several, from 0.
        spacing_mm: (row, column) of the image, where it is known.

    Raises:
        InputError: a NIfTI source can not be read any more.
    """
    return read_grid(source, frame) if kind_of(source) == NIFTI else _grid_of_picture(spacing_mm)


def _grid_of_picture(spacing_mm: tuple[float, float] | None) -> Grid:
    """A frame of hand-held ultrasound has no place in the patient; ITK gives it the origin and its own axes.

    These run to the left and to the back where NIfTI's run to the right and to the front, hence the signs.
    """
    row, column = spacing_mm or (1.0, 1.0)
    fields = {
        **{"qform_code": 1, "sform_code": 1, "quatern_d": 1.0},
        **{"srow_x": (-column, 0, 0, 0), "srow_y": (0, -row, 0, 0), "srow_z": (0, 0, 1, 0)},
        **{"pixdim": (1, column, row, 1, 0, 0, 0, 0), "xyzt_units": _MILLIMETRES if spacing_mm else _UNKNOWN},
    }
    return Grid(fields)
