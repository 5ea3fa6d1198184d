# SPDX-License-Identifier: Apache-2.0
"""Hand-made features of a lesion: its shape, its grey levels and those around it, and how sure the segmenter is.

They follow what a reader looks for (BI-RADS ultrasound lexicon, 5th edition, 2013): shape, orientation, margin, echo
pattern and posterior features. No feature depends on the pixel size, nor on brightness and contrast, so images of
different devices, and one image in different depths, can be compared.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from bundle.readers.contrast import GreyLevels, count_grey
from bundle.transforms.lesion import Box, LesionRegion
from bundle.transforms.shape import PixelCounts, box_of, count_pixels, measure_counts

SHAPE_FEATURES = (
    *("solidity", "eccentricity", "circularity", "extent", "tallness", "steepness", "axis_ratio"),
    *("relative_area", "relative_width", "relative_height", "depth", "off_centre", "radial_variation"),
)
"""Of the mask alone: what a silhouette gives away."""

GREY_FEATURES = (
    *("grey_mean", "grey_deviation", "grey_skewness", "surround_contrast", "surround_deviation", "deviation_ratio"),
    *("margin_step", "posterior_against_sides", "posterior_against_lesion"),
    *("margin_gradient", "inner_gradient", "gradient_ratio"),
)
"""Of the image in and around the mask, its grey levels counted as `grey_scale` says."""

MAP_FEATURES = (*("other_area", "map_mean", "map_deviation", "unsure_share", "unsure_rim"),)
"""Of the probability map that the mask comes from; `other_area` is that of the boxes of further regions, in areas of
the lesion, 1 at most: their number would jump with a single pixel."""

_REACH = np.arange(-6, 7)  # four times the deviation of the Gaussian, in pixels
_BELL = np.exp(-(_REACH**2) / (2 * 1.5**2))
_BELL /= _BELL.sum()
_SLOPE = _BELL * _REACH / 1.5**2

_MOST_POINTS = 400
"""Pixels of discs that are laid at each pixel: with more, it is faster to measure distances, for all radii at once."""

FEATURES = (*SHAPE_FEATURES, *GREY_FEATURES, *MAP_FEATURES)

GREY_SCALE = "from the median, in ranges of the 1st to 99th percentile"
"""How `GREY_FEATURES` count grey levels; a card says it, since features in other units would be nonsense in silence."""


def grey_scale(pixels: np.ndarray, levels: GreyLevels | None = None) -> tuple[float, float]:
    """Return the grey level that features count from, and the range that they count in: those of `GREY_SCALE`.

    Both follow every change of brightness and contrast, and no hot pixel or caption moves them.

    Args:
        pixels: (H, W) float, in any unit.
        levels: of them, where they are counted already.
    """
    levels = levels or count_grey(pixels)
    spread = levels.bright - levels.dark
    return levels.middle, spread if spread > 0 else 1.0


def describe_shape(mask: np.ndarray, counts: PixelCounts | None = None) -> dict[str, float]:
    """Return the `SHAPE_FEATURES` of a mask.

    Args:
        mask: (H, W) bool, not empty.
        counts: of its pixels, where they are counted already.

    Raises:
        ValueError: as `count_pixels`.
    """
    height, width = mask.shape
    measures = measure_counts(counts or count_pixels(mask))
    area, perimeter = measures["area_px"], measures["perimeter_px"]
    top, left, bottom, right = box_of(mask)
    tall, wide = bottom - top, right - left
    row, column = measures["centroid_px"]
    rows, columns = np.divmod(np.flatnonzero(_rim(mask[top:bottom, left:right])), wide)
    radii = np.hypot(rows + (top - row), columns + (left - column))
    values = (
        measures["solidity"],
        measures["eccentricity"],
        4 * math.pi * area / perimeter**2,
        area / (tall * wide),
        math.log(tall / wide),
        abs(math.sin(math.radians(measures["orientation_degrees"]))),
        measures["short_axis_px"] / measures["long_axis_px"],
        math.log(area / mask.size),
        wide / width,
        tall / height,
        row / height,
        abs(column / width - 0.5),
        float(radii.std() / (radii.mean() + 1e-6)),
    )
    return dict(zip(SHAPE_FEATURES, map(float, values), strict=True))


def describe_lesion(
    pixels: np.ndarray, levels: np.ndarray, region: LesionRegion, grey_levels: GreyLevels | None = None
) -> dict[str, float]:
    """Return all `FEATURES` of the lesion of an image.

    Args:
        pixels: (H, W) float, in any unit: the whole tissue region.
        levels: (H, W) uint8 probability of lesion, 255 for certainty.
        region: what `find_lesion` found in the levels.
        grey_levels: of the pixels, where they are counted already.

    Returns:
        name -> finite float.
    """
    shape = describe_shape(region.mask, region.counts)
    return shape | _describe_grey(pixels, region, *grey_scale(pixels, grey_levels)) | _describe_map(levels, region)


def _describe_grey(pixels: np.ndarray, region: LesionRegion, middle: float, spread: float) -> dict[str, float]:
    """The `GREY_FEATURES`. Grey levels and slopes are taken as they are; their means are told in ranges."""
    top, left, bottom, right = region.box
    rim = max(2, int(0.1 * math.sqrt(region.counts.area)))  # pixels
    # Only the lesion's neighbourhood is looked at, and what is inside the lesion in its box alone.
    pad = 2 * rim + int(_REACH[-1])
    near = (slice(max(0, top - pad), bottom + pad), slice(max(0, left - pad), right + pad))
    grey, lesion = np.ascontiguousarray(pixels[near], np.float32), region.mask[near]
    slopes = _gradient(grey)
    outside = ~lesion
    close, around = (near & outside for near in _within(lesion, (rim, 2 * rim), region.counts.area))
    row, column = top - near[0].start, left - near[1].start
    box = (slice(row, row + bottom - top), slice(column, column + right - left))
    inside, inner = (values[box][lesion[box]] for values in (grey, slopes))
    margin, edge = (depth[lesion[box]] for depth in _depth_within(region, (rim, 2)))
    mean, deviation, centred = _moments(inside)
    surround, surround_deviation, _ = _moments(grey[around]) if around.any() else (mean, deviation, None)
    high, wide = max(4, (bottom - top) // 2), (right - left) // 2
    first = max(0, left - wide)
    under = pixels[bottom : bottom + high, first : right + wide]
    posterior = _mean(under[:, left - first : right - first], otherwise=mean)
    beside = _mean(under[:, : left - first], under[:, right - first :], otherwise=posterior)
    at_margin, all_inner = _mean(inner[edge]) / spread, _mean(inner) / spread
    values = (
        (mean - middle) / spread,
        deviation / spread,
        float((centred**2 * centred).mean()) / (deviation**3 + 1e-6 * spread**3),
        (surround - mean) / spread,
        surround_deviation / spread,
        deviation / (surround_deviation + 1e-3 * spread),
        (_mean(grey[close], otherwise=mean) - _mean(inside[margin])) / spread,
        (posterior - beside) / spread,
        (posterior - mean) / spread,
        at_margin,
        all_inner,
        at_margin / (_mean(slopes[around], otherwise=all_inner * spread) / spread + 1e-3),
    )
    return dict(zip(GREY_FEATURES, values, strict=True))


def _describe_map(levels: np.ndarray, region: LesionRegion) -> dict[str, float]:
    """The `MAP_FEATURES`."""
    top, left, bottom, right = region.box
    inside = levels[top:bottom, left:right][region.mask[top:bottom, left:right]]
    mean, deviation, _ = _moments(inside)
    area, unsure, unsure_inside = float(region.counts.area), _count_unsure(levels), _count_unsure(inside)
    values = (
        min(sum(_area(box) for box in region.others) / area, 1.0),
        mean / 255,
        deviation / 255,
        min(unsure / area, 4.0),
        min((unsure - unsure_inside) / math.sqrt(area), 20.0),
    )
    return dict(zip(MAP_FEATURES, values, strict=True))


def _moments(values: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The mean and the standard deviation of values, not none, and how far each lies from the mean."""
    mean = float(values.mean(dtype=np.float64))
    centred = values - mean if values.dtype == np.float64 else values.astype(np.float64) - mean
    # Not by `dot`: for so many values BLAS starts threads of its own, which then wait for work at full load.
    return mean, math.sqrt((centred * centred).mean()), centred


