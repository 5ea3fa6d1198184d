# SPDX-License-Identifier: Apache-2.0
"""Which range of grey values a picture uses, where its container is deeper than what was put into it.

A 12-bit picture in a 16-bit PNG would be sixteen times too dark by the depth of the file. The range is therefore the
smallest usual one that holds the values, and a few pixels beyond it (a hot pixel, the overshoot of a spline) do not
count: they are cut, with a warning.
"""

from __future__ import annotations

import cv2
import numpy as np

from bundle.errors import InputError

from .ultrasound import CONVERT

USUAL_BITS = (8, 10, 12, 14, 16)
"""Depths that scanners and converters store."""

HOT_SHARE = 0.001
"""Of the pixels, may lie above a range that is taken for the picture's own."""

OVERSHOOT = 0.15
"""What a spline that resamples leaves beyond black and white, as a part of the range: any number of such pixels."""

FEW_LEVELS = 48
"""Fewer grey levels than this are told: of 2,272 published breast ultrasound images the poorest has 97."""

_LEVEL_SHARE = 1e-4
"""Of the pixels, must have a grey level for it to count: one bright dot is no level of the tissue."""

_DEEPEST = 65535.0


def usual_depth(values: np.ndarray, bits: int) -> int:
    """Return the smallest usual depth, `bits` at most, that holds the values but for hot pixels.

    Args:
        values: integers; negative ones are the lower half of a signed range.
        bits: of the container.
    """
    signed = bool(values.min() < 0)
    highest = np.maximum(values, -1 - values) if signed else values
    for depth in (depth for depth in USUAL_BITS if depth < bits):
        limit = 2 ** (depth - signed) - 1
        if highest.max() <= limit or np.count_nonzero(highest > limit) <= HOT_SHARE * values.size:
            return depth
    return bits


def scale_integers(values: np.ndarray, bits: int) -> tuple[np.ndarray, list[str]]:
    """Map unsigned integers of a container of so many bits to [0, 255], and say where its depth is not used."""
    depth = usual_depth(values, bits)
    grey = np.minimum(values * (255.0 / (2**depth - 1)), 255.0)
    return grey, describe_depth(values, depth, bits)


def describe_depth(values: np.ndarray, depth: int, bits: int) -> list[str]:
    """The warning that goes with a depth that is smaller than the container's."""
    if depth >= bits:
        return []
    beyond = int(np.count_nonzero(values > 2**depth - 1))
    cut = f", and its {beyond} brighter pixels are cut" if beyond else ""
    return [f"its values use {depth} of {bits} bits (up to {int(values.max())}): they are taken as {depth} bits{cut}"]


def scale_unknown_range(path: str, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Map values whose range no header tells to [0, 255], by the smallest usual range that holds them.

    Floating point values up to 1 are fractions of white.

    Raises:
        InputError: they are no grey values of 8 or 16 bits.
    """
    if not np.isfinite(values).all():
        raise _no_grey_values(path, values)
    top = _range_of(values)
    lowest, highest = float(values.min()), float(values.max())
    # A spline leaves fractions, small beside the values; a whole negative number is a code, or values of another kind.
    under = lowest < 0 and (lowest < -OVERSHOOT * highest or bool((values[values < 0] % 1 == 0).any()))
    if top is None or under:
        raise _no_grey_values(path, values)
    notes = (
        [f"its values end at {highest:g}: they are taken as {_bits(top)} bits"] if _bits(top) in (10, 12, 14) else []
    )
    outside = int(np.count_nonzero((values < 0) | (values > top)))
    if outside:
        notes.append(f"{outside} of its values, from {lowest:g} to {highest:g}, leave the range 0 to {top:g}: cut")
    return (values if top == 255 and not outside else np.clip(values, 0, top) * (255.0 / top)), notes


def _range_of(values: np.ndarray) -> float | None:
    """White of the smallest usual range that holds the values; None where none does."""
    highest = float(values.max())
    if highest > _DEEPEST * (1 + OVERSHOOT):
        return None
    if values.dtype.kind == "f" and (highest <= 1 + OVERSHOOT or _are_fractions(values)):
        return 1.0
    for top in (2.0**bits - 1 for bits in USUAL_BITS):
        limit = top * (1 + OVERSHOOT)
        if highest <= limit or np.count_nonzero(values > limit) <= HOT_SHARE * values.size:
            return top
    return None


def _are_fractions(values: np.ndarray) -> bool:
    """Whether all but hot pixels are fractions of 1: many values up to 1, not the 0 and 1 of a dark picture."""
    within = values[values <= 1 + OVERSHOOT]
    if values.size - within.size > HOT_SHARE * values.size:
        return False
    return bool(len(np.unique(within[:: max(1, within.size // 10_000)])) > FEW_LEVELS)


def _bits(top: float) -> int:
    return int(np.log2(top + 1))


def _no_grey_values(path: str, values: np.ndarray) -> InputError:
    reason = f"its values from {values.min():g} to {values.max():g} are no grey values of 8 or 16 bits"
    return InputError(path, reason, CONVERT)


def count_levels(pixels: np.ndarray) -> int:
    """How many of the 256 grey levels the pixels (H, W) in [0, 255] use, rounded."""
    return _count_used(cv2.calcHist([cv2.convertScaleAbs(pixels)], [0], None, [256], [0, 256]), pixels.size)


def _count_used(counts: np.ndarray, pixels: int) -> int:
    return int(np.count_nonzero(counts >= max(1.0, _LEVEL_SHARE * pixels)))


def describe_levels(pixels: np.ndarray, counts: np.ndarray | None = None) -> list[str]:
    """The warning for a picture with few grey levels left, as a conversion to too few bits leaves it.

    Args:
        pixels: (H, W) in [0, 255].
        counts: how many pixels of a part of them have each level: where that has enough, nothing else is looked at.
    """
    if counts is not None and _count_used(counts, pixels.size) >= FEW_LEVELS:
        return []
    levels = count_levels(pixels) if pixels.size else 0
    if levels >= FEW_LEVELS:
        return []
    return [f"only {levels} grey levels are left in it: export it again with all the scanner's grey values"]
