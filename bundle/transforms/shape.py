# SPDX-License-Identifier: Apache-2.0
"""The shape of a lesion in numbers, for reports."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull


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
    sizes, shape = _measure(mask, (1.0, 1.0))
    measures: dict[str, Any] = {f"{name}_px": value for name, value in sizes.items()}
    if spacing_mm is not None:
        if not all(0 < step < math.inf for step in spacing_mm):
            raise ValueError(f"spacing_mm: {spacing_mm} must be two positive numbers")
        sizes, shape = _measure(mask, spacing_mm)
        measures |= {f"{name}_mm2" if name == "area" else f"{name}_mm": value for name, value in sizes.items()}
    return measures | shape


def _measure(mask: np.ndarray, spacing: tuple[float, float]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the measures that have a unit, and those that have none."""
    step = np.asarray(spacing, dtype=float)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels = np.argwhere(box) + np.array([rows[0], columns[0]])
    points = pixels * step
    # Each pixel is a rectangle with a spread of its own.
    covariance = np.cov(points, rowvar=False, bias=True) + np.diag(step**2 / 12)
    (small, large), vectors = np.linalg.eigh(covariance)
    down, across = vectors[:, 1] * (1 if vectors[1, 1] > 0 else -1)
    angle = math.degrees(math.atan2(down, across))
    area = float(len(points) * step.prod())
    # Only the first and the last pixel of a row can touch the hull; argwhere lists rows from left to right.
    turns = np.flatnonzero(np.diff(pixels[:, 0]))
    ends = pixels[np.concatenate([[0], turns, turns + 1, [len(pixels) - 1]])]
    corners = np.concatenate([(ends + offset) * step for offset in ((0, 0), (0, 1), (1, 0), (1, 1))])
    sizes = {
        "area": area,
        "perimeter": _perimeter(box, spacing),
        "long_axis": 4 * math.sqrt(large),
        "short_axis": 4 * math.sqrt(small),
        "equivalent_diameter": 2 * math.sqrt(area / math.pi),
        "centroid": [float(value) for value in points.mean(axis=0)],
    }
    shape = {
        "orientation_degrees": 90.0 if angle < -90 + 1e-6 else angle,
        "eccentricity": math.sqrt(1 - small / large),
        "solidity": area / float(ConvexHull(corners).volume),
    }
    return sizes, shape


def _perimeter(mask: np.ndarray, spacing: tuple[float, float]) -> float:
    """Return the length of the contour that marching squares draws halfway between inside and outside."""
    framed = np.pad(mask, 1)
    a, b, c, d = framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:]
    inside = a.astype(int) + b + c + d
    across, cut = np.count_nonzero((a & d & ~b & ~c) | (b & c & ~a & ~d)), np.count_nonzero(inside % 2)
    upright = np.count_nonzero((inside == 2) & (a == c) & (b == d))
    level = np.count_nonzero((inside == 2) & (a == b) & (c == d))
    row, column = spacing
    return float(upright * row + level * column + (cut + 2 * across) * math.hypot(row, column) / 2)
