# SPDX-License-Identifier: Apache-2.0
"""A SegNet-like classifier on the encoder of EfficientNet-Lite0."""

from __future__ import annotations

import torch
import torch.nn as nn

from .efficientnet import LiteEncoder, load_imagenet, standardise_grey


class LiteSegNet(nn.Module):
    """The encoder of EfficientNet-Lite0, then global average pooling and one logit per image, as `SegNet` ends.

    The module ``feature_map`` passes on the last feature map and computes nothing: the layer to name for Grad-CAM.

    Args:
        in_channels: channels of the image, 2 where the soft mask is the second.
        width: factor of the encoder's channels.
        dropout: probability that a pooled feature is dropped.
        standardize: bring channel 0 of each image to zero mean and unit variance inside the network; further channels
            (the soft mask) stay as they are.
        pretrained: begin with ImageNet weights, see `load_imagenet`; for training alone.

    Shape:
        input (N, in_channels, H, W) float in [0, 1]; output (N, 1) float logits of malignancy; H and W at least 32,
        odd sizes included.

    Raises:
        ValueError: an impossible setting, or an image that is too small.
        UserError: the ImageNet weights are asked for and not there.
    """

    def __init__(
        self,
        in_channels: int = 2,
        width: float = 1.0,
        dropout: float = 0.3,
        standardize: bool = True,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: {dropout} must be in [0, 1)")
        if not width > 0:
            raise ValueError(f"width: {width} must be above 0")
        self.standardize = bool(standardize)
        self.factor = 32
        self.encoder = LiteEncoder(in_channels, width)
        self.feature_map = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.encoder.channels[-1], 1)
        nn.init.zeros_(self.head.bias)
        if pretrained:
            load_imagenet(self.encoder)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(image).mean(dim=(2, 3))))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, (N, 320, ⌈H / 32⌉, ⌈W / 32⌉) at width 1."""
        if min(image.shape[-2], image.shape[-1]) < self.factor:
            raise ValueError(
                f"image of {image.shape[-2]}×{image.shape[-1]} pixels: each side must have at least {self.factor}"
            )
        x = standardise_grey(image) if self.standardize else image
        return self.feature_map(self.encoder(x)[4])
