# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.lesion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data import DataLoader, Dataset, MetaTensor
from PIL import Image
from scipy import ndimage

from bundle.errors import InputError, UserError
from bundle.transforms import CropLesiond, LoadProbabilityd, OutlineLesiond, find_lesion, place_square, quantise
from bundle.transforms.lesion import Box, cut_mirrored, split_presence

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
MAPS = hnp.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 3, 90, 127, 128, 200, 255]))
THRESHOLDS = st.sampled_from([0.05, 0.5, 0.6, 1.0])
BOXES = st.tuples(*[st.integers(0, 40), st.integers(0, 60), st.integers(1, 50), st.integers(1, 50)])


def _map(*lesions: tuple[Box, int], shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    probability = np.zeros(shape, np.uint8)
    for (top, left, bottom, right), value in lesions:
        probability[top:bottom, left:right] = value
    return probability


def _crop(probability: np.ndarray, image: torch.Tensor | None = None, **settings: Any) -> dict[Any, Any]:
    given = torch.from_numpy(probability / np.float32(255))[None]
    if image is None:
        image = torch.rand(1, *probability.shape, generator=torch.Generator().manual_seed(0))
    return CropLesiond("image", **settings)({"image": image, "probability": given})


def test_every_level_of_a_png_survives_loading_and_quantising(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    Image.fromarray(levels).save(tmp_path / "map.png")
    loaded = LoadProbabilityd("probability")({"probability": str(tmp_path / "map.png")})["probability"]
    assert (loaded.shape, loaded.dtype, float(loaded.max())) == ((1, 8, 32), torch.float32, 1.0)
    assert np.array_equal(quantise(loaded[0]), levels)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        quantise(np.array([[0.5, value]]))


@given(probability=MAPS, threshold=THRESHOLDS)
@settings(deadline=None)
def test_the_region_is_one_filled_component_within_what_supports_it(probability: np.ndarray, threshold: float) -> None:
    region = find_lesion(probability, threshold)
    height, width = probability.shape
    top, left, bottom, right = region.box
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width
    rows, columns = np.nonzero(region.mask)
    assert region.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    assert ndimage.label(region.mask, np.ones((3, 3)))[1] == 1
    assert np.array_equal(ndimage.binary_fill_holes(region.mask), region.mask)
    reached = probability / 255 >= threshold - 1e-9
    assert region.is_fallback == (not reached.any())
    assert region.components == ndimage.label(reached, np.ones((3, 3)))[1]
    assert len(region.others) == max(0, region.components - 1)
    if not region.is_fallback:
        assert (region.mask <= ndimage.binary_fill_holes(reached)).all()
        assert (region.mask & reached).any()


@given(probability=MAPS, threshold=THRESHOLDS, rows=st.integers(0, 5), columns=st.integers(0, 9))
@settings(deadline=None)
def test_a_shifted_map_gives_the_shifted_region(
    probability: np.ndarray, threshold: float, rows: int, columns: int
) -> None:
    if not probability.any():
        return  # the whole image, which does not shift
    region = find_lesion(np.pad(probability, ((0, 5), (0, 9))), threshold)
    shifted = find_lesion(np.pad(probability, ((rows, 5 - rows), (columns, 9 - columns))), threshold)
    assert shifted.box == tuple(np.add(region.box, (rows, columns, rows, columns)))
    assert np.array_equal(shifted.mask, np.roll(region.mask, (rows, columns), (0, 1)))
    assert (shifted.components, shifted.is_fallback) == (region.components, region.is_fallback)


def test_the_largest_of_several_lesions_is_taken_and_the_others_are_told() -> None:
    region = find_lesion(_map(((2, 3, 6, 8), 255), ((10, 20, 30, 50), 140), ((35, 0, 40, 4), 255)))
    assert region.box == (10, 20, 30, 50)
    assert (region.components, region.others, region.is_fallback) == (3, ((2, 3, 6, 8), (35, 0, 40, 4)), False)


def test_of_equally_large_lesions_the_more_probable_is_taken() -> None:
    boxes: list[Box] = [(2, 3, 6, 8), (20, 30, 24, 35), (30, 3, 34, 8)]
    assert find_lesion(_map((boxes[0], 200), (boxes[1], 201), (boxes[2], 200))).box == boxes[1]


def test_pixels_that_touch_at_a_corner_are_one_lesion() -> None:
    assert find_lesion(np.eye(7, dtype=np.uint8) * 255).components == 1


def test_a_hole_belongs_to_the_lesion() -> None:
    assert find_lesion(_map(((5, 5, 20, 25), 255), ((9, 9, 12, 12), 0))).mask.sum() == 15 * 20


@pytest.mark.parametrize(("threshold", "level"), [(0.5, 128), (0.6, 153), (0.2, 51), (1.0, 255), (0.0001, 1)])
def test_a_pixel_that_reaches_the_threshold_counts(threshold: float, level: int) -> None:
    assert not find_lesion(_map(((1, 1, 4, 4), level)), threshold).is_fallback
    assert find_lesion(_map(((1, 1, 4, 4), level - 1)), threshold).is_fallback


def test_nothing_above_the_threshold_falls_back_to_the_most_probable_blob() -> None:
    region = find_lesion(_map(((2, 2, 30, 30), 49), ((10, 40, 15, 50), 50), ((11, 42, 13, 44), 100)))
    assert (region.box, region.components, region.is_fallback) == ((10, 40, 15, 50), 0, True)


def test_a_map_of_zeros_falls_back_to_the_whole_image() -> None:
    region = find_lesion(_map())
    assert (region.box, region.components, region.is_fallback) == ((0, 0, 40, 60), 0, True)
    assert region.mask.all()


@given(box=BOXES, margin=st.floats(0, 2), min_size=st.integers(1, 80))
@settings(deadline=None)
def test_the_square_is_square_large_enough_and_centred(
    box: tuple[int, int, int, int], margin: float, min_size: int
) -> None:
    box = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    top, left, bottom, right = place_square(box, margin, min_size)
    longer = max(box[2] - box[0], box[3] - box[1])
    assert bottom - top == right - left >= max(min_size, (1 + 2 * margin) * longer - 1e-6)
    assert bottom - top <= max(min_size, (1 + 2 * margin) * longer + 2)
    assert abs((top + bottom) - (box[0] + box[2])) <= 1
    assert abs((left + right) - (box[1] + box[3])) <= 1


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    corner=st.tuples(st.integers(-30, 8), st.integers(-30, 8)),
    side=st.integers(31, 60),
)
@settings(deadline=None)
def test_the_cut_equals_a_cut_from_the_mirrored_image(
    shape: tuple[int, int], corner: tuple[int, int], side: int
) -> None:
    image = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    top, left = corner
    cut = cut_mirrored(image, (top, left, top + side, left + side))
    expected = np.pad(image, 70, mode="reflect")
    assert np.array_equal(cut, expected[70 + top : 70 + top + side, 70 + left : 70 + left + side])


def test_masked_keeps_the_frame_and_blackens_all_but_the_lesion() -> None:
    out = _crop(_map(((10, 20, 30, 50), 255)), torch.ones(1, 40, 60), variant="masked", spatial_size=(80, 30))
    assert out["image"].shape == (1, 80, 30)
    assert (out["image"][0, 24:56, 12:23] == 1).all()
    assert out["image"].sum() == pytest.approx(80 * 30 * (20 * 30) / (40 * 60), rel=0.02)
    assert out["image"][0, :16].max() == 0


def test_crop_at_its_own_size_shows_the_image_around_the_lesion() -> None:
    image = torch.rand(1, 100, 140)
    out = _crop(
        _map(((30, 60, 50, 70), 255), shape=(100, 140)), image, variant="crop", margin=0.5, spatial_size=(40, 40)
    )
    assert torch.equal(out["image"], image[:, 20:60, 45:85])


def test_crop_with_mask_carries_the_soft_probability() -> None:
    probability = _map(((20, 50, 60, 110), 100), ((30, 60, 50, 70), 200), shape=(100, 140))
    image = torch.rand(1, 100, 140)
    out = _crop(probability, image, margin=0.5, spatial_size=(40, 40))
    assert out["image"].shape == (2, 40, 40)
    assert torch.equal(out["image"][0], image[0, 20:60, 45:85])
    torch.testing.assert_close(out["image"][1], torch.from_numpy(probability[20:60, 45:85] / np.float32(255)))


@pytest.mark.parametrize(
    "probability",
    [
        _map(((0, 0, 8, 9), 255)),
        _map(((30, 50, 40, 60), 255)),
        _map(((39, 59, 40, 60), 255)),
        _map(((0, 0, 40, 60), 255)),
        _map(),
        _map(((5, 5, 9, 9), 40)),
        _map(((0, 0, 1, 1), 255), shape=(1, 1)),
        _map(((0, 3, 1, 6), 255), shape=(1, 90)),
    ],
    ids=[
        "corner",
        "other corner",
        "one pixel",
        "whole image",
        "none",
        "weak",
        "image of one pixel",
        "image of one row",
    ],
)
@pytest.mark.parametrize("variant", ["masked", "crop", "crop+mask"])
def test_any_lesion_gives_an_image_of_the_wanted_size_in_range(probability: np.ndarray, variant: str) -> None:
    out = _crop(probability, variant=variant, spatial_size=(24, 32))
    assert out["image"].shape == (2 if variant == "crop+mask" else 1, 24, 32)
    assert out["image"].dtype == torch.float32
    assert 0 <= out["image"].min() <= out["image"].max() <= 1


def test_a_float_map_and_its_png_give_bit_equal_crops(tmp_path: Path) -> None:
    probability = torch.rand(50, 70, generator=torch.Generator().manual_seed(3)) ** 2
    Image.fromarray(quantise(probability)).save(tmp_path / "map.png")
    image, crop = torch.rand(1, 50, 70), CropLesiond("image", threshold=0.7)
    in_memory = crop({"image": image, "probability": probability[None]})
    by_file = crop(LoadProbabilityd("probability")({"image": image, "probability": tmp_path / "map.png"}))
    assert torch.equal(in_memory["image"], by_file["image"])
    assert torch.equal(in_memory["lesion"]["box"], by_file["lesion"]["box"])


def test_what_was_found_is_collated_and_the_metadata_stays() -> None:
    maps = [_map(((10, 20, 30, 50), 255), ((0, 0, 3, 3), 255)), _map()]
    items = [
        {
            "image": MetaTensor(torch.rand(1, 40, 60), meta={"filename_or_obj": f"case {i}.png"}),
            "probability": torch.from_numpy(probability / np.float32(255))[None],
        }
        for i, probability in enumerate(maps)
    ]
    dataset = Dataset(items, CropLesiond("image", spatial_size=(16, 16)))
    (batch,) = DataLoader(dataset, batch_size=2)
    assert batch["lesion"]["box"].tolist() == [[10, 20, 30, 50], [0, 0, 40, 60]]
    assert batch["lesion"]["components"].tolist() == [2, 0]
    assert batch["lesion"]["is_fallback"].tolist() == [0, 1]
    assert batch["image"].meta["filename_or_obj"] == ["case 0.png", "case 1.png"]


def test_a_map_of_another_size_names_the_image() -> None:
    image = MetaTensor(torch.rand(1, 40, 61), meta={"filename_or_obj": "case 7.png"})
    with pytest.raises(UserError, match=r"case 7\.png"):
        _crop(_map(), image)


def test_a_coloured_overlay_is_no_probability_map(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (230, 159, 0)).save(tmp_path / "overlay.png")
    with pytest.raises(InputError, match=r"overlay\.png.*no probability map"):
        LoadProbabilityd("probability")({"probability": tmp_path / "overlay.png"})


def test_a_list_of_masks_is_the_oracles_map(tmp_path: Path) -> None:
    for name, columns in (("a.png", slice(0, 2)), ("b.png", slice(5, 6))):
        mask = np.zeros((4, 6), np.uint8)
        mask[:, columns] = 1
        Image.fromarray(mask).save(tmp_path / name)
    loaded = LoadProbabilityd("probability")({"probability": [tmp_path / "a.png", tmp_path / "b.png"]})["probability"]
    assert loaded[0, 0].tolist() == [1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"variant": "box"}, "variant"),
        ({"threshold": 0.0}, "threshold"),
        ({"margin": -0.1}, "margin"),
        ({"min_size": 0}, "min_size"),
        ({"spatial_size": (0, 4)}, "spatial_size"),
    ],
)
def test_impossible_settings_of_the_crop_are_refused_by_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        CropLesiond("image", **settings)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_second_channel_of_the_segmenter_is_the_probability_that_there_is_a_lesion(channels: int) -> None:
    head = torch.full((1, 5, 6), 0.25)
    head[:, :2] = 0  # outside the region of the frame that the network saw
    given = torch.cat([torch.rand(1, 5, 6), head])[:channels]
    levels, presence = split_presence(given)
    assert np.array_equal(levels, given[0].numpy())
    assert presence == (0.25 if channels == 2 else None)


