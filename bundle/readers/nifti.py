# SPDX-License-Identifier: Apache-2.0
"""Read 2-D images and masks, or one slice of a stack, from NIfTI files, `.nii` and `.nii.gz`.

The convention: the first axis of the file counts columns from left to right, the second rows from top to bottom, as
ITK, SimpleITK and MONAI store a picture. A frame of hand-held ultrasound has no orientation in the patient, so the
signs and the rotation of the affine are not used; its voxel sizes are. What is known of other writers, such as
dcm2niix, stands in `nifti_layout`.
"""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from bundle.errors import InputError

from .depth import scale_unknown_range
from .dicom import open_or_refuse
from .image import to_grey
from .masks import lesion_of, lesion_of_colours
from .nifti_layout import Layout, layout_of, stored_upside_down
from .ultrasound import CONVERT, REPLACE, UltrasoundImage, check_file, choose_frame, plain

GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540
_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
_SPACING_RANGE_MM = (0.001, 5.0)

_ALIKE, _UNLIKE = 0.9, 0.5
"""Shares of the lit pixels that agree in all planes: above the first they are colours, below the second frames."""


def is_nifti(start: bytes) -> bool:
    """Whether a file's first bytes, inflated if need be, are a NIfTI header."""
    return start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0")


def read_nifti(path: str, frame: int | None = None) -> UltrasoundImage:
    """Read one slice as grey (H, W), float32 in [0, 255].

    Colour becomes luma: NIfTI's RGB24 and RGBA32, a vector of 3 or 4 values per pixel, or colours as the last axis.

    Args:
        path: the file.
        frame: the slice, from 0, where there are several.

    Raises:
        InputError: no readable NIfTI file, more than two axes and slices, a size above the limits, values without a
            known range; or several slices and none is named.
    """
    with opened_nifti(path) as (header, stream):
        layout = _settled(path, header, stream)
        number = choose_frame(path, layout.frames, frame)
        values = _read_slice(path, header, stream, layout, number)
        spacing, warnings = _spacing(header, layout)
    if values.ndim == 3:
        if values.dtype != np.uint8:
            values, notes = scale_unknown_range(path, values)
            warnings += notes
        pixels, notes = to_grey(Image.fromarray(np.ascontiguousarray(np.rint(values), dtype=np.uint8), "RGB"))
    else:
        pixels, notes = scale_unknown_range(path, values)
    return UltrasoundImage(
        np.ascontiguousarray(pixels, dtype=np.float32),
        spacing,
        (*layout.notes, *warnings, *notes),
        frame=None if layout.frames == 1 else number,
        frames=layout.frames,
    )


def read_nifti_mask(path: str, frame: int | None = None, image: str | None = None) -> np.ndarray:
    """Read one slice as a mask, bool (H, W); what of its values is lesion: see `masks.lesion_of`.

    Args:
        path: the file.
        frame: the slice, from 0, where there are several.
        image: NIfTI file that the mask was drawn on: the mask is turned as the image is, whatever its own header says.

    Raises:
        InputError: as `read_nifti`; or its values are no mask's.
    """
    turned = image is not None and is_upside_down(image)
    with opened_nifti(path) as (header, stream):
        layout = _settled(path, header, stream, alike=1.0, unlike=1.0)
        number = choose_frame(path, layout.frames, frame)
        values = _read_slice(path, header, stream, layout, number)
    if turned and not layout.upside_down:
        values = values[::-1]
    return lesion_of(path, values) if values.ndim == 2 else lesion_of_colours(path, values)


def is_upside_down(path: str) -> bool:
    """Whether a NIfTI file holds its rows from the bottom up, as dcm2niix writes ultrasound.

    Raises:
        InputError: as `read_nifti`.
    """
    with opened_nifti(path) as (header, _):
        return stored_upside_down(header)


def count_nifti_frames(path: str) -> int:
    """Return the number of slices by the header; three or four are looked at, since they may be colours.

    Raises:
        InputError: as `read_nifti`.
    """
    with opened_nifti(path) as (header, stream):
        return _settled(path, header, stream).frames


@contextlib.contextmanager
def opened_nifti(path: str) -> Iterator[tuple[Any, BinaryIO]]:
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


def _settled(path: str, header: Any, stream: BinaryIO, alike: float = _ALIKE, unlike: float = _UNLIKE) -> Layout:
    """The layout, once it is known whether three or four planes are frames or the colours of one picture.

    Colours of a picture of grey tissue agree in nearly all pixels; the frames of a cine differ in their speckle. Masks
    of several slices may agree in much, so there only equal planes are colours.

    Raises:
        InputError: they are neither.
    """
    layout = layout_of(path, header)
    if not layout.may_be_colours:
        return layout
    first = [_read_slice(path, header, stream, layout, number) for number in range(layout.frames)]
    lit = np.maximum(np.maximum(first[0], first[1]), first[2]) > 0
    same = (first[0] == first[1]) & (first[1] == first[2])
    share = float(same[lit].mean()) if lit.any() else 1.0
    is_opacity = all(np.ptp(fourth) == 0 for fourth in first[3:])
    if share >= alike and is_opacity:
        return layout.with_colours()
    if share > unlike:
        reason = f"in its {layout.frames} slices {share:.0%} of the pixels agree: it is not told if they are colours"
        raise InputError(path, reason, "save it as RGB (a vector of 3), or its frames as files of their own")
    return replace(
        layout, notes=(*layout.notes, f"its axis of length {layout.frames} is taken for frames, not colours")
    )


def _read_slice(path: str, header: Any, stream: BinaryIO, layout: Layout, frame: int) -> np.ndarray:
    """Read one slice, (H, W) or RGB (H, W, 3), upright, scaled as the header says."""
    dtype = header.get_data_dtype()
    planes = [_read_plane(path, header, stream, layout, plane) for plane in layout.planes_of(frame)]
    if dtype.fields:
        planes = [planes[0][name] for name in ("R", "G", "B")]
    values = planes[0] if len(planes) == 1 else np.stack(planes[:3], axis=-1)
    slope, intercept = header.get_slope_inter()
    # A slope of 1 keeps whole numbers whole: masks and 8-bit images come out as they were put in.
    if not dtype.fields and slope is not None and (slope, intercept or 0.0) != (1.0, 0.0):
        values = values * slope + (intercept or 0.0)
    return values[::-1] if layout.upside_down else values


def _read_plane(path: str, header: Any, stream: BinaryIO, layout: Layout, plane: int) -> np.ndarray:
    dtype = header.get_data_dtype()
    wanted = layout.rows * layout.columns * dtype.itemsize
    stream.seek(int(header["vox_offset"]) + plane * wanted)
    data = stream.read(wanted)
    if len(data) < wanted:
        raise InputError(path, f"holds {len(data)} bytes of a slice where its header claims {wanted}", REPLACE)
    return np.frombuffer(data, dtype=dtype).reshape(layout.rows, layout.columns)


def _spacing(header: Any, layout: Layout) -> tuple[tuple[float, float] | None, list[str]]:
    """The (row, column) spacing in mm, and what is doubtful about it."""
    from nibabel.affines import voxel_sizes

    axes = list(layout.axes)
    column, row = (float(size) for size in voxel_sizes(header.get_best_affine())[axes])
    zooms = [float(zoom) for zoom in np.asarray(header["pixdim"])[1:4][axes]]
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
