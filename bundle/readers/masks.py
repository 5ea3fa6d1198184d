# SPDX-License-Identifier: Apache-2.0
"""What of a mask file is lesion: label maps, masks of one value, soft masks; and masks of another size than the image.

A label map and a soft mask are told apart, since half of the highest value would lose labels in silence.
"""

from __future__ import annotations

import os
import warnings

import cv2
import numpy as np
from PIL import Image

from bundle.errors import InputError

from .ultrasound import CONVERT

MAX_STRETCH = 1.25
"""By how much the ratio of height to width may change; beyond it the mask is another image's, or was cropped."""

MAX_LABEL = 15
"""The highest label of a label map, 255 aside: 16 values with the background."""

EMPTY_JPEG_MASK = 64
"""A JPEG mask that stays below this is black with compression noise: nothing in it is a lesion."""

MOST_LESIONS = 16
"""Parts above half of the maximum that a soft mask may have: 1,181 real masks have up to 3, and 1,100 ultrasound
images, which may be given for a mask by mistake, 24 and more."""

MOST_OF_PICTURE = 0.75
"""Of the picture, may be lesion without a warning: real masks have up to 0.58."""

_FLAT = 0.3
"""Of the middle values, may continue in a soft mask: in 233 real masks that went through JPEG it is 0.15 at most."""

_MIDDLE = (0.2, 0.8)
"""Of the maximum: between these lie ramps and labels, but neither the ringing of a JPEG nor what a sigmoid leaves."""

_MEND = f"give the lesion one value and the rest 0, or labels from 1 to {MAX_LABEL}"


class MaskWarning(UserWarning):
    """A mask that is read, and may not mean what it was read as."""


def lesion_of(path: str, values: np.ndarray, is_jpeg: bool = False) -> np.ndarray:
    """Return the lesion, (H, W) bool, of a mask's values (H, W).

    One value besides 0: it is the lesion. Whole numbers up to `MAX_LABEL`: every label is lesion, and so is 255 beside
    them, with a `MaskWarning`. Other masks are soft if their middle values are ramps rather than areas: lesion is above
    half of the maximum. JPEG masks are soft, and empty below `EMPTY_JPEG_MASK`.

    Raises:
        InputError: a value is negative or not finite, or the values are neither labels nor soft: several without a 0
            among them, areas of other values, or a picture.
    """
    if not np.isfinite(values).all():
        raise InputError(path, "the mask has values that are not finite", CONVERT)
    if values.dtype.kind == "f" and np.allclose(values, np.rint(values), rtol=0, atol=1e-3):
        values = np.rint(values)  # labels that were scaled and scaled back
    lesion = _labels_of(path, values) if not is_jpeg else None
    if lesion is None:
        lesion = _soft_lesion(path, values, is_jpeg)
    at_corners = all(lesion[row, column] for row in (0, -1) for column in (0, -1))
    if at_corners or lesion.mean() > MOST_OF_PICTURE:
        covers = "all four corners" if at_corners else f"{lesion.mean():.0%}"
        reason = f"the mask covers {covers} of the picture, which no lesion does: is it inverted?"
        warnings.warn(f"{path}: {reason}", MaskWarning, stacklevel=3)
    return lesion


def _labels_of(path: str, values: np.ndarray) -> np.ndarray | None:
    """The lesion of one value or of labels; None where the values are others."""
    levels = _different(values)
    if levels[0] < 0:
        raise InputError(path, f"the mask holds {_listed(levels)}: negative values", _MEND)
    lesion = levels[levels != 0]
    if len(lesion) < 2:
        return np.asarray(values != 0)
    labels = lesion[lesion != 255]
    if labels.max() > MAX_LABEL or (levels % 1 != 0).any():
        return None
    if levels[0] > 0:
        reason = f"the mask holds {_listed(levels)} and no 0: which of them is the background is not known"
        raise InputError(path, reason, "give the background the value 0")
    if len(labels) < len(lesion):
        reason = f"the mask holds 255 beside {_listed(labels)}: all are taken as lesion; check what 255 means"
        warnings.warn(f"{path}: {reason}", MaskWarning, stacklevel=4)
    return np.asarray(values != 0)


