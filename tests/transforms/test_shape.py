# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.shape."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bundle.transforms import measure_lesion
from bundle.transforms.shape import count_pixels, measure_counts

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)).filter(lambda m: m.any())


def _ellipse(
    rows: float, columns: float, degrees: float = 0.0, shape: tuple[int, int] = (220, 260), squeeze: float = 1.0
) -> np.ndarray:
    """Semi-axes along columns and rows, then turned clockwise on the screen; every `squeeze`-th row is seen."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    y, x = (y - shape[0] / 2) * squeeze, x - shape[1] / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return ((x * cos + y * sin) / columns) ** 2 + ((y * cos - x * sin) / rows) ** 2 <= 1


@pytest.mark.parametrize("degrees", [-60.0, -20.0, 0.0, 35.0, 80.0])
def test_an_ellipse_is_measured(degrees: float) -> None:
    shape = measure_lesion(_ellipse(30, 75, degrees))
    assert shape["area_px"] == pytest.approx(math.pi * 30 * 75, rel=0.01)
    assert shape["long_axis_px"] == pytest.approx(150, rel=0.01)
    assert shape["short_axis_px"] == pytest.approx(60, rel=0.01)
    assert shape["orientation_degrees"] == pytest.approx(degrees, abs=0.5)
    assert shape["eccentricity"] == pytest.approx(math.sqrt(1 - (30 / 75) ** 2), rel=0.01)
    assert shape["equivalent_diameter_px"] == pytest.approx(2 * math.sqrt(30 * 75), rel=0.01)
    assert shape["centroid_px"] == pytest.approx([110, 130], abs=0.1)
    assert shape["solidity"] > 0.96
    assert "area_mm2" not in shape


def test_an_upright_lesion_stands_at_ninety_degrees() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:25, 10:13] = True
    assert measure_lesion(mask)["orientation_degrees"] == 90


@pytest.mark.parametrize("degrees", [0.0, 40.0, -70.0])
def test_unequal_spacing_gives_the_tissues_shape_not_the_grids(degrees: float) -> None:
    # The same ellipse, seen with rows twice as far apart as columns.
    true = measure_lesion(_ellipse(30, 75, degrees), (0.1, 0.1))
    seen = measure_lesion(_ellipse(30, 75, degrees, shape=(110, 260), squeeze=2.0), (0.2, 0.1))
    for name in ("area_mm2", "long_axis_mm", "short_axis_mm", "equivalent_diameter_mm"):
        assert seen[name] == pytest.approx(true[name], rel=0.01), name
    assert seen["perimeter_mm"] == pytest.approx(true["perimeter_mm"], rel=0.06)
    assert seen["orientation_degrees"] == pytest.approx(degrees, abs=1)
    assert seen["eccentricity"] == pytest.approx(true["eccentricity"], rel=0.01)
    assert seen["centroid_mm"] == pytest.approx(true["centroid_mm"], abs=0.1)
    assert seen["area_px"] == pytest.approx(true["area_px"] / 2, rel=0.01)


def test_the_perimeter_of_a_disc_is_five_per_cent_too_long() -> None:
    perimeter = measure_lesion(_ellipse(80, 80))["perimeter_px"]
    assert perimeter / (2 * math.pi * 80) == pytest.approx(1.055, abs=0.01)


def test_the_perimeter_of_a_rectangle_is_its_sides_with_cut_corners() -> None:
    mask = np.zeros((30, 50), bool)
    mask[:10, 5:25] = True  # at the image's border
    assert measure_lesion(mask)["perimeter_px"] == pytest.approx(2 * 9 + 2 * 19 + 4 * math.sqrt(0.5))


def test_a_single_pixel_has_a_shape() -> None:
    mask = np.zeros((5, 7), bool)
    mask[2, 3] = True
    shape = measure_lesion(mask, (0.2, 0.1))
    assert (shape["area_px"], shape["solidity"], shape["centroid_px"]) == (1.0, pytest.approx(1.0), [2.0, 3.0])
    assert shape["area_mm2"] == pytest.approx(0.02)
    assert shape["long_axis_mm"] == pytest.approx(4 * 0.2 / math.sqrt(12))
    assert shape["orientation_degrees"] == 90


def test_a_bay_lowers_solidity() -> None:
    mask = np.ones((40, 40), bool)
    assert measure_lesion(mask)["solidity"] == pytest.approx(1.0)
    mask[10:30, :30] = False
    assert measure_lesion(mask)["solidity"] == pytest.approx(1 - 600 / 1600)


@given(mask=MASKS, spacing=st.tuples(st.floats(0.02, 2), st.floats(0.02, 2)))
@settings(deadline=None)
def test_any_mask_has_measures_in_range_that_json_takes(mask: np.ndarray, spacing: tuple[float, float]) -> None:
    shape = measure_lesion(mask, spacing)
    assert 0 < shape["solidity"] <= 1 + 1e-9
    assert 0 <= shape["eccentricity"] < 1
    assert -90 < shape["orientation_degrees"] <= 90
    assert 0 < shape["short_axis_mm"] <= shape["long_axis_mm"]
    assert shape["perimeter_mm"] > 0
    assert json.loads(json.dumps(shape, allow_nan=False)) == shape


@given(mask=MASKS)
@settings(deadline=None)
def test_moving_and_transposing_a_mask_keeps_its_measures(mask: np.ndarray) -> None:
    shape, moved = measure_lesion(mask), measure_lesion(np.pad(mask.T, 3))
    for name in ("area_px", "perimeter_px", "long_axis_px", "short_axis_px", "solidity"):
        assert moved[name] == pytest.approx(shape[name]), name
    assert moved["centroid_px"] == pytest.approx([value + 3 for value in reversed(shape["centroid_px"])])


def test_what_has_no_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel set"):
        measure_lesion(np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="spacing_mm"):
        measure_lesion(np.ones((4, 4), bool), (0.1, float("nan")))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_the_counts_are_those_of_the_pixels_and_move_with_them(mask: np.ndarray) -> None:
    if not mask.any():
        return
    rows, columns = np.nonzero(mask)
    counts = count_pixels(mask)
    assert counts.area == len(rows)
    assert counts.centroid == pytest.approx((rows.mean(), columns.mean()))
    assert counts.covariance == pytest.approx(np.cov(rows, columns, bias=True), abs=1e-9)
    shifted, padded = measure_counts(counts.moved(3, 5)), measure_lesion(np.pad(mask, ((3, 0), (5, 0))))
    assert all(shifted[name] == pytest.approx(value) for name, value in padded.items())
