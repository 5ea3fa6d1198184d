# SPDX-License-Identifier: Apache-2.0
"""Bring a mask to the size of its image, for datasets whose masks were exported at another one."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from bundle.errors import InputError

MAX_STRETCH = 1.25
"""By how much the ratio of height to width may change; beyond it the mask is another image's, or was cropped."""


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
