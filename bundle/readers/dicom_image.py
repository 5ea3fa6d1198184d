# SPDX-License-Identifier: Apache-2.0
"""Ultrasound DICOM as grey images: one frame is decoded, its tissue region found, its spacing taken from the header."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from .depth import FEW_LEVELS, count_levels, describe_depth, usual_depth
from .dicom import CAPTURE_CLASSES, check_geometry, check_is_ultrasound, opened, whole
from .dicom_eight_bits import eight_bits
from .dicom_frame import LOSSLESS_JPEG, LOSSY_JPEG, decode_frame, find_frames
from .dicom_video import count_frames_of, is_video, locate_stream
from .image import describe_flat_end, to_grey
from .lookup_table import read_lookup_table
from .pydicom2 import lookup_tables
from .regions import Calibration, read_calibration
from .ultrasound import UltrasoundImage, choose_frame, plain
from .video import decode_video_frame
from .video_process import Stream

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NO_PICTURE = 8
"""Grey levels of a picture that is none: a window of next to no width, or of another range, leaves so few."""

_MOST_CUT = 0.05
"""Of the pixels, a window may make black or white without a warning."""

_LIT = 25
"""A grey level above that of an empty screen."""


def read_dicom(path: str | os.PathLike[str], frame: int | None = None, upcoming: Sequence[int] = ()) -> UltrasoundImage:
    """Read one frame of an ultrasound DICOM file as grey (H, W), float32 in [0, 255].

    MONOCHROME goes through its modality and VOI transform where the file has one, and is scaled by the depth that its
    values use otherwise; MONOCHROME1 is inverted. Palette, RGB, YBR and video become luma (ITU-R BT.601), as in a PNG.

    Args:
        path: the file.
        frame: of several, from 0.
        upcoming: of a video, frames that will be asked for as well, see `decode_video_frame`.

    Raises:
        InputError: another modality or class, a syntax or kind of pixels that is not read, a size above the limits,
            less data than the header claims, a damaged file, pixels that contradict the header; or several frames and
            none is named.
        NotAnImageError: a report, a segmentation or another object of a study, or a picture of ours.
    """
    name = os.fspath(path)
    with opened(path) as (header, content):
        check_is_ultrasound(path, header)
        rows, columns, _ = check_geometry(path, header)
        calibration = read_calibration(header, rows, columns)
        notes = [*calibration.warnings, *_notes(header)]
        if not is_video(header):
            return _read_stored(name, header, content, calibration, notes, frame)
        stream, doubts = locate_stream(name, header, content)
    # Outside, since what is inside is done for one file at a time, and decoding a video takes long.
    return _read_video(stream, header, calibration, [*notes, *doubts], frame, upcoming)


def _read_stored(
    name: str, header: Dataset, content: BinaryIO, calibration: Calibration, notes: list[str], frame: int | None
) -> UltrasoundImage:
    """Read a frame that is stored by itself."""
    found = find_frames(name, header, content)
    number = choose_frame(name, found.count, frame)
    values, photometric, disputed = decode_frame(name, header, content, found, number)
    box = calibration.region or (0, 0, *values.shape[:2])
    if photometric.startswith("MONOCHROME"):
        grey, doubts = _to_grey_levels(values, header, box)
    else:
        colours, doubts = eight_bits(values, header, photometric)
        grey, coloured = to_grey(colours, box)
        doubts += coloured
    if str(header.file_meta.TransferSyntaxUID) in LOSSY_JPEG | LOSSLESS_JPEG:
        doubts += describe_flat_end(np.rint(grey).astype(np.uint8))
    return _as_image(grey, calibration, (*notes, *found.notes, *disputed, *doubts), number, found.count)


def _read_video(
    stream: Stream,
    header: Dataset,
    calibration: Calibration,
    notes: list[str],
    frame: int | None,
    upcoming: Sequence[int],
) -> UltrasoundImage:
    """Read a frame of a video."""
    counted, doubts = count_frames_of(stream, header)
    number = choose_frame(stream.path, counted.frames, frame)
    colours = Image.fromarray(decode_video_frame(stream, number, upcoming))
    grey, coloured = to_grey(colours, calibration.region)
    return _as_image(grey, calibration, (*notes, *doubts, *coloured), number, counted.frames)


def _as_image(
    grey: np.ndarray, calibration: Calibration, notes: Sequence[str], number: int, frames: int
) -> UltrasoundImage:
    box = calibration.region or (0, 0, *grey.shape)
    return UltrasoundImage(
        np.ascontiguousarray(grey, dtype=np.float32),
        calibration.spacing_mm,
        tuple(plain(note) for note in (*notes, *_describe_outside(grey, box))),
        calibration.region,
        None if frames == 1 else number,
        frames,
    )


def count_dicom_frames(path: str | os.PathLike[str]) -> int:
    """Return the number of whole frames, without decoding one; of a video by decoding it.

    Raises:
        InputError: as `read_dicom`, as far as it is known without decoding.
    """
    with opened(path) as (header, content):
        check_is_ultrasound(path, header)
        check_geometry(path, header)
        if not is_video(header):
            return find_frames(os.fspath(path), header, content).count
        stream, _ = locate_stream(os.fspath(path), header, content)
    return count_frames_of(stream, header)[0].frames


def _notes(header: Dataset) -> list[str]:
    """What the header says that a reader of the result should know."""
    notes = []
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        notes.append("the header says that text is burned in: pictures of this image may name the patient")
    if str(header.get("SOPClassUID", "")) in CAPTURE_CLASSES:
        notes.append("is a secondary capture, a picture of a screen rather than of a scanner")
    if any(0x6000 <= tag.group < 0x6100 for tag in header.keys()):  # noqa: SIM118, a Dataset iterates over elements
        notes.append("its overlay planes are not drawn; images with marks are outside the intended use")
    aspect = np.atleast_1d(header.get("PixelAspectRatio") or [1, 1])
    if len(aspect) == 2 and abs(float(aspect[0]) - float(aspect[1])) > 0.02 * abs(float(aspect[1])):
        notes.append(f"its pixels are oblong (Pixel Aspect Ratio {aspect[0]} to {aspect[1]}): it is taken as if square")
    return notes


def _describe_outside(grey: np.ndarray, box: tuple[int, int, int, int]) -> list[str]:
    """The warning for a region that leaves out most of the picture, as one does that was not scaled with its frame."""
    top, left, bottom, right = box
    lit = grey > _LIT
    inside, all_of_it = int(lit[top:bottom, left:right].sum()), int(lit.sum())
    if 2 * inside >= all_of_it:
        return []
    share = f"{1 - inside / all_of_it:.0%}"
    return [f"{share} of what is lit lies outside its tissue region: the region may be another picture's, check it"]


def _to_grey_levels(
    values: np.ndarray, header: Dataset, box: tuple[int, int, int, int]
) -> tuple[np.ndarray, list[str]]:
    """Grey values in [0, 255] of MONOCHROME pixels (H, W), and what is doubtful about them."""
    plain_grey, notes = _scale(values, header)
    has_window = header.get("WindowWidth") is not None and header.get("WindowCenter") is not None
    if header.get("VOILUTSequence") or has_window:
        grey = _window(values, header)
        if grey is not None and not _loses_the_picture(grey, plain_grey, box):
            plain_grey, notes = grey, _describe_cut(grey, plain_grey, header, box)
        else:
            notes.append(f"its {_name_window(header)} leaves no picture: the stored values are taken")
    return (255 - plain_grey if header.PhotometricInterpretation == "MONOCHROME1" else plain_grey), notes


def _scale(values: np.ndarray, header: Dataset) -> tuple[np.ndarray, list[str]]:
    """Map the range of the depth that the values use, through the modality transform, to [0, 255]."""
    bits = whole(header.BitsStored, 8)
    depth = usual_depth(values, bits)
    signed = bool(values.min() < 0)
    limits = np.array([-(2 ** (depth - 1)), 2 ** (depth - 1) - 1] if signed else [0, 2**depth - 1])
    low, high = _ends(limits.astype(values.dtype), header)
    return _to_255(_to_modality(values, header), low, high), describe_depth(values, depth, bits)


def _window(values: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Grey values in [0, 255] by the first window or VOI table; None where a window has no width."""
    mapped = _to_modality(values, header)
    if (table := read_lookup_table(header, "VOILUTSequence")) is not None:
        return _to_255(table.apply(mapped), 0.0, 2.0**table.bits - 1)
    if not float(np.atleast_1d(header.WindowWidth)[0]) > 1:
        return None
    bits, signed = whole(header.BitsStored, 8), whole(header.get("PixelRepresentation"), 0) == 1
    limits = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = _ends(limits.astype(values.dtype), header)  # what pydicom gives black and white
    return _to_255(lookup_tables().apply_voi_lut(mapped, header), low, high)


