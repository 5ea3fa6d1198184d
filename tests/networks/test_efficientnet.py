# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.efficientnet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bundle.errors import UserError
from bundle.networks import LiteSegNet, LiteUNet, efficientnet
from bundle.networks.efficientnet import LiteEncoder, load_imagenet, scale_channels

INSTALLED = efficientnet.find_spec(efficientnet.PACKAGE) is not None
needs_weights = pytest.mark.skipif(not INSTALLED, reason="the ImageNet weights are an extra")


def _package(folder: Path, content: bytes | None) -> None:
    """An installed package of the name, with a file of weights in it or without."""
    (folder / efficientnet.PACKAGE / "models").mkdir(parents=True)
    (folder / efficientnet.PACKAGE / "__init__.py").write_text("raise RuntimeError('imported, not only found')")
    if content is not None:
        (folder / efficientnet.PACKAGE / efficientnet.WEIGHTS_FILE).write_bytes(content)


def test_five_maps_halve_in_size_and_have_the_channels_of_lite0() -> None:
    encoder = LiteEncoder(1)
    maps = encoder(torch.rand(2, 1, 64, 96))
    assert [tuple(found.shape[1:]) for found in maps] == [
        *((16, 32, 48), (24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3))
    ]
    assert encoder.channels == (16, 24, 40, 112, 320)


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(16, 1.0, 16), (40, 0.5, 24), (16, 0.25, 8), (24, 1.1, 24)]
)
def test_scaled_channels_are_multiples_of_eight_near_the_product(channels: int, width: float, expected: int) -> None:
    assert scale_channels(channels, width) == expected


@needs_weights
def test_imagenet_weights_fit_every_layer_and_treat_grey_as_three_equal_channels() -> None:
    grey, original = LiteEncoder(1), LiteEncoder(3)
    load_imagenet(grey)
    original.load_state_dict(efficientnet._renamed(efficientnet._read_weights()))
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        ours, theirs = grey.eval()(image), original.eval()(image.expand(-1, 3, -1, -1))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-4)


@needs_weights
def test_an_encoder_of_fewer_levels_is_the_first_part_of_the_whole_one() -> None:
    whole, part = LiteEncoder(1), LiteEncoder(1, levels=4)
    load_imagenet(whole)
    load_imagenet(part)
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected, found = whole.eval()(image), part.eval()(image)
    assert part.channels == whole.channels[:4]
    assert len(found) == 4
    assert all(torch.equal(mine, other) for mine, other in zip(found, expected, strict=False))


@needs_weights
def test_a_second_channel_changes_nothing_before_training() -> None:
    encoder = LiteEncoder(2)
    load_imagenet(encoder)
    image = torch.rand(1, 2, 64, 64)
    without = torch.cat([image[:, :1], torch.zeros_like(image[:, 1:])], dim=1)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(image)[4], encoder(without)[4])


def test_another_width_has_no_imagenet_weights() -> None:
    with pytest.raises(UserError, match=r"width 0\.5"):
        load_imagenet(LiteEncoder(1, width=0.5))


@pytest.mark.parametrize("network", [LiteUNet, LiteSegNet])
def test_without_the_package_the_mend_is_told(network: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UserError, match=r"requirements-pretrained\.txt, or give --pretrained false"):
        network(pretrained=True)


@pytest.mark.parametrize(("content", "told"), [(b"another file", "sha256"), (None, "cannot be read")])
def test_another_file_than_the_pinned_one_is_refused_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, told: str
) -> None:
    _package(tmp_path, content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, efficientnet.PACKAGE, raising=False)
    with pytest.raises(UserError, match=told):
        LiteUNet(pretrained=True)
