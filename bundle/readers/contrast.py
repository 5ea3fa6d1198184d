# SPDX-License-Identifier: Apache-2.0
"""Whether there is a picture in an image at all: a network answers a black screen, too, and with confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAMPLE = 65_536
"""Pixels, about, that the grey levels are counted on: evenly spread, all of a small image."""

SMALLEST_SIDE = 16
"""Pixels: a strip or a dot shows no lesion."""

FEWEST_LEVELS = 4
"""Grey levels between the darkest and the brightest hundredth of the pixels: noise of a black screen has fewer."""

BACKGROUND = {1: 0.9, 7: 0.95}
"""Neighbouring grey levels of 256, and the share of all pixels that they may hold: a blank screen with a caption has
more, with the noise of a frame grabber too. The highest of 1,526 breast ultrasound images are 0.45 and 0.53; of 18
files of other organs, 0.81 and 0.943."""

FAINT, LEAST_CORRELATION = 16.0, 0.3
"""Of grey values in [0, 255]: a contrast below which neighbouring pixels must have so much in common. Those of the
images above have 0.82 and more; those of a dark screen's noise have nothing."""


BRIGHTEST_MIDDLE = 0.62
"""Of the range from the darkest to the brightest hundredth of the pixels, their middle may lie at without a warning:
at 0.59 in the brightest of 1,136 breast ultrasound images, and above 0.62 in the negatives of four in five."""


def describe_negative(pixels: np.ndarray) -> list[str]:
    """The warning for a picture (h, w) that is bright in most of its pixels, as no scan is, but the negative of one."""
    dark, middle, bright = percentiles(sample_of(pixels), (1, 50, 99))
    if middle - dark <= BRIGHTEST_MIDDLE * (bright - dark):
        return []
    return ["most of its pixels are bright: check that it is not a negative, with black and white exchanged"]


def why_unusable(pixels: np.ndarray) -> str | None:
    """Say why an image shows nothing that could be looked at; None where it shows something.

    It does not depend on brightness, nor on contrast as long as the grey levels are fine enough to tell.

    Args:
        pixels: (H, W) float in [0, 255], of the tissue region.
    """
    sample = sample_of(pixels)
    dark, bright = percentiles(sample, (1, 99))
    if bright - dark <= 1e-3:  # of 255: less than any file of 16 bits can tell
        return "no contrast: nearly all of its pixels have the same grey level"
    if min(pixels.shape) < SMALLEST_SIDE:
        return f"{pixels.shape[0]}×{pixels.shape[1]} pixels are too few to show a lesion"
    # Hot pixels and captions must not stretch the scale that everything else is looked at with.
    inside = sample.clip(dark, bright)
    # A few pixels tell of most images that they have enough levels; sorting all of them takes long.
    if len(np.unique(inside[::8, ::8])) < FEWEST_LEVELS and (different := len(np.unique(inside))) < FEWEST_LEVELS:
        return f"no contrast: nearly all of its pixels have one of {different} grey levels"
    levels = np.rint((inside - dark) * (255 / (bright - dark))).astype(np.int64)
    shares = np.bincount(levels.ravel(), minlength=256) / sample.size
    for width, most in BACKGROUND.items():
        if (share := np.convolve(shares, np.ones(width)).max()) > most:
            return f"no tissue: {share:.0%} of its pixels have nearly the same grey level"
    if bright - dark < FAINT and _correlation(pixels.clip(dark, bright)) < LEAST_CORRELATION:
        return "no tissue: its faint grey levels are noise"
    return None


def sample_of(pixels: np.ndarray) -> np.ndarray:
    """Return every n-th pixel of every n-th row (H, W): about `SAMPLE` of them, all of a small image."""
    step = max(1, round((pixels.size / SAMPLE) ** 0.5))
    return pixels[::step, ::step]


def percentiles(values: np.ndarray, wanted: Sequence[float]) -> list[float]:
    """Return percentiles as `numpy.percentile` does, in a tenth of the time where all values are bytes.

    Args:
        values: not empty, float.
        wanted: in [0, 100].
    """
    whole = values.astype(np.uint8) if values.min() >= 0 and values.max() <= 255 else None
    if whole is None or not np.array_equal(whole, values):
        return [float(value) for value in np.percentile(values, wanted)]
    upto = np.bincount(whole.ravel(), minlength=256).cumsum()
    places = (whole.size - 1) * np.asarray(wanted, np.float64) / 100
    low, high = (np.searchsorted(upto, place, side="right") for place in (np.floor(places), np.ceil(places)))
    return [float(value) for value in low + (high - low) * (places % 1)]


def _correlation(pixels: np.ndarray) -> float:
    """Between vertical and horizontal neighbours, the higher of the two: interlaced noise has one of them."""
    centred = pixels.astype(np.float64) - pixels.mean(dtype=np.float64)
    products = (centred[:, 1:] * centred[:, :-1]).mean(), (centred[1:] * centred[:-1]).mean()
    return float(max(products) / (centred.var() + 1e-12))
