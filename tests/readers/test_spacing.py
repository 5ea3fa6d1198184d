# SPDX-License-Identifier: Apache-2.0
"""Claims about the tissue region and the spacing: right in mm, or pixels and a warning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import region, regions, save, ultrasound
from pydicom.dataset import Dataset

from bundle.readers import UltrasoundImage, read_image
from bundle.transforms.shape import measure_lesion

FRAME = np.tile(np.arange(80, dtype=np.uint8), (50, 1))


def _read(tmp_path: Path, *items: Dataset, **elements: Any) -> UltrasoundImage:
    if items:
        elements["SequenceOfUltrasoundRegions"] = regions(*items)
    return read_image(save(ultrasound(FRAME, **elements), tmp_path / "a.dcm"))


def test_the_region_and_its_spacing_are_taken_in_row_and_column_order(tmp_path: Path) -> None:
    image = _read(tmp_path, region(5, 10, 45, 75, (0.08, 0.12)))
    assert image.region == (5, 10, 45, 75)
    assert image.spacing_mm == pytest.approx((0.08, 0.12))
    assert image.warnings == ()
    np.testing.assert_array_equal(image.tissue, FRAME[5:45, 10:75])
    assert image.pixels.shape == FRAME.shape


def test_a_region_of_the_whole_frame_is_no_region(tmp_path: Path) -> None:
    image = _read(tmp_path, region(0, 0, 50, 80))
    assert (image.region, image.spacing_mm) == (None, pytest.approx((0.1, 0.1)))


def test_bounds_that_count_one_more_at_the_edge_end_there(tmp_path: Path) -> None:
    """Philips scanners write the width itself as the last column."""
    image = _read(tmp_path, region(5, 10, 45, 81))
    assert (image.region, image.warnings) == ((5, 10, 45, 80), ())


def test_other_regions_are_passed_over(tmp_path: Path) -> None:
    spectrum = region(30, 0, 50, 80, RegionSpatialFormat=3, RegionDataType=3)
    bar = region(0, 0, 20, 5, RegionSpatialFormat=0, RegionDataType=13, PhysicalUnitsXDirection=0)
    image = _read(tmp_path, bar, region(5, 10, 30, 75), spectrum)
    assert (image.region, image.spacing_mm) == ((5, 10, 30, 75), pytest.approx((0.1, 0.1)))


def test_a_region_that_is_written_twice_is_one(tmp_path: Path) -> None:
    assert _read(tmp_path, region(5, 10, 30, 75), region(5, 10, 30, 75)).region == (5, 10, 30, 75)


@pytest.mark.parametrize(
    ("items", "kept", "word"),
    [
        ([region(0, 0, 50, 40), region(0, 40, 50, 80)], None, "2 regions of 2-D tissue"),
        ([region(0, 0, 52, 80)], None, "lies outside 50×80"),
        ([region(20, 0, 10, 80)], None, "lies outside 50×80"),
        ([region(5, 10, 45, 75, PhysicalUnitsXDirection=4)], (5, 10, 45, 75), "not 3 .cm."),
        ([region(5, 10, 45, 75, (0.1, 0.0))], (5, 10, 45, 75), "not both positive"),
        ([region(5, 10, 45, 75, (0.1, -0.1))], (5, 10, 45, 75), "not both positive"),
        ([region(5, 10, 45, 75, PhysicalDeltaX=math.nan)], (5, 10, 45, 75), "not both positive"),
        ([region(5, 10, 45, 75, PhysicalDeltaX=math.inf)], (5, 10, 45, 75), "not both positive"),
        ([region(5, 10, 45, 75, (1e-6, 1e-6))], (5, 10, 45, 75), "not plausible"),
        ([region(5, 10, 45, 75, RegionSpatialFormat=3)], None, "none of its ultrasound regions is 2-D tissue"),
    ],
)
def test_in_doubt_there_are_pixels_and_a_warning(tmp_path: Path, items: list[Dataset], kept: Any, word: str) -> None:
    image = _read(tmp_path, *items)
    assert (image.region, image.spacing_mm) == (kept, None)
    assert len(image.warnings) == 1
    assert word.replace(".cm.", "(cm)") in image.warnings[0]
    assert "sizes are in pixels only" in image.warnings[0]


def test_a_missing_bound_takes_the_whole_frame(tmp_path: Path) -> None:
    item = region(5, 10, 45, 75)
    del item.RegionLocationMaxX1
    assert _read(tmp_path, item).region is None


def test_pixel_spacing_is_taken_without_regions_only_and_with_a_warning(tmp_path: Path) -> None:
    image = _read(tmp_path, PixelSpacing=[0.08, 0.12])
    assert image.spacing_mm == pytest.approx((0.08, 0.12))
    assert "Pixel Spacing" in image.warnings[0]
    assert _read(tmp_path, region(0, 0, 20, 80, RegionSpatialFormat=2), PixelSpacing=[0.1, 0.1]).spacing_mm is None
    assert _read(tmp_path, PixelSpacing=[0.0, 0.12]).spacing_mm is None


def test_pixel_spacing_that_contradicts_the_region_leaves_pixels(tmp_path: Path) -> None:
    image = _read(tmp_path, region(5, 10, 45, 75), PixelSpacing=[0.2, 0.2])
    assert image.spacing_mm is None
    assert "contradicts" in image.warnings[0]
    agreeing = _read(tmp_path, region(5, 10, 45, 75), PixelSpacing=[0.1, 0.1])
    assert (agreeing.spacing_mm, agreeing.warnings) == (pytest.approx((0.1, 0.1)), ())


@pytest.mark.parametrize(
    ("shape", "deltas_mm"),
    [
        ((300, 400), (0.1, 0.1)),
        ((400, 300), (0.1, 0.1)),
        ((300, 400), (0.05, 0.2)),
        ((300, 400), (0.2, 0.05)),
        ((600, 800), (0.06, 0.06)),
        ((768, 1024), (0.08, 0.05)),
        ((480, 640), (0.12, 0.07)),
        ((256, 900), (0.1, 0.04)),
        ((900, 256), (0.04, 0.1)),
        ((512, 512), (0.3, 0.1)),
    ],
)
def test_a_drawn_ellipse_comes_back_with_its_size_in_mm(
    tmp_path: Path, shape: tuple[int, int], deltas_mm: tuple[float, float]
) -> None:
    top, left, bottom, right = 20, 30, shape[0] - 10, shape[1] - 40
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radii = (0.3 * (bottom - top), 0.35 * (right - left))
    inside = ((rows - shape[0] / 2) / radii[0]) ** 2 + ((columns - shape[1] / 2) / radii[1]) ** 2 <= 1
    drawn = np.where(inside, 200, 30).astype(np.uint8)
    items = regions(region(top, left, bottom, right, deltas_mm))
    path = save(ultrasound(drawn, SequenceOfUltrasoundRegions=items), tmp_path / "a.dcm")
    image = read_image(path)
    lesion = measure_lesion(image.tissue > 100, image.spacing_mm)
    radii_mm = [radius * delta for radius, delta in zip(radii, deltas_mm, strict=True)]
    assert lesion["area_mm2"] == pytest.approx(math.pi * radii_mm[0] * radii_mm[1], rel=0.01)
    assert lesion["long_axis_mm"] == pytest.approx(2 * max(radii_mm), rel=0.01)
    assert lesion["short_axis_mm"] == pytest.approx(2 * min(radii_mm), rel=0.01)
    wanted = 90 if radii_mm[0] > radii_mm[1] else 0  # upright or level: rows and columns in their places
    if abs(radii_mm[0] - radii_mm[1]) > 0.02 * max(radii_mm):
        assert abs(lesion["orientation_degrees"]) == pytest.approx(wanted, abs=1)
