# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.features."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from bundle.transforms import FEATURES, DescribeLesiond, describe_lesion, describe_shape, find_lesion
from bundle.transforms.features import GREY_FEATURES, SHAPE_FEATURES, _depth_within, _within
from bundle.transforms.lesion import LesionRegion


def _ellipse(height: int, width: int, row: float, column: float, half_height: float, half_width: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((rows - row) / half_height) ** 2 + ((columns - column) / half_width) ** 2 <= 1


def _describe(pixels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    levels = mask.astype(np.uint8) * 255
    return describe_lesion(pixels, levels, find_lesion(levels))


def test_a_tall_lesion_is_told_from_a_wide_one() -> None:
    tall, wide = (describe_shape(_ellipse(100, 140, 50, 70, *axes)) for axes in ((40, 15), (15, 40)))
    assert tall["tallness"] == pytest.approx(-wide["tallness"], rel=0.02)
    assert tall["tallness"] > 0.8
    assert (tall["steepness"], wide["steepness"]) == pytest.approx((1, 0), abs=1e-6)
    assert (tall["relative_height"], tall["relative_width"]) == pytest.approx((0.79, 0.21), abs=0.03)


def test_shape_does_not_depend_on_the_size_of_the_pixels() -> None:
    small, large = (describe_shape(_ellipse(*(scale * np.array([60, 90, 25, 50, 12, 20])))) for scale in (2, 6))
    for name in SHAPE_FEATURES:
        assert small[name] == pytest.approx(large[name], abs=0.03), name


def test_a_star_is_less_solid_and_less_even_than_a_disc() -> None:
    rows, columns = np.mgrid[-80:81, -80:81]
    angle = np.arctan2(rows, columns)
    disc = describe_shape(np.hypot(rows, columns) <= 50)
    star = describe_shape(np.hypot(rows, columns) <= 50 * (1 + 0.35 * np.cos(7 * angle)))
    assert star["solidity"] < disc["solidity"] - 0.15
    assert star["circularity"] < disc["circularity"] - 0.3
    assert star["radial_variation"] > disc["radial_variation"] + 0.15


def test_shadow_and_enhancement_below_a_lesion_have_opposite_signs() -> None:
    mask = _ellipse(160, 160, 60, 80, 20, 30)
    pixels = np.where(mask, 40.0, 120.0)
    shadow, enhancement = pixels.copy(), pixels.copy()
    shadow[82:, 50:110], enhancement[82:, 50:110] = 20, 220
    assert _describe(shadow, mask)["posterior_against_sides"] < -0.2
    assert _describe(enhancement, mask)["posterior_against_sides"] > 0.2
    assert abs(_describe(pixels, mask)["posterior_against_sides"]) < 0.02


def test_a_dark_lesion_contrasts_with_its_surroundings_and_a_sharp_margin_is_steep() -> None:
    mask = _ellipse(120, 150, 60, 75, 25, 30)
    sharp = np.where(mask, 40.0, 140.0)
    features = _describe(sharp, mask)
    # Grey levels count from the median, 140, in ranges of the 1st to 99th percentile, 100.
    assert features["grey_mean"] == pytest.approx(-1)
    assert features["surround_contrast"] == pytest.approx(1, abs=0.03)
    blurred = np.clip(140 - 100 * np.exp(-(((np.mgrid[:120, :150][0] - 60) / 30.0) ** 2)), 0, 255)
    assert features["margin_gradient"] > 3 * _describe(blurred, mask)["margin_gradient"]


def test_a_doubtful_map_shows_in_the_features() -> None:
    mask = _ellipse(100, 100, 50, 50, 20, 20)
    pixels = np.full((100, 100), 90.0)
    doubtful = np.where(_ellipse(100, 100, 50, 50, 35, 35), 100, 0).astype(np.uint8)
    doubtful[mask] = 150
    sure = _describe(pixels, mask)
    unsure = describe_lesion(pixels, doubtful, find_lesion(doubtful))
    assert (sure["unsure_share"], sure["map_mean"]) == (0, 1)
    assert unsure["unsure_share"] > 1
    assert unsure["unsure_rim"] > 10


def _scene() -> tuple[np.ndarray, np.ndarray]:
    """A dark lesion in bright speckle, and its mask."""
    mask = _ellipse(120, 150, 60, 75, 25, 30)
    speckle = np.random.default_rng(0).normal(size=mask.shape)
    return np.where(mask, 40.0, 120.0) + 15 * speckle, mask


@pytest.mark.parametrize(("gain", "offset"), [(1 / 16, 0.0), (0.5, 20.0), (1 / 16, 200.0), (257.0, 0.0)])
def test_brightness_and_contrast_move_no_feature(gain: float, offset: float) -> None:
    pixels, mask = _scene()
    plain, moved = _describe(pixels, mask), _describe(gain * pixels + offset, mask)
    for name in FEATURES:
        assert moved[name] == pytest.approx(plain[name], rel=1e-6, abs=1e-6), name


def test_hot_pixels_and_a_caption_hardly_move_a_feature() -> None:
    pixels, mask = _scene()
    stained = pixels.copy()
    stained[:2, :50] = 4000.0
    plain, moved = _describe(pixels, mask), _describe(stained, mask)
    for name in GREY_FEATURES:
        assert moved[name] == pytest.approx(plain[name], rel=0.05, abs=0.03), name


def test_a_speck_that_comes_or_goes_hardly_moves_a_feature() -> None:
    pixels, mask = _scene()
    levels = mask.astype(np.uint8) * 255
    specked = levels.copy()
    specked[3, 3] = 255
    plain, moved = (describe_lesion(pixels, level, find_lesion(level)) for level in (levels, specked))
    for name in FEATURES:
        assert moved[name] == pytest.approx(plain[name], rel=0.01, abs=0.01), name


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)), st.integers(1, 12))
def test_what_is_near_the_outline_is_so_by_euclidean_distance(levels: np.ndarray, radius: int) -> None:
    _check_distances(find_lesion(levels), (radius, 2 * radius))


