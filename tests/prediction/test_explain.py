# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.explain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.networks import SegNet
from bundle.prediction.explain import ExplainMalignancy, paste
from bundle.transforms.geometry import resize
from bundle.transforms.lesion import LesionCrop, LesionRegion, cut_mirrored, place_square

BOX = (4, 30, 24, 55)  # its square leaves the image at the top


def _network(decoder: bool, **changes: object) -> SegNet:
    torch.manual_seed(0)
    network = SegNet(in_channels=2, filters=(4, 8), decoder=decoder, **changes).eval()  # type: ignore[arg-type]
    network.head.weight.data = torch.linspace(-0.5, 1, network.head.in_features)[None]  # evidence for and against
    return network


def _region(size: tuple[int, int] = (60, 90)) -> LesionRegion:
    mask = np.zeros(size, bool)
    mask[BOX[0] : BOX[2], BOX[1] : BOX[3]] = True
    return LesionRegion(mask, BOX, 1, (), False)


def _seen() -> torch.Tensor:
    return torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("decoder", [False, True])
def test_the_heat_is_the_feature_map_weighted_by_the_head(decoder: bool) -> None:
    """After global average pooling and one linear layer, Grad-CAM's weights are the layer's own."""
    network, seen = _network(decoder), _seen()
    heat = ExplainMalignancy(network, LesionCrop(variant="masked"))(seen, _region())
    with torch.no_grad():
        evidence = (network.features(seen) * network.head.weight[0, :, None, None]).sum(1, keepdim=True).relu()
    evidence = F.interpolate(evidence, size=(32, 32), mode="bilinear")
    expected = F.interpolate(evidence / evidence.max(), size=(60, 90), mode="bilinear", antialias=True)[0, 0]
    assert heat.dtype == np.uint8
    assert evidence.max() > 0
    assert np.abs(heat - 255 * expected.numpy()).max() <= 1


def test_a_crop_is_explained_in_its_square_and_nowhere_else() -> None:
    heat = ExplainMalignancy(_network(False), LesionCrop())(_seen(), _region())
    top, left, bottom, right = place_square(BOX)
    assert top < 0
    assert heat[:bottom, left:right].max() > 100
    heat[:bottom, left:right] = 0
    assert not heat.any()


def test_without_evidence_the_map_is_zero() -> None:
    network = _network(False)
    network.head.weight.data = -network.head.weight.data.abs()  # features are never negative
    assert not ExplainMalignancy(network, LesionCrop())(_seen(), _region()).any()


def test_explaining_leaves_the_network_as_it_was() -> None:
    network, seen = _network(True, batch_norm=True), _seen()
    with torch.no_grad():
        before = network(seen)
        heat = ExplainMalignancy(network, LesionCrop())(seen, _region())
        assert torch.equal(network(seen), before)
    assert heat.any()  # though the caller takes no gradients
    assert not network.training


@settings(max_examples=50, deadline=None)
@given(st.tuples(st.integers(3, 60), st.integers(3, 60)), st.data())
def test_pasting_puts_every_pixel_of_a_crop_back_where_it_was(size: tuple[int, int], data: st.DataObject) -> None:
    top, left = (data.draw(st.integers(0, length - 1)) for length in size)
    bottom, right = (data.draw(st.integers(first + 1, length)) for first, length in zip((top, left), size, strict=True))
    box = place_square((top, left, bottom, right), data.draw(st.floats(0, 1)), data.draw(st.integers(1, 40)))
    frame = torch.rand(size).numpy()
    pasted = paste(torch.from_numpy(cut_mirrored(frame, box))[None], box, size)
    inside = np.zeros(size, bool)
    inside[max(0, box[0]) : box[2], max(0, box[1]) : box[3]] = True
    assert np.allclose(pasted, np.where(inside, frame, 0), atol=1e-6)


def test_a_spot_comes_back_to_its_place_after_resizing() -> None:
    frame = np.zeros((60, 90), np.float32)
    frame[10:16, 44:50] = 1
    box = place_square(BOX)
    heat = resize(torch.from_numpy(cut_mirrored(frame, box))[None], (32, 32))
    row, column = np.unravel_index(paste(heat, box, (60, 90)).argmax(), (60, 90))
    assert 10 <= row < 16
    assert 44 <= column < 50
