# SPDX-License-Identifier: Apache-2.0
"""Which axis of a NIfTI file is which: columns, rows, frames or colours, and which way up, as its writers put them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bundle.errors import InputError

from .dicom import MAX_FRAMES
from .ultrasound import CONVERT, MAX_PIXELS, REPLACE, SCALE_DOWN

MAX_NIFTI_BYTES = 400_000_000
"""Of the uncompressed content, by the header: to reach a slice, all before it is inflated and dropped."""

UPSIDE_DOWN = "is written upside down, as dcm2niix writes ultrasound: it is turned back, and so is a mask drawn on it"

_VECTOR_INTENTS = (1007, 2003, 2004)
"""NIFTI_INTENT_VECTOR, as ITK writes colour, and the GIfTI intents RGB_VECTOR and RGBA_VECTOR."""

_NARROW = 8
"""By how much fewer columns than rows, and than slices, an image has that was stored with another order of axes."""


@dataclass(frozen=True)
class Layout:
    """How the pixels lie in a file.

    Args:
        rows, columns: of one picture.
        frames: pictures in the file.
        channels: planes of a picture, 1 for grey and for RGB24; a file holds all frames of a plane together.
        axes: of the file that are (columns, rows), from 0.
        upside_down: the last row is stored first.
        may_be_colours: there are three or four frames, and nothing tells whether they are colours.
        notes: what a reader of the result should know.
    """

    rows: int
    columns: int
    frames: int
    channels: int = 1
    axes: tuple[int, int] = (0, 1)
    upside_down: bool = False
    may_be_colours: bool = False
    notes: tuple[str, ...] = ()

    def planes_of(self, frame: int) -> list[int]:
        """The planes of one frame, in the file's order."""
        return [channel * self.frames + frame for channel in range(self.channels)]

    def with_colours(self) -> Layout:
        """The same, its frames being the colours of one picture."""
        return replace(self, frames=1, channels=self.frames, may_be_colours=False)


def layout_of(path: str, header: Any) -> Layout:
    """Read the layout from a header, all within the limits.

    Raises:
        InputError: no shape or type of an image or a stack of images, or more than the limits allow.
    """
    shape = [int(length) for length in header.get_data_shape()]
    dims = [*shape, *[1] * (5 - len(shape))]
    if min(dims) < 1 or any(length > 1 for length in dims[5:]):
        raise _no_image(path, shape)
    vector = dims[4] > 1 or int(header["intent_code"]) in _VECTOR_INTENTS
    axes, notes = _picture_axes(dims)
    columns, rows = (dims[axis] for axis in axes)
    others = [dims[axis] for axis in range(4) if axis not in axes]
    frames = int(np.prod(others, dtype=object))
    if sum(length > 1 for length in others) > 1:
        raise _no_image(path, shape)
    if columns * _NARROW < rows and columns < others[0]:
        reason = f"has the shape {shape}: {columns} columns; columns are expected first, then rows"
        raise InputError(path, reason, "save it in that order of axes")
    dtype = header.get_data_dtype()
    if dtype.kind not in "biuf" and not dtype.fields:
        raise InputError(path, f"has values of the type {dtype}", CONVERT)
    if vector and (dims[4] not in (1, 3, 4) or dtype.fields):
        raise InputError(path, f"has {dims[4]} values in each pixel, neither grey nor colour", CONVERT)
    _check_limits(path, header, rows, columns, frames * dims[4])
    unclear = not vector and not dtype.fields and frames in (3, 4)
    turned = stored_upside_down(header)
    if _runs_to_origin(header, 0):
        reason = "its columns run from right to left, as a change of its orientation (to RAS) leaves them"
        raise InputError(path, reason, "save it with its axes as they were, or as PNG")
    if turned:
        notes.append(UPSIDE_DOWN)
        unclear = False  # dcm2niix writes colour as RGB24: what is left are frames
    return Layout(rows, columns, frames, dims[4], axes, turned, unclear, tuple(notes))


def stored_upside_down(header: Any) -> bool:
    """Whether a header has the marks of dcm2niix's 2-D images, which it flips to have the last row first.

    Where it knows no orientation both codes are 0; yet it writes the flip of its rows into the unused transform,
    srow_y = (0, +1, 0, 1 − rows). With an orientation, it writes the same with the row's height and a code.
    """
    return _runs_to_origin(header, 1)


def _runs_to_origin(header: Any, axis: int) -> bool:
    """Whether columns (0) or rows (1) begin far off and end at the origin, against the direction of a picture.

    NIfTI's axes of space run to the right and up in a picture, so a picture's step is negative and begins at 0.
    """
    length = int(header["dim"][1 + axis])
    if int(header["dim"][0]) < 2 or length < 2:
        return False
    codes = int(header["sform_code"]), int(header["qform_code"])
    row = header.get_qform()[axis] if codes[0] == 0 < codes[1] else header[("srow_x", "srow_y")[axis]]
    step = float(row[axis])
    expected = [0.0, 0.0, 0.0, step * (1 - length)]
    expected[axis] = step
    return step > 0 and bool(np.allclose(row, expected, rtol=1e-4, atol=1e-4 * step))


def _picture_axes(dims: list[int]) -> tuple[tuple[int, int], list[str]]:
    """The axes of (columns, rows): the first two, or those that are left beside an axis of length 1."""
    if dims[2] > 1 and (dims[0] == 1) != (dims[1] == 1):
        axes = (1, 2) if dims[0] == 1 else (0, 2)
        return axes, [f"its shape is {dims[:3]}: the axis of length 1 is passed over, then come columns, then rows"]
    return (0, 1), []


def _check_limits(path: str, header: Any, rows: int, columns: int, planes: int) -> None:
    if rows * columns > MAX_PIXELS:
        reason = f"{rows}×{columns} pixels are more than the limit of {MAX_PIXELS / 1e6:.0f} Mpx"
        raise InputError(path, reason, SCALE_DOWN)
    offset = float(header["vox_offset"])
    if not 348 <= offset <= MAX_NIFTI_BYTES:
        raise InputError(path, f"says that its pixels begin at byte {offset:g}", REPLACE)
    n_bytes = rows * columns * planes * header.get_data_dtype().itemsize + int(offset)
    if planes > MAX_FRAMES or n_bytes > MAX_NIFTI_BYTES:
        reason = f"claims {planes} slices, {n_bytes / 1e6:.0f} MB; the limit is {MAX_NIFTI_BYTES / 1e6:.0f} MB"
        raise InputError(path, reason, "save the wanted slice as a file of its own")


def _no_image(path: str, shape: list[int]) -> InputError:
    return InputError(path, f"has the shape {shape}, not that of an image or a stack of images", CONVERT)
