# SPDX-License-Identifier: Apache-2.0
"""Read 2-D images and masks, or one slice of a stack, from NIfTI files, `.nii` and `.nii.gz`.

The convention: the first axis of the file counts columns from left to right, the second rows from top to bottom, as
ITK, SimpleITK and MONAI store a picture. A frame of hand-held ultrasound has no orientation in the patient, so the
signs and the rotation of the affine are not used; its voxel sizes are.
"""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from bundle.errors import InputError

from .dicom import MAX_FRAMES, open_or_refuse
from .image import mask_of, scale_unknown_range, to_grey
from .ultrasound import CONVERT, MAX_PIXELS, REPLACE, SCALE_DOWN, UltrasoundImage, check_file, choose_frame, plain

MAX_NIFTI_BYTES = 400_000_000
"""Of the uncompressed content, by the header: to reach a slice, all before it is inflated and dropped."""

GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540
_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
_SPACING_RANGE_MM = (0.001, 5.0)


def is_nifti(start: bytes) -> bool:
    """Whether a file's first bytes, inflated if need be, are a NIfTI header."""
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0")


def read_nifti(path: str, frame: int | None = None) -> UltrasoundImage:
    """Read one slice as grey (H, W), float32 in [0, 255].

    Args:
        path: the file.
        frame: the slice, from 0, where there are several.

    Raises:
        InputError: no readable NIfTI file, more than two axes and slices, a size above the limits, values without a
            known range; or several slices and none is named.
    """
    with _opened(path) as (header, stream):
        values, frames = _read_slice(path, header, stream, frame)
        spacing, warnings = _spacing(header)
    if values.dtype.fields:
        channels = np.stack([values[name] for name in ("R", "G", "B")], axis=-1)
        pixels, notes = to_grey(Image.fromarray(np.ascontiguousarray(channels), "RGB"))
        warnings += notes
    else:
        pixels = scale_unknown_range(path, values)
    number = None if frames == 1 else frame
    return UltrasoundImage(
        np.ascontiguousarray(pixels, dtype=np.float32), spacing, tuple(warnings), frame=number, frames=frames
    )


def read_nifti_mask(path: str, frame: int | None = None) -> np.ndarray:
    """Read one slice as a mask, bool (H, W): True above half of its maximum.

    Raises:
        InputError: as `read_nifti`.
    """
    with _opened(path) as (header, stream):
        values, _ = _read_slice(path, header, stream, frame)
    if values.dtype.fields:
        values = np.stack([values[name] for name in ("R", "G", "B")]).max(axis=0)
    return mask_of(path, values)


def count_nifti_frames(path: str) -> int:
    """Return the number of slices by the header.

    Raises:
        InputError: as `read_nifti`.
    """
    with _opened(path) as (header, _):
        return _shape(path, header)[2]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[Any, BinaryIO]]:
    """Give the header and the uncompressed content; whatever goes wrong inside becomes one InputError."""
    check_file(path)
    with open_or_refuse(path) as file:
        try:
            import nibabel

            compressed = file.read(2) == GZIP
            file.seek(0)
            stream: Any = gzip.GzipFile(fileobj=file) if compressed else file
            start = stream.read(_HEADER_BYTES)
            if not is_nifti(start):
                raise InputError(path, "holds no NIfTI header", CONVERT)
            if b"ni1\0" in start[344:348] or b"ni2\0" in start[4:8]:
                raise InputError(path, "is one half of a .hdr and .img pair", "save it as one .nii file")
            kind = nibabel.Nifti2Header if start[4:8] == b"n+2\0" else nibabel.Nifti1Header
            # Its check would mend and report; what matters of the header is checked here.
            yield kind.from_fileobj(io.BytesIO(start), check=False), stream
        except InputError:
            raise
        except Exception as error:
            # nibabel, gzip and zlib have errors of their own, and a damaged header leads to any other.
            reason = plain(str(error)) or type(error).__name__
            raise InputError(path, f"is no readable NIfTI file ({reason})", REPLACE) from error


def _shape(path: str, header: Any) -> tuple[int, int, int]:
    """Return rows, columns and slices, all within the limits."""
    shape = [int(length) for length in header.get_data_shape()]
    columns, rows, *others = [*shape, *[1] * (2 - len(shape))]
    frames = int(np.prod(others, dtype=object)) if others else 1
    if min(rows, columns, frames) < 1 or sum(length > 1 for length in others) > 1:
        raise InputError(path, f"has the shape {shape}, not that of an image or a stack of images", CONVERT)
    if rows * columns > MAX_PIXELS:
        reason = f"{rows}×{columns} pixels are more than the limit of {MAX_PIXELS / 1e6:.0f} Mpx"
        raise InputError(path, reason, SCALE_DOWN)
    offset = float(header["vox_offset"])
    if not 348 <= offset <= MAX_NIFTI_BYTES:
        raise InputError(path, f"says that its pixels begin at byte {offset:g}", REPLACE)
    n_bytes = rows * columns * frames * header.get_data_dtype().itemsize + int(offset)
    if frames > MAX_FRAMES or n_bytes > MAX_NIFTI_BYTES:
        reason = f"claims {frames} slices, {n_bytes / 1e6:.0f} MB; the limit is {MAX_NIFTI_BYTES / 1e6:.0f} MB"
        raise InputError(path, reason, "save the wanted slice as a file of its own")
    return rows, columns, frames


def _read_slice(path: str, header: Any, stream: BinaryIO, frame: int | None) -> tuple[np.ndarray, int]:
    """Read one slice (H, W), scaled as the header says, and how many there are."""
    rows, columns, frames = _shape(path, header)
    number = choose_frame(path, frames, frame)
    dtype = header.get_data_dtype()
    if dtype.kind not in "biuf" and not dtype.fields:
        raise InputError(path, f"has values of the type {dtype}", CONVERT)
    wanted = rows * columns * dtype.itemsize
    stream.seek(int(header["vox_offset"]) + number * wanted)
    data = stream.read(wanted)
    if len(data) < wanted:
        raise InputError(path, f"holds {len(data)} bytes of a slice where its header claims {wanted}", REPLACE)
    values = np.frombuffer(data, dtype=dtype).reshape(rows, columns)
    slope, intercept = header.get_slope_inter()
    if dtype.fields or slope is None:
        return values, frames
    # A slope of 1 keeps whole numbers whole: masks and 8-bit images come out as they were put in.
    return (values if (slope, intercept or 0.0) == (1.0, 0.0) else values * slope + (intercept or 0.0)), frames


def _spacing(header: Any) -> tuple[tuple[float, float] | None, list[str]]:
    """The (row, column) spacing in mm, and what is doubtful about it."""
    from nibabel.affines import voxel_sizes

    column, row = (float(size) for size in voxel_sizes(header.get_best_affine())[:2])
    zooms = [float(zoom) for zoom in header.get_zooms()[:2]]
    if np.allclose((column, row), 1.0):
        return None, []  # what every converter writes when it knows no spacing
    if not np.allclose(zooms, (column, row), rtol=0.01):
        return None, ["its affine and its pixdim give two spacings: sizes are in pixels only"]
    unit = header.get_xyzt_units()[0]
    scale = _MM.get(unit, 1.0)
    column, row = column * scale, row * scale
    low, high = _SPACING_RANGE_MM
    if not (low <= row <= high and low <= column <= high):
        return None, [f"pixels of {row:g} × {column:g} mm are not plausible: sizes are in pixels only"]
    doubt = [] if unit in _MM else ["its spacing has no unit and is taken as mm: check the sizes"]
    return (row, column), doubt
