# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.unet."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundle.networks import UNet
from bundle.networks.unet import ImageNorm
from tests.networks.claims import NetworkClaims

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
VARIANTS: list[dict[str, Any]] = [
    {"filters": (4, 8)},
    {"filters": (4, 8), "batch_norm": False, "standardize": False, "context": 5},
    {"filters": (4, 8, 8), "dropout": 0.5, "out_channels": 2, "in_channels": 3},
]


class TestUNet(NetworkClaims):
    network = UNet
    variants = VARIANTS
    exporteds = VARIANTS[:2]
    odd_sizes: ClassVar = [(1, 1), (5, 7), (31, 18)]
    dropping: ClassVar = {"filters": (4, 8), "dropout": 0.5}


def _network(**settings: Any) -> UNet:
    """An evaluated network whose batch norms have seen data."""
    torch.manual_seed(0)
    network = UNet(**settings)
    with torch.no_grad():
        network(torch.rand(4, settings.get("in_channels", 1), 32, 32))
    return network.eval()


def _image(settings: dict[str, Any], batch: int = 2, height: int = 24, width: int = 40) -> torch.Tensor:
    return torch.rand(batch, settings.get("in_channels", 1), height, width, generator=torch.Generator().manual_seed(1))


def test_the_papers_network_has_31_030_593_parameters() -> None:
    network = UNet(filters=(64, 128, 256, 512), batch_norm=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_593


@pytest.fixture(scope="module", params=[0, 3])
def network_of_any_context(request: pytest.FixtureRequest) -> UNet:
    return _network(filters=(2, 4, 4), context=request.param)


@given(size=SIZES)
@example(size=(1, 1))
@example(size=(5, 7))
@example(size=(1, 40))
@settings(deadline=None, max_examples=30)
def test_an_image_of_any_size_keeps_its_size(network_of_any_context: UNet, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = network_of_any_context(torch.rand(2, 1, *size))
    assert logits.shape == (2, 1, *size)
    assert torch.isfinite(logits).all()


def test_context_is_a_mirrored_margin() -> None:
    network = _network(filters=(4, 8), batch_norm=False, standardize=False, context=16)
    plain = copy.deepcopy(network)
    plain.context = 0
    image = _image({}, height=96, width=112)
    with torch.no_grad():
        expected = plain(F.pad(image, [16, 16, 16, 16], mode="reflect"))[:, :, 16:-16, 16:-16]
        with_context, without = network(image), plain(image)
    torch.testing.assert_close(with_context, expected, atol=1e-5, rtol=0)
    # Beyond the receptive field of two levels, about 30 pixels, the border is not felt.
    inside = (..., slice(32, -32), slice(32, -32))
    torch.testing.assert_close(with_context[inside], without[inside], atol=1e-5, rtol=0)
    assert (with_context - without)[..., 0, :].abs().max() > 1e-3


def test_an_image_smaller_than_its_margin_repeats_its_edge() -> None:
    network = _network(filters=(4, 8), batch_norm=False, standardize=False)
    image = torch.rand(1, 1, 2, 9)
    with torch.no_grad():
        expected = network(F.pad(image, [0, 3, 0, 2], mode="replicate"))[:, :, :2, :9]
        torch.testing.assert_close(network(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"filters": ()}, "filters"),
        ({"filters": (8, 0)}, "filters"),
        ({"filters": (8, -4)}, "filters"),
        ({"context": -1}, "context"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        UNet(**settings)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_instance_norm_sees_each_image_alone_in_training_too() -> None:
    torch.manual_seed(0)
    network = UNet(filters=(4, 8), instance_norm=True).train()
    images = torch.rand(3, 1, 24, 40)
    together = network(images)
    assert torch.allclose(together[:1], network(images[:1]), atol=1e-5)
    assert torch.allclose(together, network.eval()(images), atol=1e-5)
    assert not any(name.endswith("running_mean") for name in network.state_dict())
    scripted = torch.jit.script(network)
    assert torch.allclose(scripted(images), together, atol=1e-5)
    traced = torch.jit.trace(network, images[:1])  # with one image, used with three
    assert torch.allclose(traced(images), together, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 5), (1, 1)])
def test_image_norm_is_the_instance_norm_of_torch(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = ImageNorm(4).double()
    torch.nn.init.normal_(ours.weight)
    torch.nn.init.normal_(ours.bias)
    image = torch.randn(3, 4, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    first, second = image.clone().requires_grad_(), image.clone().requires_grad_()
    expected = torch.instance_norm(second, ours.weight, ours.bias, None, None, True, 0.0, ours.eps, False)
    assert torch.allclose(ours(first), expected)
    ours(first).square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(first.grad, second.grad)


def test_an_image_of_one_pixel_passes_an_instance_normalised_network() -> None:
    network = UNet(filters=(4, 8), instance_norm=True)
    assert torch.isfinite(network(torch.rand(2, 1, 1, 1))).all()
    assert torch.isfinite(network.eval()(torch.rand(1, 1, 3, 1))).all()
