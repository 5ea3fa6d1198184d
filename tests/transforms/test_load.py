# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.load."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from PIL import Image

from bundle.errors import InputError
from bundle.readers import read_image
from bundle.transforms import FitTod, LoadLesionMaskd, LoadProbabilityd, LoadUltrasoundd, RestoreSized
from bundle.transforms.masks import merge_masks


def _write(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return _write(tmp_path / "image.png", np.random.default_rng(0).integers(0, 256, (30, 50), np.uint8))


def test_a_non_square_image_comes_as_height_times_width_in_zero_to_one(picture: Path) -> None:
    image = LoadUltrasoundd("image")({"image": picture, "class": "benign"})["image"]
    assert isinstance(image, MetaTensor)
    assert (image.shape, image.dtype) == ((1, 30, 50), torch.float32)
    np.testing.assert_allclose(image[0].numpy(), np.asarray(Image.open(picture)) / 255.0, atol=1e-6)


def test_metadata_tells_the_file_the_size_and_that_the_spacing_is_unknown(picture: Path) -> None:
    meta = LoadUltrasoundd("image")({"image": str(picture)})["image"].meta
    assert meta["filename_or_obj"] == str(picture)
    assert tuple(meta["spatial_shape"]) == (30, 50)
    assert np.isnan(meta["spacing_mm"]).all()
    assert meta["warnings"] == ""


def test_a_blank_screen_has_an_empty_map_and_a_picture_keeps_its_own(tmp_path: Path, picture: Path) -> None:
    blank = _write(tmp_path / "blank.png", np.zeros((30, 50), np.uint8))
    for path, kept in ((blank, False), (picture, True)):
        item = FitTod("image", (16, 16))(LoadUltrasoundd("image")({"image": path}))
        assert bool(item["image"].meta["unusable"]) is not kept
        back = RestoreSized("pred", "image")({**item, "pred": torch.full((1, 16, 16), 0.9)})["pred"]
        assert back.shape == (1, 30, 50)
        assert torch.all(back > 0.5 if kept else back == 0)


def test_colour_is_told_in_the_warnings(tmp_path: Path) -> None:
    path = _write(tmp_path / "doppler.png", np.full((8, 8, 3), (200, 30, 30), np.uint8))
    assert "coloured" in LoadUltrasoundd("image")({"image": path})["image"].meta["warnings"]


def test_a_batch_names_each_of_its_files(tmp_path: Path) -> None:
    names = [str(_write(tmp_path / f"{name}.png", np.zeros((6, 9), np.uint8))) for name in "ab"]
    loader = DataLoader(Dataset([{"image": name} for name in names], LoadUltrasoundd("image")), batch_size=2)
    batch = next(iter(loader))["image"]
    assert batch.shape == (2, 1, 6, 9)
    assert batch.meta["filename_or_obj"] == names


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for transform in (LoadUltrasoundd("image"), LoadLesionMaskd("image")):
        with pytest.raises(InputError, match=r"torn\.png"):
            transform({"image": tmp_path / "torn.png"})


@pytest.fixture
def masks(tmp_path: Path) -> list[Path]:
    first, second = np.zeros((12, 20), np.uint8), np.zeros((12, 20), np.uint8)
    first[2:5, 3:9] = 255
    second[6:10, 8:18] = 1
    return [_write(tmp_path / "a_mask.png", first), _write(tmp_path / "a_mask_1.png", second)]


def test_one_mask_file_is_read_as_zero_and_one(masks: list[Path]) -> None:
    for given in (masks[0], str(masks[0]), masks[:1]):
        label = LoadLesionMaskd("label")({"label": given})["label"]
        assert (label.shape, label.dtype) == ((1, 12, 20), torch.float32)
        assert label.unique().tolist() == [0, 1]
        assert int(label.sum()) == 3 * 6


def test_several_mask_files_are_merged_by_or(masks: list[Path]) -> None:
    label = LoadLesionMaskd("label")({"label": [str(path) for path in masks]})["label"]
    assert label.unique().tolist() == [0, 1]
    assert int(label.sum()) == 3 * 6 + 4 * 10
    assert np.array_equal(label[0].numpy() > 0, merge_masks(masks[0]) | merge_masks(masks[1]))


def test_no_mask_at_all_stands_for_no_lesion(tmp_path: Path) -> None:
    image = tmp_path / "normal.png"
    Image.fromarray(np.full((30, 50), 99, np.uint8)).save(image)
    item = LoadLesionMaskd("label")(LoadUltrasoundd("image")({"image": str(image), "label": []}))
    assert item["label"].shape == (1, 30, 50)
    assert not item["label"].any()
    with pytest.raises(InputError, match="no mask"):
        merge_masks([])


def test_masks_of_two_sizes_are_refused_with_both_names(masks: list[Path], tmp_path: Path) -> None:
    other = _write(tmp_path / "a_mask_2.png", np.zeros((12, 21), np.uint8))
    with pytest.raises(InputError, match=r"a_mask_2\.png.*a_mask\.png"):
        LoadLesionMaskd("label")({"label": [masks[0], other]})


def test_a_missing_key_is_passed_over_only_when_that_is_allowed(masks: list[Path]) -> None:
    assert LoadLesionMaskd("label", allow_missing_keys=True)({"image": 1}) == {"image": 1}
    with pytest.raises(KeyError):
        LoadLesionMaskd("label")({"image": 1})


def test_the_record_that_was_given_is_not_changed(picture: Path) -> None:
    record: dict[Hashable, Any] = {"image": picture}
    LoadUltrasoundd("image")(record)
    assert record == {"image": picture}


def test_masks_of_the_whole_frame_are_cut_to_the_region_of_their_image(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_image(picture)
    monkeypatch.setattr("bundle.transforms.load.read_image", lambda path: replace(whole, region=(4, 10, 24, 40)))
    mask = np.random.default_rng(1).integers(0, 2, (30, 50)).astype(np.uint8) * 255
    record = {"image": picture, "label": _write(tmp_path / "mask.png", mask), "probability": tmp_path / "mask.png"}
    loaded = LoadProbabilityd("probability")(LoadLesionMaskd("label")(LoadUltrasoundd("image")(record)))
    assert loaded["image"].shape == loaded["label"].shape == loaded["probability"].shape == (1, 20, 30)
    np.testing.assert_array_equal(loaded["image"][0].numpy(), whole.pixels[4:24, 10:40] / np.float32(255))
    np.testing.assert_array_equal(loaded["label"][0].numpy(), mask[4:24, 10:40] / 255)
    np.testing.assert_array_equal(loaded["probability"][0].numpy(), mask[4:24, 10:40] / 255)


def test_a_map_of_a_region_comes_back_at_the_size_of_the_frame(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_image(picture)
    monkeypatch.setattr("bundle.transforms.load.read_image", lambda path: replace(whole, region=(4, 10, 24, 40)))
    image = FitTod("image", (64, 64))(LoadUltrasoundd("image")({"image": picture}))["image"]
    restored = RestoreSized("pred")({"image": image, "pred": torch.ones(1, 64, 64)})["pred"]
    expected = np.zeros((1, 30, 50))
    expected[:, 4:24, 10:40] = 1
    np.testing.assert_allclose(restored.numpy(), expected, atol=1e-6)
