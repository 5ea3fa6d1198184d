# SPDX-License-Identifier: Apache-2.0
"""Samples of a DICOM picture that contradict the header: in their bits, their sign, and their rows and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bundle.errors import InputError

from .depth import FEW_LEVELS
from .dicom import whole
from .dicom_bytes import row_likeness

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_OVERLAY_BIT_POSITION = 0x0102

_FEWER_JUMPS = 0.95
"""As signed, an unsigned picture has 1.03 times the jumps and more; the other way round, 0.97 and less."""

_MOST_AT_ENDS = 0.02
"""Of the pixels, may be 0 or the highest number in a picture that may be signed."""

_EXCHANGED = 0.05
"""By how much rows must be more alike with the sides exchanged."""


def check_bits(path: str, header: Dataset, values: np.ndarray) -> np.ndarray:
    """Refuse values of more bits than the header says; old overlays in the bits above are taken off."""
    stored = whole(header.BitsStored, 8)
    if stored >= 8 * values.itemsize or whole(header.get("PixelRepresentation"), 0) == 1:
        return values
    tags = [tag for tag in header.keys() if 0x6000 <= tag.group < 0x6100]  # noqa: SIM118, it iterates over elements
    if any(tag.element == _OVERLAY_BIT_POSITION and header[tag].value for tag in tags):
        return values & (2**stored - 1)
    if int(values.max()) >= 2**stored:
        reason = f"its values up to {int(values.max())} need more bits than the {stored} that its header says"
        raise InputError(path, reason, "correct its Bits Stored")
    return values


def without_padding(header: Dataset, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return grey values with black where there is padding of a value beyond all others, and say so."""
    padding = header.get("PixelPaddingValue")
    if not isinstance(padding, int) or not header.PhotometricInterpretation.startswith("MONOCHROME"):
        return values, []
    is_picture = values != padding
    if is_picture.all() or not is_picture.any():
        return values, []
    low, high = int(values[is_picture].min()), int(values[is_picture].max())
    if low - 1 <= padding <= high + 1:
        return values, []
    black = high if header.PhotometricInterpretation == "MONOCHROME1" else low
    return np.where(is_picture, values, values.dtype.type(black)), [f"its padding of {padding} is taken as black"]


def settle_sign(header: Dataset, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return values that are unsigned although the header says signed as they are, and say so.

    Read with the wrong sign, the upper half of the greys lies below the lower, and a picture is full of jumps: of 300
    published images the wrong one has always more, 1.03 times at least.
    """
    bits, says_signed = whole(header.BitsStored, 8), bool(values.min() < 0)
    if not says_signed and not _may_be_signed(header, values, bits):
        return values, []
    turn = values < 0 if says_signed else values >= 2 ** (bits - 1)
    other = values.astype(np.int32) + np.where(turn, 2**bits if says_signed else -(2**bits), 0)
    jumps = [float(np.abs(np.diff(view.astype(np.int32), axis=1)).sum()) for view in (values, other)]
    if jumps[1] >= jumps[0] * (1 if says_signed else _FEWER_JUMPS):
        return values, []
    header.PixelRepresentation = int(not says_signed)  # what is done with it later goes by the header
    kind = f"{'u' if says_signed else 'i'}{values.itemsize}"
    signs = ("unsigned", "signed") if says_signed else ("signed", "unsigned")
    note = f"its pixels are {signs[0]} although its header says {signs[1]}: they are read as {signs[0]}"
    return other.astype(kind), [note]


def _may_be_signed(header: Dataset, values: np.ndarray, bits: int) -> bool:
    """Whether unsigned values may be signed ones: many greys, in the upper half too, and few pixels at either end.

    As signed ones, both ends are middle greys. Black and white letters have as few jumps either way.
    """
    if not header.PhotometricInterpretation.startswith("MONOCHROME") or values.max() < 2 ** (bits - 1):
        return False
    counts = np.bincount(values.ravel(), minlength=2**bits)
    at_ends = max(counts[0], counts[-1])
    return bool(at_ends <= _MOST_AT_ENDS * values.size and np.count_nonzero(counts) >= FEW_LEVELS)


def check_sides(path: str, values: np.ndarray) -> None:
    """Refuse uncompressed pixels (H, W, …) whose rows are alike only if rows and columns are exchanged.

    Of 1,136 published images each one's rows are more alike, by 0.02 of correlation at least, than with its sides
    exchanged.
    """
    rows, columns = values.shape[:2]
    samples = values.reshape(rows * columns, -1)[:, 0].astype(np.float32)
    if rows != columns and row_likeness(samples, rows) > row_likeness(samples, columns) + _EXCHANGED:
        reason = f"its pixels are not {rows} rows of {columns} but, as they are alike, {columns} rows of {rows}"
        raise InputError(path, reason, "correct its Rows and Columns")
