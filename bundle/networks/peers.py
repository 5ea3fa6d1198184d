# SPDX-License-Identifier: Apache-2.0
"""Segmentation networks of MONAI beside our U-Net, at about its number of parameters: what to compare it with."""

from __future__ import annotations

from typing import Any

import torch

OURS = "ours"
"""How our network is named beside them."""

_COMMON: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}
_WIDTHS: dict[str, Any] = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}
PEERS: dict[str, dict[str, Any]] = {
    "BasicUNet": {"features": (16, 32, 64, 128, 256, 16)},
    "UNet": {**_WIDTHS, "num_res_units": 2},
    "AttentionUnet": _WIDTHS,
    "SegResNet": {"init_filters": 16},
}
"""By MONAI's names, each with its settings. Widths are those of `bundle.networks.UNet` with its default of
configs/train.json; dropout is MONAI's default."""


class Peer(torch.nn.Module):
    """One of `PEERS` that standardises its images as our U-Net does, so that the same training fits it.

    Args:
        name: of the network.

    Shape:
        input (N, 1, H, W) float in [0, 1]; output (N, 1, H, W) float logits; H and W multiples of 16.

    Raises:
        ValueError: there is no such network.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in PEERS:
            raise ValueError(f"peer: {name} must be one of {', '.join(PEERS)}")
        from monai.networks import nets  # which takes seconds to import, and whoever predicts needs no peer

        self.network = getattr(nets, name)(**_COMMON, **PEERS[name])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        deviation = (image - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        logits: torch.Tensor = self.network((image - mean) / deviation.clamp(min=1e-3))
        return logits