def _mean(*parts: np.ndarray, otherwise: float = math.nan) -> float:
    """The mean of all values of some arrays; another number where there are none."""
    size = sum(part.size for part in parts)
    return sum(float(part.sum(dtype=np.float64)) for part in parts) / size if size else otherwise


def _area(box: Box) -> int:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


def _rim(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask that have a side in common with its outside, or with the image's border."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    kept = cv2.erode(mask.view(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (kept == 0)


def _within(mask: np.ndarray, radii: Sequence[int], area: float) -> list[np.ndarray]:
    """Return, for each radius, the pixels of a mask (H, W) bool and all that are as near to one, or nearer.

    Args:
        mask: with a pixel.
        radii: in pixels.
        area: of the mask in pixels, where it is 8-connected; 0 where it may not be. A disc that meets a mask that it
            does not hold meets it on its border, which has far fewer pixels to look at.
    """
    kernels = [_disc(radius)[area > 4 * radius**2] for radius in radii]
    if sum(map(cv2.countNonZero, kernels)) > _MOST_POINTS:
        away = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return [away <= radius for radius in radii]
    return [mask | cv2.dilate(mask.view(np.uint8), kernel).view(bool) for kernel in kernels]


def _depth_within(region: LesionRegion, radii: Sequence[int]) -> list[np.ndarray]:
    """Return, for each radius and in a region's box, the pixels (h, w) of the lesion whose way out of it is as long,
    or shorter."""
    top, left, bottom, right = region.box
    # No way out of the lesion is longer than that to the ring around its box.
    above, before = max(0, top - 1), max(0, left - 1)
    ring = region.mask[above : bottom + 1, before : right + 1]
    if ring.all():
        # Nothing is outside: counted from above the upper left pixel, as SciPy does; classifiers were fitted on that.
        rows, columns = np.ogrid[: ring.shape[0], : ring.shape[1]]
        return [np.asarray((rows + 1) ** 2 + columns**2 <= radius**2) for radius in radii]
    # Where all of it is there, the outside is 8-connected, and no disc that is smaller than the lesion holds it.
    is_whole = ring.shape == (bottom - top + 2, right - left + 2)
    inner = slice(top - above, bottom - above), slice(left - before, right - before)
    return [(ring & near)[inner] for near in _within(~ring, radii, region.counts.area if is_whole else 0)]


@functools.lru_cache(maxsize=256)
def _disc(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc of pixels, (2 r + 1, 2 r + 1) uint8, and its border, which no step to a neighbour crosses."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    inner = cv2.erode(disc, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return disc, disc - inner


def _gradient(grey: np.ndarray) -> np.ndarray:
    """Return the magnitude of the gradient of grey levels (H, W) float32, smoothed by a Gaussian of 1.5 pixels."""
    across, down = (
        cv2.sepFilter2D(grey, cv2.CV_32F, along_rows, along_columns, borderType=cv2.BORDER_REFLECT)
        for along_rows, along_columns in ((_SLOPE, _BELL), (_BELL, _SLOPE))
    )
    return cv2.magnitude(across, down)


def _count_unsure(levels: np.ndarray) -> int:
    return int(cv2.countNonZero(cv2.inRange(levels, 26, 229))) if levels.size else 0
