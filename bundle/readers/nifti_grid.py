# SPDX-License-Identifier: Apache-2.0
"""Where the pixels of a NIfTI file lie in space, so that a mask can be written to lie on them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .nifti import opened_nifti
from .nifti_layout import layout_of

_SROW, _QOFFSET = ("srow_x", "srow_y", "srow_z"), ("qoffset_x", "qoffset_y", "qoffset_z")
_FIELDS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", *_QOFFSET, *_SROW, "xyzt_units")


@dataclass(frozen=True)
class Grid:
    """The place in space of one picture of a file, field by field as its header says it.

    Args:
        fields: of the header, by NIfTI's names: both transforms with their codes, the voxel sizes and their unit.
        axes: of the file that are (columns, rows), from 0.
        upside_down: the last row is stored first.
    """

    fields: dict[str, Any]
    axes: tuple[int, int] = (0, 1)
    upside_down: bool = False

    def place(self, picture: np.ndarray) -> np.ndarray:
        """Lay an upright picture (H, W) into the three axes of the file."""
        stored = picture[::-1] if self.upside_down else picture
        return np.expand_dims(stored.T, _axis_between(self.axes))


def read_grid(path: str | os.PathLike[str], frame: int | None = None) -> Grid:
    """Read the place of one picture of a NIfTI file.

    Args:
        path: the file.
        frame: the slice, from 0, where there are several: each lies one step further.

    Raises:
        InputError: no readable NIfTI file.
    """
    with opened_nifti(os.fspath(path)) as (header, _):
        fields = {name: np.array(header[name]) for name in _FIELDS}
        # The first is the handedness, the next three are sizes; what follows is time.
        fields["pixdim"] = np.array([*header["pixdim"][:4], 0, 0, 0, 0])
        layout = layout_of(os.fspath(path), header)
        axis = _axis_between(layout.axes)
        steps = float(frame or 0) if header["dim"][1 + axis] > 1 else 0.0
        for row in _SROW:
            fields[row][3] += steps * fields[row][axis]
        if steps and fields["qform_code"] > 0:
            for name, step in zip(_QOFFSET, header.get_qform()[:3, axis], strict=True):
                fields[name] += steps * step
        return Grid(fields, layout.axes, layout.upside_down)


def _axis_between(axes: tuple[int, int]) -> int:
    """The one of the three axes of space that the picture does not lie in."""
    return ({0, 1, 2} - set(axes)).pop()
