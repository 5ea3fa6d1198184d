# SPDX-License-Identifier: Apache-2.0
"""The shape of a lesion in numbers, for reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(f"mask: {mask.dtype} of shape {mask.shape} must be bool (H, W) with a pixel set")
    grid = _count(mask)
    sizes, shape = _scale(grid, (1.0, 1.0))
    measures: dict[str, Any] = {f"{name}_px": value for name, value in sizes.items()}
    if spacing_mm is not None:
        if not all(0 < step < math.inf for step in spacing_mm):
            raise ValueError(f"spacing_mm: {spacing_mm} must be two positive numbers")
        sizes, shape = _scale(grid, spacing_mm)
        measures |= {f"{name}_mm2" if name == "area" else f"{name}_mm": value for name, value in sizes.items()}
    return measures | shape


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the (top, left, bottom, right), half-open, around the pixels of a mask (H, W) bool; zeros where it is
    empty."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return top, left, top + height, left + width


@dataclass(frozen=True)
class _Grid:
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


def _count(mask: np.ndarray) -> _Grid:
    top, left, bottom, right = box_of(mask)
    box = mask[top:bottom, left:right]
    moments = cv2.moments(box.view(np.uint8))
    # Sums over all pixels of 1, row, column, and of their products: whole numbers that a float64 holds exactly.
    n, row, column, rows, columns, both = (int(moments[name]) for name in ("m00", "m01", "m10", "m02", "m20", "m11"))
    covariance = np.array([[n * rows - row**2, n * both - row * column], [0, n * columns - column**2]], object) / n**2
    covariance[1, 0] = covariance[0, 1]
    upright, level, slanting = _contour(box)
    return _Grid(
        n, (top + row / n, left + column / n), covariance.astype(float), _hull_area(box), upright, level, slanting
    )


def _hull_area(box: np.ndarray) -> float:
    """Only the first and the last pixel of a row can touch the hull."""
    rows = np.flatnonzero(box.any(axis=1))
    first, behind = box.argmax(axis=1), cv2.flip(box.view(np.uint8), 1).argmax(axis=1)
    last = box.shape[1] - behind
    corners = [np.stack([column[rows], row], axis=1) for column in (first, last) for row in (rows, rows + 1)]
    return float(cv2.contourArea(cv2.convexHull(np.concatenate(corners).astype(np.int32))))


def _contour(box: np.ndarray) -> tuple[int, int, int]:
    """Count the pieces of the contour that marching squares draws halfway between inside and outside."""
    framed = cv2.copyMakeBorder(box.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    pairs = framed[:, :-1] + 2 * framed[:, 1:]
    squares = pairs[:-1] + 4 * pairs[1:]  # of each 2×2 pixels: 1 upper left, 2 upper right, 4 lower left, 8 lower right
    seen = np.bincount(squares.ravel(), minlength=16)
    upright, level, across = (int(seen[list(kinds)].sum()) for kinds in ((5, 10), (3, 12), (6, 9)))
    cut = int(seen[[1, 2, 4, 7, 8, 11, 13, 14]].sum())
    return upright, level, cut + 2 * across


def _scale(grid: _Grid, spacing: tuple[float, float]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the measures that have a unit, and those that have none."""
    step = np.asarray(spacing, dtype=float)
    # Each pixel is a rectangle with a spread of its own.
    covariance = grid.covariance * np.outer(step, step) + np.diag(step**2 / 12)
    (small, large), vectors = np.linalg.eigh(covariance)
    down, across = vectors[:, 1] * (1 if vectors[1, 1] > 0 else -1)
    angle = math.degrees(math.atan2(down, across))
    row, column = (float(length) for length in step)
    area = grid.area * row * column
    sizes = {
        "area": area,
        "perimeter": grid.upright * row + grid.level * column + grid.slanting * math.hypot(row, column) / 2,
        "long_axis": 4 * math.sqrt(large),
        "short_axis": 4 * math.sqrt(small),
        "equivalent_diameter": 2 * math.sqrt(area / math.pi),
        "centroid": [grid.centroid[0] * row, grid.centroid[1] * column],
    }
    shape = {
        "orientation_degrees": 90.0 if angle < -90 + 1e-6 else angle,
        "eccentricity": math.sqrt(1 - small / large),
        "solidity": grid.area / grid.hull_area,
    }
    return sizes, shape
