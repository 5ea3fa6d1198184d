# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.lite_segnet."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from monai.visualize import GradCAM

from bundle.networks import LiteSegNet
from tests.networks.claims import NetworkClaims

SMALL: dict[str, Any] = {"width": 0.25}


class TestLiteSegNet(NetworkClaims):
    network = LiteSegNet
    variants: ClassVar = [SMALL, {**SMALL, "in_channels": 1, "standardize": False, "dropout": 0.0}]
    exporteds: ClassVar = [SMALL]
    size = (48, 37)
    odd_sizes: ClassVar = [(32, 32), (70, 33)]
    in_channels = 2
    dropping: ClassVar = SMALL


def test_the_mask_is_seen_as_it_is() -> None:
    network = TestLiteSegNet().build(SMALL)
    image = TestLiteSegNet().image(SMALL)
    fainter = image.clone()
    fainter[:, 1] *= 0.4
    assert (network(fainter) - network(image)).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(31, 40), (40, 31), (1, 1)])
def test_an_image_too_small_for_the_encoder_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        LiteSegNet(**SMALL)(torch.rand(1, 2, *size))


def test_grad_cam_finds_the_feature_map_of_the_lite_segnet() -> None:
    network, image = TestLiteSegNet().build(SMALL), TestLiteSegNet().image(SMALL, size=(96, 96))
    if network(image)[0] < 0:  # Grad-CAM shows what speaks for the class: nothing does where all speaks against it
        torch.nn.init.zeros_(network.head.bias)
        network.head.weight.data.neg_()
    heat = np.asarray(GradCAM(network, target_layers="feature_map")(image, class_idx=0))
    assert heat.shape[-2:] == image.shape[-2:]
    assert np.isfinite(heat).all()
    assert np.ptp(heat) > 0


@pytest.mark.parametrize(("wrong", "told"), [({"dropout": 1.0}, "dropout"), ({"width": -1.0}, "width")])
def test_impossible_settings_of_the_lite_segnet_are_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LiteSegNet(**wrong)
