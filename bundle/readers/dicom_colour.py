# SPDX-License-Identifier: Apache-2.0
"""In which colours the samples of a DICOM picture are, where the header and the pixels do not say the same.

Ultrasound is grey in most of its pixels. As RGB, the three samples of a grey pixel are equal; as YBR, the second and
third lie at the middle of their range. What more than half of the pixels say is believed before the header.
"""

from __future__ import annotations

import numpy as np

from bundle.errors import InputError

RGB, YBR = "RGB", "YBR"
_NEARLY = 10
"""Grey levels of 256 by which a lossy JPEG moves a chroma sample of a grey pixel."""

_WHITE = 250
_LEAST = 0.01
"""Of the pixels, must be neither black nor white to tell anything."""


def space_of(values: np.ndarray) -> str | None:
    """Return RGB or YBR by what most pixels (H, W, 3) uint8 are; None where neither holds, as in a tinted picture."""
    is_rgb, is_ybr = (share > 0.5 for share in _shares(values, _NEARLY))
    return None if is_rgb == is_ybr else (RGB if is_rgb else YBR)


def _shares(values: np.ndarray, near: int) -> tuple[float, float]:
    """Shares of the pixels (H, W, 3) uint8 that are grey as RGB, and grey as YBR; black and white ones tell nothing."""
    samples = values.reshape(-1, 3).astype(np.int16)
    highest = samples.max(axis=1)
    telling = (highest > near) & (highest < _WHITE)
    if telling.mean() < _LEAST:
        return 0.0, 0.0
    samples = samples[telling]
    chroma = np.abs(samples[:, 1:] - 128).max(axis=1)
    return float((np.ptp(samples, axis=1) <= near).mean()), float((chroma <= near).mean())


def settle_colours(
    path: str, values: np.ndarray, photometric: str, told: str | None = None, expanded: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Return RGB (H, W, 3) uint8 of samples, and a warning where the header was not followed.

    Args:
        path: for errors.
        values: (H, W, 3) uint8 as they are stored, each pixel with its three samples.
        photometric: by the header.
        told: RGB or YBR where the compressed stream tells.
        expanded: the header says YBR_FULL_422, and three bytes per pixel say that it is wrong.

    Raises:
        InputError: it can not be told which they are.
    """
    claimed = YBR if photometric.startswith("YBR_FULL") else RGB
    seen = space_of(values) or told
    if seen is None and expanded:
        reason = "says YBR_FULL_422 but holds three bytes per pixel, and its pixels may be RGB or YBR_FULL"
        raise InputError(path, reason, "correct its Photometric Interpretation")
    space = seen or claimed
    notes = []
    if space != claimed or expanded:
        actual = "YBR_FULL" if space == YBR else RGB
        notes = [f"its pixels are {actual} although its header says {photometric}: they are read as {actual}"]
    if space == RGB:
        return values, notes
    from .pydicom2 import ybr_to_rgb

    return ybr_to_rgb(values), notes


def settle_planes(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return uncompressed samples (H, W, 3) uint8 by the other Planar Configuration, if only by that they are grey."""
    best = max(_shares(values, 0))
    rows, columns, _ = values.shape
    for turned, least in (
        (np.moveaxis(values.reshape(3, rows, columns), 0, -1), 0.5),  # planes that were taken for pixels
        # The other way round; three neighbours of one plane may be equal too, so there it must be nearly all.
        (np.moveaxis(values, -1, 0).reshape(rows, columns, 3), 0.8),
    ):
        if max(_shares(turned, 0)) > max(least, best + 0.25):
            note = "its Planar Configuration is wrong: its colours are read by the other one"
            return np.ascontiguousarray(turned), [note]
    return values, []
