# SPDX-License-Identifier: Apache-2.0
"""The shape of a lesion in numbers, for reports."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np


def measure_lesion(mask: np.ndarray, spacing_mm: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return the shape of a lesion, in pixels and, where the spacing is known, in mm.

    `area_px`, `perimeter_px`, `long_axis_px`, `short_axis_px`, `equivalent_diameter_px`, `centroid_px` (row, column);
    the same ending in `_mm` (`area_mm2`) if the spacing is given; and `orientation_degrees`, `eccentricity`,
    `solidity`, which are those of the tissue, not of the pixel grid, if the spacing is given.

    The axes are those of the ellipse with the same second moments (Haralick and Shapiro, Computer and Robot Vision,
    1992, appendix A). Orientation is the angle of the long axis against the rows, that is the horizontal and the skin
    line, in (-90, 90]; it is positive where the right end lies deeper. Solidity is the area over that of the convex
    hull of the pixels' corners. The perimeter is the length of the 0.5 contour of marching squares: 5 % too long on a
    disc (10 % where rows lie twice as far apart as columns), exact along the grid and its diagonals.

    Args:
        mask: (H, W) bool, not empty.
        spacing_mm: (row, column) distance of pixel centres.

    Raises:
        ValueError: the mask is empty or not bool (H, W), or a spacing is not positive.
    """
    return measure_counts(count_pixels(mask), spacing_mm)


def measure_counts(counts: PixelCounts, spacing_mm: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return what `measure_lesion` does, of a mask whose pixels are counted already.

    Raises:
        ValueError: a spacing is not positive.
    """
    sizes, shape = _scale(counts, (1.0, 1.0))
    measures: dict[str, Any] = {f"{name}_px": value for name, value in sizes.items()}
    if spacing_mm is not None:
        if not all(0 < step < math.inf for step in spacing_mm):
            raise ValueError(f"spacing_mm: {spacing_mm} must be two positive numbers")
        sizes, shape = _scale(counts, spacing_mm)
        measures |= {f"{name}_mm2" if name == "area" else f"{name}_mm": value for name, value in sizes.items()}
    return measures | shape


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the (top, left, bottom, right), half-open, around the pixels of a mask (H, W) bool; zeros where it is
    empty."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return top, left, top + height, left + width


@dataclass(frozen=True)
class PixelCounts:
    """What the pixel grid tells of a mask, in whole pixels, so that nothing is lost to rounding.

    Args:
        area: pixels.
        centroid: (row, column).
        covariance: (2, 2) of the pixel centres' rows and columns.
        hull_area: of the convex hull of the pixels' corners.
        upright, level, slanting: pieces of the contour that run along a column, along a row, and across both by half.
    """

    area: int
    centroid: tuple[float, float]
    covariance: np.ndarray
    hull_area: float
    upright: int
    level: int
    slanting: int

    def moved(self, rows: int, columns: int) -> PixelCounts:
        """Those of the same mask, laid so far down and to the right."""
        return replace(self, centroid=(self.centroid[0] + rows, self.centroid[1] + columns))


def count_pixels(mask: np.ndarray) -> PixelCounts:
    """Count what the measures of a mask (H, W) bool are made of.

    Raises:
        ValueError: the mask is empty or not bool (H, W).
    """
    top, left, bottom, right = box_of(mask) if mask.ndim == 2 and mask.dtype == np.bool_ else (0, 0, 0, 0)
    if top == bottom:
        raise ValueError(f"mask: {mask.dtype} of shape {mask.shape} must be bool (H, W) with a pixel set")
    framed = cv2.copyMakeBorder(mask[top:bottom, left:right].view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    # The mask in runs, of which a row has one or a few: its row, its first column and the one behind its last.
    changes = np.flatnonzero(framed[:, 1:] != framed[:, :-1])
    row, first = np.divmod(changes[::2], framed.shape[1] - 1)
    row, behind = row - 1, changes[1::2] % (framed.shape[1] - 1)
    length, total = behind - first, (behind - first) * (first + behind - 1) // 2  # of columns: their number, their sum
    squares = _squares_below(behind) - _squares_below(first)
    # Sums over all pixels of 1, row, column, and of their products: whole numbers, without rounding.
    n, rows, columns, rows2, columns2, both = (
        int(part.sum()) for part in (length, row * length, total, row**2 * length, squares, row * total)
    )
    across = (n * both - rows * columns) / n**2
    covariance = np.array([[(n * rows2 - rows**2) / n**2, across], [across, (n * columns2 - columns**2) / n**2]])
    upright, level, slanting = _contour(framed)
    hull = _hull_area(row, first, behind)
    return PixelCounts(n, (top + rows / n, left + columns / n), covariance, hull, upright, level, slanting)


def _squares_below(numbers: np.ndarray) -> np.ndarray:
    """The sum of the squares of all whole numbers below each."""
    return (numbers - 1) * numbers * (2 * numbers - 1) // 6


def _hull_area(row: np.ndarray, first: np.ndarray, behind: np.ndarray) -> float:
    """Of the corners of runs of pixels: no other can touch the hull."""
    corners = np.empty((4, len(row), 2), np.int32)
    corners[:2, :, 0], corners[2:, :, 0] = first, behind
    corners[::2, :, 1], corners[1::2, :, 1] = row, row + 1
    return float(cv2.contourArea(cv2.convexHull(corners.reshape(-1, 1, 2))))


def _contour(framed: np.ndarray) -> tuple[int, int, int]:
    """Count the pieces of the contour that marching squares draws halfway between inside and outside.

    Args:
        framed: (h, w) uint8 of 0 and 1, its border 0.
    """
    pairs = framed[:, :-1] + 2 * framed[:, 1:]
    squares = pairs[:-1] + 4 * pairs[1:]  # of each 2×2 pixels: 1 upper left, 2 upper right, 4 lower left, 8 lower right
    seen = cv2.calcHist([squares], [0], None, [16], [0, 16]).ravel()
    upright, level, across = (int(seen[list(kinds)].sum()) for kinds in ((5, 10), (3, 12), (6, 9)))
    cut = int(seen[[1, 2, 4, 7, 8, 11, 13, 14]].sum())
    return upright, level, cut + 2 * across


def _scale(counts: PixelCounts, spacing: tuple[float, float]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the measures that have a unit, and those that have none."""
    step = np.asarray(spacing, dtype=float)
    # Each pixel is a rectangle with a spread of its own.
    covariance = counts.covariance * np.outer(step, step) + np.diag(step**2 / 12)
    (small, large), vectors = np.linalg.eigh(covariance)
    down, across = vectors[:, 1] * (1 if vectors[1, 1] > 0 else -1)
    angle = math.degrees(math.atan2(down, across))
    row, column = (float(length) for length in step)
    area = counts.area * row * column
    sizes = {
        "area": area,
        "perimeter": counts.upright * row + counts.level * column + counts.slanting * math.hypot(row, column) / 2,
        "long_axis": 4 * math.sqrt(large),
        "short_axis": 4 * math.sqrt(small),
        "equivalent_diameter": 2 * math.sqrt(area / math.pi),
        "centroid": [counts.centroid[0] * row, counts.centroid[1] * column],
    }
    shape = {
        "orientation_degrees": 90.0 if angle < -90 + 1e-6 else angle,
        "eccentricity": math.sqrt(1 - small / large),
        "solidity": counts.area / counts.hull_area,
    }
    return sizes, shape
