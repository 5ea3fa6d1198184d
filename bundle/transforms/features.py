# SPDX-License-Identifier: Apache-2.0
"""Hand-made features of a lesion: its shape, its grey levels and those around it, and how sure the segmenter is.

They follow what a reader looks for (BI-RADS ultrasound lexicon, 5th edition, 2013): shape, orientation, margin, echo
pattern and posterior features. No feature depends on the pixel size, nor on brightness and contrast, so images of
different devices, and one image in different depths, can be compared.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy import ndimage

from bundle.readers.contrast import percentiles, sample_of
from bundle.transforms.lesion import Box, LesionRegion
from bundle.transforms.shape import box_of, measure_lesion

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

FEATURES = (*SHAPE_FEATURES, *GREY_FEATURES, *MAP_FEATURES)

GREY_SCALE = "from the median, in ranges of the 1st to 99th percentile"
"""How `GREY_FEATURES` count grey levels; a card says it, since features in other units would be nonsense in silence."""


def grey_scale(pixels: np.ndarray) -> tuple[float, float]:
    """Return the grey level that features count from, and the range that they count in: those of `GREY_SCALE`.

    Both follow every change of brightness and contrast, and no hot pixel or caption moves them.

    Args:
        pixels: (H, W) float, in any unit.
    """
    dark, middle, bright = percentiles(sample_of(pixels), (1, 50, 99))
    spread = bright - dark
    return middle, spread if spread > 0 else 1.0


def describe_shape(mask: np.ndarray) -> dict[str, float]:
    """Return the `SHAPE_FEATURES` of a mask.

    Args:
        mask: (H, W) bool, not empty.

    Raises:
        ValueError: as `measure_lesion`.
    """
    height, width = mask.shape
    measures = measure_lesion(mask)
    area, perimeter = measures["area_px"], measures["perimeter_px"]
    top, left, bottom, right = box_of(mask)
    tall, wide = bottom - top, right - left
    row, column = measures["centroid_px"]
    rows, columns = np.nonzero(_rim(mask[top:bottom, left:right]))
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


def describe_lesion(pixels: np.ndarray, levels: np.ndarray, region: LesionRegion) -> dict[str, float]:
    """Return all `FEATURES` of the lesion of an image.

    Args:
        pixels: (H, W) float, in any unit: the whole tissue region.
        levels: (H, W) uint8 probability of lesion, 255 for certainty.
        region: what `find_lesion` found in the levels.

    Returns:
        name -> finite float.
    """
    middle, spread = grey_scale(pixels)
    mask, (top, left, bottom, right) = region.mask, region.box
    area = float(cv2.countNonZero(mask.view(np.uint8)))
    rim = max(2, int(0.1 * math.sqrt(area)))  # pixels
    # Only the lesion's neighbourhood is looked at; 8 pixels are the reach of the Gaussian gradient, and more.
    pad = 2 * rim + 8
    near = (slice(max(0, top - pad), bottom + pad), slice(max(0, left - pad), right + pad))
    lesion, grey = mask[near], (np.asarray(pixels[near], dtype=np.float64) - middle) / spread
    outside = ~lesion
    # No way out of the lesion is longer than that to the ring around its box.
    ring = (slice(max(0, top - 1), bottom + 1), slice(max(0, left - 1), right + 1))
    outwards, inwards = _distance(outside), _distance(mask[ring])[mask[ring]]
    around = outside & (outwards <= 2 * rim)
    inside = grey[lesion]
    mean, deviation = inside.mean(), inside.std()
    surround = _or(grey[around], inside)
    surround_deviation = surround.std()
    high, wide = max(4, (bottom - top) // 2), (right - left) // 2
    first = max(0, left - wide)
    under = (np.asarray(pixels[bottom : bottom + high, first : right + wide], dtype=np.float64) - middle) / spread
    beside = np.concatenate([under[:, : left - first].ravel(), under[:, right - first :].ravel()])
    posterior = _or(under[:, left - first : right - first].ravel(), inside).mean()
    gradient = _gradient(grey)
    inner = gradient[lesion]
    at_margin = inner[inwards <= 2].mean()
    centred, certainty = inside - mean, levels[near][lesion] / 255
    unsure, unsure_inside = _count_unsure(levels), _count_unsure(levels[near][lesion])
    looks = (
        mean,
        deviation,
        (centred * centred * centred).mean() / (deviation**3 + 1e-6),
        surround.mean() - mean,
        surround_deviation,
        deviation / (surround_deviation + 1e-3),
        _or(grey[outside & (outwards <= rim)], inside).mean() - inside[inwards <= rim].mean(),
        posterior - _or(beside, np.atleast_1d(posterior)).mean(),
        posterior - mean,
        at_margin,
        inner.mean(),
        at_margin / (_or(gradient[around], inner).mean() + 1e-3),
    )
    seen = (
        min(sum(_area(box) for box in region.others) / area, 1.0),
        certainty.mean(),
        certainty.std(),
        min(unsure / area, 4.0),
        min((unsure - unsure_inside) / math.sqrt(area), 20.0),
    )
    named = dict(zip((*GREY_FEATURES, *MAP_FEATURES), map(float, (*looks, *seen)), strict=True))
    return describe_shape(mask) | named


def _area(box: Box) -> int:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


def _or(values: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return values if values.size else otherwise


def _rim(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask that have a side in common with its outside, or with the image's border."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    kept = cv2.erode(mask.view(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (kept == 0)


def _distance(mask: np.ndarray) -> np.ndarray:
    """Return the distance (H, W) of every pixel of a mask from the nearest one outside of it, in pixels."""
    if mask.all():
        # Nothing is outside: SciPy counts from above the upper left pixel, and classifiers were fitted on that.
        return np.asarray(ndimage.distance_transform_edt(mask))
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _gradient(grey: np.ndarray) -> np.ndarray:
    """Return the magnitude of the gradient of grey levels (H, W) float64, smoothed by a Gaussian of 1.5 pixels."""
    across, down = (
        cv2.sepFilter2D(grey, cv2.CV_64F, along_rows, along_columns, borderType=cv2.BORDER_REFLECT)
        for along_rows, along_columns in ((_SLOPE, _BELL), (_BELL, _SLOPE))
    )
    return cv2.magnitude(across, down)


def _count_unsure(levels: np.ndarray) -> int:
    return int(cv2.countNonZero(cv2.inRange(levels, 26, 229))) if levels.size else 0
