# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.unet."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundle.networks import UNet
from bundle.networks.unet import ImageNorm

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
VARIANTS: list[dict[str, Any]] = [
    {"filters": (4, 8)},
    {"filters": (4, 8), "batch_norm": False, "standardize": False, "context": 5},
    {"filters": (4, 8, 8), "dropout": 0.5, "out_channels": 2, "in_channels": 3},
]


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


@pytest.mark.parametrize("settings", VARIANTS)
def test_every_parameter_gets_a_finite_gradient(settings: dict[str, Any]) -> None:
    network = UNet(**settings).train()
    network(_image(settings, height=21, width=33)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("way", ["script", "trace"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_saved_torchscript_equals_eager(settings: dict[str, Any], way: str) -> None:
    network = _network(**settings)
    image = _image(settings)
    converted = torch.jit.script(network) if way == "script" else torch.jit.trace(network, image)
    buffer = io.BytesIO()
    torch.jit.save(converted, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(image), network(image), atol=1e-5, rtol=0)


def test_scripted_network_takes_sizes_that_it_was_not_made_with() -> None:
    network = _network(filters=(4, 8), context=2)
    scripted = torch.jit.script(network)
    for size in ((1, 1), (5, 7), (31, 18)):
        image = torch.rand(1, 1, *size)
        torch.testing.assert_close(scripted(image), network(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", VARIANTS)
def test_torch_export_equals_eager_for_other_batches_than_its_example(settings: dict[str, Any]) -> None:
    network = _network(**settings)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (_image(settings),), dynamic_shapes={"image": {0: batch}})
    for size in (1, 3):
        image = _image(settings, batch=size)
        torch.testing.assert_close(program.module()(image), network(image), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", VARIANTS[:2])
def test_onnx_equals_eager_for_other_batches_than_its_example(settings: dict[str, Any], tmp_path: Path) -> None:
    network, path = _network(**settings), tmp_path / "network.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(
        *(network, (_image(settings),), path), dynamo=True, verbose=False, dynamic_shapes={"image": {0: batch}}
    )
    session = onnxruntime.InferenceSession(path)
    for size in (1, 3):
        image = _image(settings, batch=size)
        logits = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
        np.testing.assert_allclose(logits, network(image).detach().numpy(), atol=1e-5, rtol=0)


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


@given(gain=st.floats(0.3, 3.0), offset=st.floats(-2.0, 2.0))
@settings(deadline=None, max_examples=20)
def test_standardize_makes_gain_and_offset_of_the_image_irrelevant(gain: float, offset: float) -> None:
    network, image = _network(filters=(4, 8)), _image({})
    with torch.no_grad():
        expected, changed = network(image), network(gain * image + offset)
    # Not to the last digit: the guard against flat images adds 0.001 to the standard deviation.
    assert (changed - expected).abs().max() < 0.02 * expected.abs().max()


def test_standardize_looks_at_each_image_alone() -> None:
    network = _network(filters=(4, 8))
    image = _image({}, batch=3) * torch.tensor([0.1, 0.5, 1.0])[:, None, None, None]
    with torch.no_grad():
        together, alone = network(image), torch.cat([network(one[None]) for one in image])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_flat_image_gives_finite_logits(value: float) -> None:
    assert torch.isfinite(_network(filters=(4, 8))(torch.full((1, 1, 16, 16), value))).all()


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


@pytest.mark.parametrize("settings", VARIANTS)
def test_a_saved_state_dict_restores_the_same_network(settings: dict[str, Any]) -> None:
    network, buffer = _network(**settings), io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    restored = UNet(**settings).eval()
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    image = _image(settings)
    assert torch.equal(restored(image), network(image))


def test_dropout_acts_in_training_only() -> None:
    network, image = _network(filters=(4, 8), dropout=0.5), _image({})
    assert torch.equal(network(image), network(image))
    network.train()
    assert not torch.equal(network(image), network(image))


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
