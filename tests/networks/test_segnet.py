# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.segnet."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.visualize import GradCAM

from bundle.networks import SegNet
from bundle.networks.segnet import unpool
from tests.networks.claims import NetworkClaims

VARIANTS: list[dict[str, Any]] = [
    {"filters": (4, 8)},
    {"filters": (4, 8), "decoder": False, "batch_norm": True},
    {"filters": (4, 8, 8), "in_channels": 2, "batch_norm": True, "standardize": True},
    {"filters": (4, 8), "in_channels": 2, "decoder": False, "standardize": True, "dropout": 0.0},
]


class TestSegNet(NetworkClaims):
    network = SegNet
    variants = VARIANTS
    exporteds = VARIANTS[2:]
    size = (21, 34)
    odd_sizes: ClassVar = [(4, 4), (5, 7), (31, 18)]
    dropping: ClassVar = {"filters": (4, 8)}


def _network(**settings: Any) -> SegNet:
    """An evaluated network whose batch norms have seen data and whose logits are not tiny."""
    torch.manual_seed(0)
    network = SegNet(**settings)
    with torch.no_grad():
        network(torch.rand(4, settings.get("in_channels", 1), 32, 32))
        network.head.weight.mul_(10)
    return network.eval()


def _image(settings: dict[str, Any], batch: int = 2, height: int = 21, width: int = 34) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, settings.get("in_channels", 1), height, width, generator=generator)


@given(height=st.integers(2, 17), width=st.integers(2, 17), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_unpooling_is_bit_equal_to_torchs(height: int, width: int, seed: int) -> None:
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    pooled, indices = F.max_pool2d(image, 2, return_indices=True)
    expected = nn.MaxUnpool2d(2)(pooled, indices, output_size=[height, width])
    assert torch.equal(unpool(pooled, indices, height, width), expected)


@pytest.mark.parametrize("settings", VARIANTS)
def test_an_image_gives_one_logit_and_features_of_the_promised_size(settings: dict[str, Any]) -> None:
    network, image = _network(**settings), _image(settings, batch=3)
    assert network(image).shape == (3, 1)
    filters, factor = settings["filters"], 2 ** len(settings["filters"])
    expected = (
        (3, filters[0], 21, 34) if settings.get("decoder", True) else (3, filters[-1], 21 // factor, 34 // factor)
    )
    assert network.features(image).shape == expected
    torch.testing.assert_close(network.head(network.features(image).mean(dim=(2, 3))), network(image))


def test_the_papers_network_mirrors_its_encoder() -> None:
    shapes = [tuple(p.shape[:2]) for p in SegNet().parameters() if p.dim() == 4]
    assert shapes[:8] == [(16, 1), (16, 16), (32, 16), (32, 32), (64, 32), (64, 64), (64, 64), (64, 64)]
    assert shapes[8:] == [(64, 64), (64, 64), (32, 64), (32, 32), (16, 32), (16, 16), (16, 16), (16, 16)]


@given(height=st.integers(4, 30), width=st.integers(4, 30))
@settings(deadline=None, max_examples=25)
def test_odd_sizes_are_taken(height: int, width: int) -> None:
    network = _network(filters=(2, 4))
    assert torch.isfinite(network(torch.rand(1, 1, height, width))).all()
    assert network.features(torch.rand(1, 1, height, width)).shape[-2:] == (height, width)


@pytest.mark.parametrize("size", [(3, 40), (40, 3), (1, 1)])
def test_an_image_too_small_to_be_pooled_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 4"):
        _network(filters=(2, 4))(torch.rand(1, 1, *size))


def test_standardize_ignores_gain_and_offset_of_the_image_but_not_of_the_mask() -> None:
    network = _network(filters=(4, 8), in_channels=2, standardize=True)
    image = _image({"in_channels": 2})
    brighter, fainter_mask = image.clone(), image.clone()
    brighter[:, 0] = 0.4 * image[:, 0] + 0.3
    fainter_mask[:, 1] = 0.4 * image[:, 1]
    torch.testing.assert_close(network(brighter), network(image), atol=1e-4, rtol=0)
    assert (network(fainter_mask) - network(image)).abs().max() > 1e-3


@pytest.mark.parametrize("standardize", [False, True])
def test_a_black_image_gives_a_finite_logit(standardize: bool) -> None:
    assert torch.isfinite(_network(filters=(4, 8), standardize=standardize)(torch.zeros(1, 1, 16, 16))).all()


def test_the_untrained_papers_network_tells_images_apart() -> None:
    spread = []
    for seed in range(5):
        torch.manual_seed(seed)
        with torch.no_grad():
            spread.append(SegNet().eval().features(torch.rand(1, 1, 64, 64)).std())
    # 0.03 with He initialisation that does not count the zeros of unpooling.
    assert torch.stack(spread).mean() > 0.2


@pytest.mark.parametrize("decoder", [True, False])
def test_grad_cam_finds_the_feature_map_by_its_name(decoder: bool) -> None:
    network, image = _network(filters=(4, 8), decoder=decoder), _image({})
    heat = GradCAM(network, target_layers="feature_map")(image, class_idx=0)
    assert heat.shape == image.shape
    assert np.isfinite(np.asarray(heat)).all()
    assert np.ptp(np.asarray(heat)) > 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"filters": ()}, "filters"), ({"filters": (8, 0)}, "filters"), ({"dropout": 1.0}, "dropout")],
)
def test_impossible_settings_of_segnet_are_refused_by_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SegNet(**settings)