def _different(values: np.ndarray) -> np.ndarray:
    """The different values, from the lowest to the highest."""
    if values.dtype != np.uint8:
        return np.unique(values)
    return np.flatnonzero(cv2.calcHist([values], [0], None, [256], [0, 256])).astype(np.uint8)


def _soft_lesion(path: str, values: np.ndarray, is_jpeg: bool) -> np.ndarray:
    """What lies above half of the maximum.

    Raises:
        InputError: there are areas of middle values, or as many parts as in a picture.
    """
    highest = float(values.max())
    if is_jpeg and highest < EMPTY_JPEG_MASK:
        return np.zeros(values.shape, dtype=bool)
    levels = _different(values)
    low, high = (share * highest for share in _MIDDLE)
    if not is_jpeg and (levels % 1 == 0).all():
        low, high = 0, highest
    if _has_areas((values > low) & (values < high), values):
        reason = f"the mask holds {_listed(levels)}: neither the labels of a label map nor one lesion value"
        raise InputError(path, reason, _MEND)
    lesion = np.asarray(values > highest / 2)
    if (parts := cv2.connectedComponents(lesion.view(np.uint8), connectivity=4)[0] - 1) > MOST_LESIONS:
        reason = f"falls into {parts} parts above half of its maximum: it is a picture and no mask"
        raise InputError(path, reason, "give the mask itself")
    return lesion


def lesion_of_colours(path: str, colours: np.ndarray, is_jpeg: bool = False) -> np.ndarray:
    """Return the lesion, (H, W) bool, of a coloured mask (H, W, 3) uint8: every colour but black is lesion.

    Grey is read as `lesion_of` reads it; so is the brightest channel of more colours than a label map has.

    Raises:
        InputError: as `lesion_of`; or several colours stand on a background that is not black.
    """
    brightest = colours.max(axis=2)  # the luma of blue is too low to stand beside red in one mask
    if is_jpeg or not (colours != brightest[..., None]).any():
        return lesion_of(path, brightest, is_jpeg)
    codes = np.unique(colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32))
    if len(codes) > MAX_LABEL + 1:
        return lesion_of(path, brightest)
    if codes[0] != 0 and len(codes) > 1:
        named = ", ".join(f"#{code:06x}" for code in codes)
        reason = f"the mask has the colours {named} and none is black: which one is the background is not known"
        raise InputError(path, reason, "make the background black")
    return brightest > 0


def fit_mask(path: str | os.PathLike[str], mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a mask: a pixel of the result is lesion where at least half of what it covers is.

    Args:
        path: of the mask, for the message.
        mask: (H, W) bool; returned as it is where it has the shape.
        shape: (H, W) wanted.

    Raises:
        InputError: the shapes are too unlike.
    """
    if mask.shape == tuple(shape):
        return mask
    stretch = mask.shape[0] * shape[1] / (mask.shape[1] * shape[0])
    if not 1 / MAX_STRETCH <= stretch <= MAX_STRETCH:
        reason = f"the mask is {mask.shape[0]}×{mask.shape[1]}, its image {shape[0]}×{shape[1]} pixels (height×width)"
        raise InputError(path, f"{reason}: another shape, not only another size", "export the mask at the image's size")
    # Pillow's bilinear filter covers the area of a pixel when it shrinks, and half is its level on an edge.
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(grey) >= 128


def _has_areas(middle: np.ndarray, values: np.ndarray) -> bool:
    """Whether middle values continue to the right and below: areas of a label, not a soft edge."""
    inner = middle[:-1, :-1]
    flat = (values[:-1, :-1] == values[:-1, 1:]) & (values[:-1, :-1] == values[1:, :-1])
    return bool(inner.any() and flat[inner].mean() > _FLAT)


def _listed(levels: np.ndarray) -> str:
    shown = [f"{level:g}" for level in levels[:12]]
    return f"the value{'s' if len(levels) > 1 else ''} {', '.join(shown)}{', …' if len(levels) > 12 else ''}"
