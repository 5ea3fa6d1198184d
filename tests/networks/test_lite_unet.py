# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.lite_unet."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bundle.networks import LiteUNet, UNet
from bundle.networks.efficientnet import DepthwiseConv2d
from tests.networks.claims import NetworkClaims

SMALL: dict[str, Any] = {"width": 0.25, "decoder_channels": (8, 8, 8, 4, 4)}
SHALLOW: dict[str, Any] = {"width": 0.25, "decoder_channels": (8, 8, 4, 4)}


class TestLiteUNet(NetworkClaims):
    network = LiteUNet
    variants: ClassVar = [SMALL, {**SMALL, "presence": True, "standardize": False}, SHALLOW]
    exporteds: ClassVar = [
        {**SMALL, "presence": True, "presence_mix": (0.5, 0.25, -1.0)},
        {**SHALLOW, "presence": True},
    ]
    odd_sizes: ClassVar = [(1, 1), (5, 7), (70, 33)]
    dropping: ClassVar = {**SMALL, "dropout": 0.5}


@pytest.fixture(scope="module")
def network() -> LiteUNet:
    """Evaluated, its batch norms having seen data: without, all images look alike to its head."""
    torch.manual_seed(0)
    network = LiteUNet(**SMALL, presence=True)
    with torch.no_grad():
        network(torch.rand(4, 1, 64, 64))
    return network.eval()


@given(size=st.tuples(st.integers(1, 70), st.integers(1, 70)))
@example(size=(1, 1))
@example(size=(1, 40))
@settings(deadline=None, max_examples=15)
def test_an_image_of_any_size_keeps_its_size_in_the_lite_unet(network: LiteUNet, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = network(torch.rand(2, 1, *size))
    assert logits.shape == (2, 2, *size)
    assert torch.isfinite(logits).all()


def test_an_image_of_256_pixels_costs_no_more_than_in_the_u_net() -> None:
    image, counted = torch.rand(1, 1, 256, 256), []
    for built in (LiteUNet(presence=True), UNet(filters=(16, 32, 64, 128), instance_norm=True)):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            built.eval()(image)
        counted.append(counter.get_total_flops())
    assert counted[0] < 0.6 * counted[1]


def test_the_lite_unet_fits_the_size_of_a_shipped_file_and_the_distilled_one_has_less_than_a_million_parameters(
    root: Path,
) -> None:
    assert sum(parameter.numel() for parameter in LiteUNet(presence=True).parameters()) * 4 < 15e6
    settings = yaml.safe_load((root / "configs/distill.yaml").read_text())
    small = LiteUNet(presence=True, width=settings["width"], decoder_channels=settings["decoder_channels"])
    assert sum(parameter.numel() for parameter in small.parameters()) < 1e6


def test_presence_is_one_more_channel_that_is_alike_everywhere(network: LiteUNet) -> None:
    image = torch.rand(3, 1, 40, 33, generator=torch.Generator().manual_seed(0))
    headless = LiteUNet(**SMALL).eval()
    headless.load_state_dict({key: value for key, value in network.state_dict().items() if "presence" not in key})
    with torch.no_grad():
        plain, both = headless(image), network(image)
    assert both.shape == (3, 2, 40, 33)
    assert torch.equal(both[:, :1], plain)
    assert torch.equal(both[:, 1], both[:, 1, :1, :1].expand(-1, 40, 33))
    assert both[:, 1, 0, 0].unique().numel() == 3


def test_presence_joins_the_head_with_the_mean_odds_of_the_map(network: LiteUNet) -> None:
    image = torch.rand(2, 1, 40, 33, generator=torch.Generator().manual_seed(0))
    mixed = LiteUNet(**SMALL, presence=True, presence_mix=(0.5, 0.25, -1.0)).eval()
    mixed.load_state_dict(network.state_dict())  # the mix is a setting, no weight
    alone = copy.deepcopy(network)
    for shift in (0.0, 200.0):  # whose odds no float32 holds
        for one in (alone, mixed):
            torch.nn.init.constant_(one.head.bias, shift)  # type: ignore[arg-type]
        with torch.no_grad():
            head, joined = alone(image), mixed(image)
        assert torch.equal(joined[:, :1], head[:, :1])
        odds = head[:, 0].double().exp().mean(dim=(1, 2)).log()
        wanted = 0.5 * head[:, 1, 0, 0] + 0.25 * odds - 1.0
        torch.testing.assert_close(joined[:, 1, 0, 0], wanted.float())


@pytest.mark.parametrize("mix", [(1.0, 0.5), (1.0, float("nan"), 0.0)])
def test_an_impossible_mix_is_refused(mix: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="presence_mix"):
        LiteUNet(**SMALL, presence=True, presence_mix=mix)


def test_the_loss_of_presence_reaches_its_head_and_the_encoder() -> None:
    trained = LiteUNet(**SMALL, presence=True).train()
    trained(torch.rand(4, 1, 32, 32))[:, 1].square().mean().backward()
    assert trained.presence_head.weight.grad.abs().sum() > 0
    assert trained.encoder.stem[0].weight.grad.abs().sum() > 0
    assert trained.head.weight.grad.abs().sum() == 0


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 1)])
def test_a_depthwise_convolution_trains_in_bfloat16_with_the_gradients_of_float32(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    convolution = DepthwiseConv2d(16, kernel, stride).train()
    image = torch.rand(2, 16, 12, 10).bfloat16()
    gradients = []
    for low in (False, True):
        convolution.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            features = convolution(image if low else image.float())
        assert (features.dtype == torch.bfloat16) is low
        features.float().square().mean().backward()
        gradients.append(convolution.weight.grad.clone())
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=2e-2)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"decoder_channels": (8, 8)}, "decoder_channels"),
        ({"decoder_channels": (8, 8, 8, 8, 0)}, "decoder_channels"),
        ({"width": 0.0}, "width"),
    ],
)
def test_impossible_settings_of_the_lite_unet_are_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LiteUNet(**wrong)
