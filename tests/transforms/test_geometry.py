# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from bundle.transforms import EnhanceContrastd, FitTod, LoadUltrasoundd, RestoreSized


def _there_and_back(image: torch.Tensor, size: tuple[int, int], letterbox: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The image at the network's size, and that image brought back as the configs bring a prediction back."""
    item = FitTod("image", size, letterbox)({"image": image})
    item["pred"] = item["image"].as_tensor().clone()
    return item["image"], RestoreSized("pred", "image", letterbox)(item)["pred"]


def _gradient(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    return ((rows + 2 * columns) / 3)[None]


@given(height=st.integers(8, 150), width=st.integers(8, 150), letterbox=st.booleans())
@settings(deadline=None, max_examples=25)
def test_inverting_leads_back_to_the_native_size(height: int, width: int, letterbox: bool) -> None:
    fitted, back = _there_and_back(MetaTensor(_gradient(height, width)), (64, 64), letterbox)
    assert fitted.shape == (1, 64, 64)
    assert back.shape == (1, height, width)


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("size", [(90, 160), (160, 90), (48, 37)])
def test_inverting_leads_back_to_the_native_place(size: tuple[int, int], letterbox: bool) -> None:
    image = _gradient(*size)
    _, back = _there_and_back(MetaTensor(image), (128, 128), letterbox)
    inner = (..., slice(8, -8), slice(8, -8))
    assert (back - image)[inner].abs().max() < 0.02


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_black() -> None:
    image = FitTod("image", (64, 64), letterbox=True)({"image": MetaTensor(torch.ones(1, 50, 100))})["image"]
    assert torch.equal(image[0, :, 32] > 0, (torch.arange(64) >= 16) & (torch.arange(64) < 48))


def test_stretching_fills_the_whole_frame() -> None:
    image = FitTod("image", (48, 64))({"image": MetaTensor(torch.ones(1, 50, 100))})["image"]
    assert image.shape == (1, 48, 64)
    assert image.min() > 0.999, "the edge is as bright as the rest"


def test_shrinking_averages_speckle_instead_of_picking_from_it() -> None:
    torch.manual_seed(0)
    image = FitTod("image", (32, 32))({"image": MetaTensor(torch.rand(1, 256, 256))})["image"]
    # Plain bilinear sampling of white noise in [0, 1] would keep a standard deviation of about 0.14.
    assert float(image.std()) < 0.06


@pytest.mark.parametrize("native", [(3, 1000), (1000, 3)])
def test_letterbox_takes_extreme_shapes_and_any_target(native: tuple[int, int]) -> None:
    fitted, back = _there_and_back(MetaTensor(torch.ones(1, *native)), (48, 64), letterbox=True)
    assert fitted.shape == (1, 48, 64)
    assert back.shape == (1, *native)


def test_a_spatial_size_that_is_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="spatial_size"):
        FitTod("image", (0, 64))


@pytest.mark.parametrize("clip_limit", [0.0, 2.0])
@pytest.mark.parametrize("letterbox", [False, True])
def test_the_whole_preprocessing_of_a_file_can_be_inverted(tmp_path: Path, clip_limit: float, letterbox: bool) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 110), np.uint8)).save(path)
    steps = [LoadUltrasoundd("image"), EnhanceContrastd("image", clip_limit), FitTod("image", (64, 64), letterbox)]
    preprocessing = Compose(steps)
    item = preprocessing({"image": str(path)})
    assert item["image"].meta["filename_or_obj"] == str(path)
    item["pred"] = torch.rand(1, 64, 64)
    back = RestoreSized("pred", "image", letterbox)(item)["pred"]
    assert back.shape == (1, 70, 110)
    assert back.min() >= 0
    assert back.max() <= 1


def test_contrast_enhancement_of_clip_limit_zero_is_off() -> None:
    image = MetaTensor(torch.rand(1, 40, 60))
    assert EnhanceContrastd("image", 0)({"image": image})["image"] is image


def test_contrast_enhancement_spreads_a_dull_image_and_keeps_its_metadata() -> None:
    dull = MetaTensor(0.4 + 0.1 * _gradient(64, 96), meta={"filename_or_obj": "dull.png"})
    image = EnhanceContrastd("image", 4.0)({"image": dull})["image"]
    assert image.shape == (1, 64, 96)
    assert image.meta["filename_or_obj"] == "dull.png"
    assert float(image.max() - image.min()) > 1.5 * float(dull.max() - dull.min())
    assert image.min() >= 0
    assert image.max() <= 1


def test_a_negative_clip_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="clip_limit"):
        EnhanceContrastd("image", -1.0)