@pytest.mark.parametrize(("none_below", "outlined"), [(0.25, True), (0.26, False)])
def test_nothing_is_outlined_where_a_lesion_is_less_probable_than_the_limit(none_below: float, outlined: bool) -> None:
    given = torch.cat([torch.tensor([[[0.4, 0.5, 0.9]]]), torch.full((1, 1, 3), 0.25)])
    found = OutlineLesiond("pred", 0.5, none_below)({"pred": MetaTensor(given)})
    assert found["pred"].tolist() == [[[0, int(outlined), int(outlined)]]]
    assert found["pred"].dtype == torch.uint8
    assert found["lesion_probability"] == 0.25
    assert torch.equal(found["probability"], given[:1])  # what the network saw stays to be looked at
    alone = OutlineLesiond("pred", 0.5, none_below)({"pred": given[:1]})
    assert (alone["pred"].tolist(), alone["lesion_probability"]) == ([[[0, 1, 1]]], None)


@settings(deadline=None)
@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=16), elements=st.sampled_from([0, 255])
    )
)
def test_components_and_their_boxes_are_those_of_scipy_from_the_top_down(probability: np.ndarray) -> None:
    labels, found = ndimage.label(probability, structure=np.ones((3, 3)))
    if not found:
        return
    region = find_lesion(probability)
    boxes = [(r.start, c.start, r.stop, c.stop) for r, c in ndimage.find_objects(labels)]
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    assert (region.components, region.box) == (found, boxes[largest])
    assert list(region.others) == [box for index, box in enumerate(boxes) if index != largest]
    assert np.array_equal(region.mask, ndimage.binary_fill_holes(labels == largest + 1))