@pytest.mark.parametrize("corner", [(40, 30), (0, 30), (40, 0), (0, 0), (-60, -50)])
@pytest.mark.parametrize("radius", [3, 11, 25])
def test_large_lesions_and_those_that_the_image_cuts_have_euclidean_distances(
    corner: tuple[int, int], radius: int
) -> None:
    levels = np.zeros((170, 210), np.uint8)
    cv2.ellipse(levels, (corner[1] + 75, corner[0] + 60), (74, 55), 20, 0, 360, 255, -1)
    _check_distances(find_lesion(levels), (radius, 2 * radius))


def _check_distances(region: LesionRegion, radii: tuple[int, int]) -> None:
    away = ndimage.distance_transform_edt(~region.mask)
    for radius, near in zip(radii, _within(region.mask, radii, region.counts.area), strict=True):
        assert np.array_equal(near, away <= radius)
    top, left, bottom, right = region.box
    deep = ndimage.distance_transform_edt(region.mask)[top:bottom, left:right]
    lesion = region.mask[top:bottom, left:right]
    for radius, depth in zip(radii, _depth_within(region, radii), strict=True):
        assert np.array_equal(depth[lesion], (deep <= radius)[lesion])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)),
    st.integers(0, 2**32 - 1),
)
def test_every_map_and_picture_give_finite_numbers(levels: np.ndarray, seed: int) -> None:
    pixels = np.random.default_rng(seed).uniform(0, 255, levels.shape).astype(np.float32)
    features = describe_lesion(pixels, levels, find_lesion(levels))
    assert tuple(features) == FEATURES
    assert all(math.isfinite(value) for value in features.values())


def test_the_transform_describes_the_same_lesion_as_the_function() -> None:
    mask = _ellipse(50, 70, 20, 40, 10, 15)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70)).astype(np.float32)
    probability = torch.from_numpy(mask.astype(np.float32) * 0.8)[None]
    given = {"image": torch.from_numpy(pixels / 255)[None], "probability": probability}
    features = DescribeLesiond(threshold=0.5)(given)["features"]
    levels = np.where(mask, 204, 0).astype(np.uint8)
    expected = describe_lesion(pixels, levels, find_lesion(levels, 0.5))
    assert features.dtype == torch.float32
    assert features.tolist() == pytest.approx([expected[name] for name in FEATURES], rel=1e-4, abs=1e-5)


def test_a_map_that_reaches_the_threshold_nowhere_is_told_as_not_outlined() -> None:
    given = {"image": torch.rand(1, 30, 40), "probability": torch.full((1, 30, 40), 0.3)}
    assert [DescribeLesiond(threshold=limit)(given)["outlined"] for limit in (0.5, 0.2)] == [0, 1]
