# SPDX-License-Identifier: Apache-2.0
"""What every network of the bundle promises; a test module inherits it and names its network and variants."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn as nn

Settings = dict[str, Any]


class NetworkClaims:
    """Claims about `network`, built with each of `variants`."""

    network: ClassVar[type[nn.Module]]
    variants: ClassVar[list[Settings]]
    exporteds: ClassVar[list[Settings]]
    """Those of the variants that are exported to ONNX, which takes seconds."""
    size: ClassVar[tuple[int, int]] = (24, 40)
    """(H, W) of the images."""
    odd_sizes: ClassVar[list[tuple[int, int]]] = [(5, 7), (31, 18)]
    in_channels: ClassVar[int] = 1
    """What the network takes where a variant does not say."""
    dropping: ClassVar[Settings]
    """A variant with dropout."""

    @pytest.fixture
    def deterministic(self) -> Iterator[None]:
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)

    def build(self, settings: Settings) -> nn.Module:
        """A network in evaluation whose batch norms have seen data and whose logits are not tiny."""
        torch.manual_seed(0)
        network = self.network(**settings)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0  # after one batch a deep network would otherwise say the same of every image
        with torch.no_grad():
            network(torch.rand(8, settings.get("in_channels", self.in_channels), 64, 64))
            network.head.weight.mul_(10)
        return network.eval()

    def image(self, settings: Settings, batch: int = 2, size: tuple[int, int] | None = None) -> torch.Tensor:
        channels = settings.get("in_channels", self.in_channels)
        return torch.rand(batch, channels, *(size or self.size), generator=torch.Generator().manual_seed(1))

    @pytest.mark.usefixtures("deterministic")
    def test_every_parameter_gets_a_finite_gradient_in_deterministic_mode(self, variant: Settings) -> None:
        torch.manual_seed(0)
        network = self.network(**variant).train()
        network(self.image(variant, batch=8)).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name

    @pytest.mark.parametrize("way", ["script", "trace"])
    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
    def test_saved_torchscript_equals_eager(self, variant: Settings, way: str) -> None:
        network, image = self.build(variant), self.image(variant)
        converted = torch.jit.script(network) if way == "script" else torch.jit.trace(network, image)
        buffer = io.BytesIO()
        torch.jit.save(converted, buffer)
        buffer.seek(0)
        torch.testing.assert_close(torch.jit.load(buffer)(image), network(image), atol=1e-4, rtol=1e-5)

    def test_a_scripted_network_takes_sizes_that_it_was_not_made_with(self) -> None:
        settings = self.variants[0]
        network = self.build(settings)
        scripted = torch.jit.script(network)
        for size in self.odd_sizes:
            image = self.image(settings, size=size)
            torch.testing.assert_close(scripted(image), network(image), atol=1e-4, rtol=1e-5)

    def test_torch_export_equals_eager_for_other_batches_than_its_example(self, variant: Settings) -> None:
        network = self.build(variant)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(network, (self.image(variant),), dynamic_shapes={"image": {0: batch}})
        for size in (1, 3):
            image = self.image(variant, batch=size)
            torch.testing.assert_close(program.module()(image), network(image), atol=1e-4, rtol=1e-5)

    @pytest.mark.filterwarnings("ignore")
    def test_onnx_equals_eager_for_other_batches_than_its_example(self, exported: Settings, tmp_path: Path) -> None:
        network, path = self.build(exported), tmp_path / "network.onnx"
        batch = torch.export.Dim("batch", min=1, max=64)
        torch.onnx.export(
            *(network, (self.image(exported),), path), dynamo=True, verbose=False, dynamic_shapes={"image": {0: batch}}
        )
        session = onnxruntime.InferenceSession(path)
        for size in (1, 3):
            image = self.image(exported, batch=size)
            logits = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
            np.testing.assert_allclose(logits, network(image).detach().numpy(), atol=1e-3, rtol=1e-4)

    def test_standardize_makes_gain_and_offset_of_the_image_irrelevant(self) -> None:
        settings = {**self.variants[0], "standardize": True}
        network, image = self.build(settings), self.image(settings)
        changed = image.clone()
        changed[:, 0] = 0.4 * image[:, 0] + 0.3
        with torch.no_grad():
            expected = network(image)
            # Not to the last digit: the guard against flat images keeps the standard deviation above 0.001.
            assert (network(changed) - expected).abs().max() < 0.02 * expected.abs().max()

    def test_images_of_a_batch_do_not_touch_each_other(self) -> None:
        settings = self.variants[0]
        network = self.build(settings)
        image = self.image(settings, batch=3) * torch.tensor([0.1, 0.5, 1.0])[:, None, None, None]
        with torch.no_grad():
            together, alone = network(image), torch.cat([network(one[None]) for one in image])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
        assert (together[0] - together[1]).abs().max() > 1e-2

    @pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
    def test_a_flat_image_gives_finite_logits(self, value: float) -> None:
        settings = self.variants[0]
        assert torch.isfinite(self.build(settings)(torch.full_like(self.image(settings), value))).all()

    def test_a_saved_state_dict_restores_the_same_network(self, variant: Settings) -> None:
        network, buffer = self.build(variant), io.BytesIO()
        torch.save(network.state_dict(), buffer)
        buffer.seek(0)
        restored = self.network(**variant).eval()
        restored.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(restored(self.image(variant)), network(self.image(variant)))

    def test_dropout_acts_in_training_only(self) -> None:
        network, image = self.build(self.dropping), self.image(self.dropping)
        assert torch.equal(network(image), network(image))
        network.train()
        assert not torch.equal(network(image), network(image))
