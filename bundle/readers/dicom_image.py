# SPDX-License-Identifier: Apache-2.0
"""Ultrasound DICOM as grey images: one frame is decoded, its tissue region found, its spacing taken from the header."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .calibration import read_calibration
from .dicom import CAPTURE_CLASSES, check_geometry, check_is_ultrasound, opened, whole
from .dicom_frame import check_is_read, decode_frame
from .image import to_grey
from .pydicom2 import encoding_of, lookup_tables
from .ultrasound import UltrasoundImage, choose_frame, plain

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DARK = 16
"""Deep pixels whose largest value leaves this part of their range unused were stored with too many bits."""


def read_dicom(path: str | os.PathLike[str], frame: int | None = None) -> UltrasoundImage:
    """Read one frame of an ultrasound DICOM file as grey (H, W), float32 in [0, 255].

    MONOCHROME goes through its modality and VOI transform where the file has one, and is scaled by its stored bits
    otherwise; MONOCHROME1 is inverted. Palette, RGB and YBR become luma (ITU-R BT.601), as in a PNG.

    Args:
        path: the file.
        frame: of several, from 0.

    Raises:
        InputError: another modality or class, a syntax or kind of pixels that is not read, a size above the limits,
            less data than the header claims, a damaged file; or several frames and none is named.
    """
    name = os.fspath(path)
    with opened(path) as (header, content):
        check_is_ultrasound(path, header)
        rows, columns, frames = check_geometry(path, header)
        number = choose_frame(name, frames, frame)
        values, photometric = decode_frame(name, header, content, number)
        calibration = read_calibration(header, rows, columns)
        notes = [*calibration.warnings, *_notes(header)]
        if photometric.startswith("MONOCHROME"):
            grey, doubts = _window(values, header), _doubts(values, header)
        else:
            box = calibration.region or (0, 0, rows, columns)
            grey, doubts = to_grey(_eight_bits(values, header, photometric), box)
    return UltrasoundImage(
        np.ascontiguousarray(grey, dtype=np.float32),
        calibration.spacing_mm,
        tuple(plain(note) for note in (*notes, *doubts)),
        calibration.region,
        None if frames == 1 else number,
        frames,
    )


def count_dicom_frames(path: str | os.PathLike[str]) -> int:
    """Return the number of frames that the checked header claims.

    Raises:
        InputError: as `read_dicom`, as far as the header tells.
    """
    with opened(path) as (header, _):
        check_is_ultrasound(path, header)
        frames = check_geometry(path, header)[2]
        check_is_read(os.fspath(path), header)
        return frames


def _notes(header: Dataset) -> list[str]:
    """What the header says that a reader of the result should know."""
    notes = []
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        notes.append("the header says that text is burned in: pictures of this image may name the patient")
    if str(header.get("SOPClassUID", "")) in CAPTURE_CLASSES:
        notes.append("is a secondary capture, a picture of a screen rather than of a scanner")
    if any(0x6000 <= tag.group < 0x6100 for tag in header.keys()):  # noqa: SIM118, a Dataset iterates over elements
        notes.append("its overlay planes are not drawn; images with marks are outside the intended use")
    return notes


def _window(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Grey values in [0, 255] of MONOCHROME pixels (H, W)."""
    tables = lookup_tables()
    mapped = np.asarray(tables.apply_modality_lut(values, header), dtype=np.float64)
    bits, signed = whole(header.BitsStored, 8), whole(header.get("PixelRepresentation"), 0) == 1
    limits = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = sorted(np.asarray(tables.apply_modality_lut(limits.astype(values.dtype), header), dtype=np.float64))
    if header.get("VOILUTSequence") or header.get("WindowWidth") is not None:
        source = mapped if not header.get("VOILUTSequence") else np.rint(mapped).astype(np.int64)
        mapped = np.asarray(tables.apply_voi_lut(source, header), dtype=np.float64)
        if header.get("VOILUTSequence"):
            low, high = 0.0, 2.0 ** whole(header.VOILUTSequence[0].LUTDescriptor[2], 8) - 1
    grey = np.clip((mapped - low) / max(high - low, 1e-9), 0, 1) * 255
    return 255 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey


def _doubts(values: np.ndarray, header: Dataset) -> list[str]:
    bits = whole(header.BitsStored, 8)
    has_window = header.get("VOILUTSequence") or header.get("WindowWidth") is not None
    if bits > 8 and not has_window and int(values.max()) < 2**bits // _DARK:
        return [f"its values end at {int(values.max())} of {2**bits - 1} and no window is given: the image is dark"]
    return []


def _eight_bits(values: np.ndarray, header: Dataset, photometric: str) -> Image.Image:
    """RGB of 8 bits of palette (H, W) or RGB (H, W, 3) pixels."""
    depth = whole(header.BitsStored, 8)
    if photometric == "PALETTE COLOR":
        _swap_big_endian_palette(header)
        values = lookup_tables().apply_color_lut(values, header)[..., :3]
        # Some scanners call entries 16 bits deep that hold 8.
        depth = 8 if values.max() < 256 else whole(header.RedPaletteColorLookupTableDescriptor[2], 16)
    if depth > 8:
        values = values >> (depth - 8)
    return Image.fromarray(np.ascontiguousarray(values, dtype=np.uint8), "RGB")


def _swap_big_endian_palette(header: Dataset) -> None:
    """Put the words of a big-endian palette in order: pydicom takes them as they lie in the file."""
    for colour in ("Red", "Green", "Blue"):
        key = f"{colour}PaletteColorLookupTableData"
        if not encoding_of(header)[1] and key in header:
            header[key].value = np.frombuffer(header[key].value, dtype=">u2").astype("<u2").tobytes()