def _to_modality(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Stored values by the modality transform, a table or a line, as float64."""
    if (table := read_lookup_table(header, "ModalityLUTSequence")) is not None:
        return table.apply(values)
    return np.asarray(lookup_tables().apply_modality_lut(values, header), dtype=np.float64)


def _name_window(header: Dataset) -> str:
    if header.get("VOILUTSequence"):
        return "VOI table"
    centre, width = (np.atleast_1d(header.get(key)).ravel()[0] for key in ("WindowCenter", "WindowWidth"))
    return f"window (centre {centre:g}, width {width:g})"


def _ends(limits: np.ndarray, header: Dataset) -> tuple[float, float]:
    ends = _to_modality(limits, header)
    return float(ends.min()), float(ends.max())


def _to_255(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((np.asarray(values, dtype=np.float64) - low) / max(high - low, 1e-9), 0, 1) * 255


def _loses_the_picture(grey: np.ndarray, plain_grey: np.ndarray, box: tuple[int, int, int, int]) -> bool:
    """Whether next to no grey levels are left of the many that were stored: a threshold, or all of it black."""
    top, left, bottom, right = box
    counts = [count_levels(pixels[top:bottom, left:right]) for pixels in (grey, plain_grey)]
    return counts[0] <= _NO_PICTURE and counts[1] >= FEW_LEVELS


def _describe_cut(
    grey: np.ndarray, plain_grey: np.ndarray, header: Dataset, box: tuple[int, int, int, int]
) -> list[str]:
    """The warning for a window, which is a way to look at a picture, that makes much of it black or white."""
    top, left, bottom, right = box
    shown, stored = (pixels[top:bottom, left:right] for pixels in (grey, plain_grey))
    is_cut = ((shown <= 0) & (stored > stored.min())) | ((shown >= 255) & (stored < stored.max()))
    if (share := float(is_cut.mean())) <= _MOST_CUT:
        return []
    return [f"its {_name_window(header)} makes {share:.0%} of the pixels black or white: check it"]
