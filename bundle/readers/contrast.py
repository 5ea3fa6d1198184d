# SPDX-License-Identifier: Apache-2.0
"""Whether there is a picture in an image at all: a network answers a black screen, too, and with confidence."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
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


@dataclass(frozen=True, eq=False)
class GreyLevels:
    """The grey levels of an image, counted once for all that asks for them.

    Args:
        sample: (h, w) float, see `sample_of`.
        counts: (256,) how many pixels of the sample have each level; None where they are no whole numbers of a byte.
        dark, middle, bright: percentiles 1, 50 and 99 of the sample.
    """

    sample: np.ndarray
    counts: np.ndarray | None
    dark: float
    middle: float
    bright: float


def count_grey(pixels: np.ndarray) -> GreyLevels:
    """Count the grey levels of an image.

    Args:
        pixels: (H, W) float, not empty, in any unit.
    """
    sample = np.ascontiguousarray(sample_of(pixels))
    counts, wanted = _count_bytes(sample), (1, 50, 99)
    if counts is None:
        return GreyLevels(sample, None, *(float(value) for value in np.percentile(sample, wanted)))
    # What `numpy.percentile` gives, in a tenth of the time.
    upto = counts.cumsum()
    places = (sample.size - 1) * np.asarray(wanted, np.float64) / 100
    low, high = (np.searchsorted(upto, place, side="right") for place in (np.floor(places), np.ceil(places)))
    return GreyLevels(sample, counts, *(float(value) for value in low + (high - low) * (places % 1)))


def describe_negative(levels: GreyLevels) -> list[str]:
    """The warning for a picture that is bright in most of its pixels, as no scan is, but the negative of one."""
    if levels.middle - levels.dark <= BRIGHTEST_MIDDLE * (levels.bright - levels.dark):
        return []
    return ["most of its pixels are bright: check that it is not a negative, with black and white exchanged"]


def why_unusable(pixels: np.ndarray, levels: GreyLevels | None = None) -> str | None:
    """Say why an image shows nothing that could be looked at; None where it shows something.

    It does not depend on brightness, nor on contrast as long as the grey levels are fine enough to tell.

    Args:
        pixels: (H, W) float in [0, 255], of the tissue region.
        levels: of them, where they are counted already.
    """
    levels = levels or count_grey(pixels)
    dark, bright = levels.dark, levels.bright
    if bright - dark <= 1e-3:  # of 255: less than any file of 16 bits can tell
        return "no contrast: nearly all of its pixels have the same grey level"
    if min(pixels.shape) < SMALLEST_SIDE:
        return f"{pixels.shape[0]}×{pixels.shape[1]} pixels are too few to show a lesion"
    # Hot pixels and captions must not stretch the scale that everything else is looked at with.
    values, counts = _count_values(levels)
    if len(values) < FEWEST_LEVELS:
        return f"no contrast: nearly all of its pixels have one of {len(values)} grey levels"
    scaled = np.rint((values - dark) * (255 / (bright - dark))).astype(np.int64)
    shares = np.bincount(scaled, weights=counts, minlength=256) / levels.sample.size
    for width, most in BACKGROUND.items():
        if (share := np.convolve(shares, np.ones(width)).max()) > most:
            return f"no tissue: {share:.0%} of its pixels have nearly the same grey level"
    if bright - dark < FAINT and _correlation(pixels.clip(dark, bright)) < LEAST_CORRELATION:
        return "no tissue: its faint grey levels are noise"
    return None


def _count_values(levels: GreyLevels) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a sample, cut at its 1st and 99th percentile, and how many pixels have each."""
    if levels.counts is None:
        return np.unique(levels.sample.clip(levels.dark, levels.bright), return_counts=True)
    values = np.flatnonzero(levels.counts)
    cut, which = np.unique(values.clip(levels.dark, levels.bright), return_inverse=True)
    return cut, np.bincount(which, weights=levels.counts[values])


def sample_of(pixels: np.ndarray) -> np.ndarray:
    """Return every n-th pixel of every n-th row (H, W): about `SAMPLE` of them, all of a small image."""
    step = max(1, round((pixels.size / SAMPLE) ** 0.5))
    return pixels[::step, ::step]


def _count_bytes(sample: np.ndarray) -> np.ndarray | None:
    """How many pixels (h, w) have each level of a byte, (256,) int64; None where they have others."""
    if not (sample.min() >= 0 and sample.max() <= 255):
        return None
    whole = sample.astype(np.uint8)
    if not np.array_equal(whole, sample):
        return None
    return cv2.calcHist([whole], [0], None, [256], [0, 256]).ravel().astype(np.int64)


def _correlation(pixels: np.ndarray) -> float:
    """Between vertical and horizontal neighbours, the higher of the two: interlaced noise has one of them."""
    centred = pixels.astype(np.float64) - pixels.mean(dtype=np.float64)
    products = (centred[:, 1:] * centred[:, :-1]).mean(), (centred[1:] * centred[:-1]).mean()
    return float(max(products) / (centred.var() + 1e-12))
