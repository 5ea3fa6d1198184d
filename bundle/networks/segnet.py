# SPDX-License-Identifier: Apache-2.0
"""The SegNet of the classification stage (Macrì et al. 2024, after Badrinarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F

from .unet import ConvBlock


def unpool(x: torch.Tensor, indices: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Put each value back where max pooling found it, zeros elsewhere.

    Bit-equal to ``nn.MaxUnpool2d``, which fails under deterministic mode, TorchScript and ONNX.

    Args:
        x: (N, C, h, w) pooled values.
        indices: (N, C, h, w) int64, from ``max_pool2d(..., return_indices=True)``.
        height, width: the size before pooling, which may be odd.

    Returns:
        (N, C, height, width), dtype of `x`.
    """
    zeros = x.new_zeros([x.shape[0], x.shape[1], height * width])
    return zeros.scatter(2, indices.flatten(2), x.flatten(2)).reshape(x.shape[0], x.shape[1], height, width)


class SegNet(nn.Module):
    """Encoder-decoder that keeps its pooling indices, then global average pooling and one logit per image.

    Each encoder block is two 3×3 convolutions with ReLU, 2×2 max pooling and dropout; each decoder block unpools with
    the indices of its encoder block, then two 3×3 convolutions with ReLU and dropout. The module ``feature_map``
    passes on the last feature map and computes nothing: it is the layer to name for Grad-CAM, with and without
    decoder.

    Args:
        in_channels: channels of the image, 2 where the soft mask is the second.
        filters: channels of the encoder blocks, from the top down.
        decoder: false for the encoder alone: faster, and a coarser feature map.
        dropout: probability that a value is dropped after each block; 0.5 in the paper.
        batch_norm: use batch normalisation; false in the paper's recipe.
        standardize: bring channel 0 of each image to zero mean and unit variance inside the network; further channels
            (the soft mask) stay as they are. False in the paper's recipe.

    Shape:
        input (N, in_channels, H, W) float in [0, 1]; output (N, 1) float logits of malignancy; H and W at least
        2 ** len(filters), odd sizes included.

    Raises:
        ValueError: an impossible setting, or an image that is too small to be pooled.
    """

    def __init__(
        self,
        in_channels: int = 1,
        filters: Sequence[int] = (16, 32, 64, 64),
        decoder: bool = True,
        dropout: float = 0.5,
        batch_norm: bool = False,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        if not filters or min(filters) < 1:
            raise ValueError(f"filters: {list(filters)} must be one or more positive channel counts")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: {dropout} must be in [0, 1)")
        self.standardize = bool(standardize)
        self.factor = 2 ** len(filters)
        channels = [in_channels, *filters]
        self.encoder = nn.ModuleList(ConvBlock(channels[i], channels[i + 1], batch_norm) for i in range(len(filters)))
        # The mirror image ends with the first block's channels: one feature would be too few to tell classes apart.
        mirrored = [filters[0], *filters]
        self.decoder = nn.ModuleList(
            ConvBlock(mirrored[i + 1], mirrored[i], batch_norm) for i in range(len(filters) - 1, -1, -1) if decoder
        )
        self.dropout = nn.Dropout(dropout)
        self.feature_map = nn.Identity()
        self.head = nn.Linear(filters[0] if decoder else filters[-1], 1)
        self._initialise()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean(dim=(2, 3)))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Return the last feature map: (N, filters[0], H, W), or (N, filters[-1], H // factor, W // factor)."""
        if min(image.shape[-2], image.shape[-1]) < self.factor:
            raise ValueError(
                f"image of {image.shape[-2]}×{image.shape[-1]} pixels: each side must have at least {self.factor}"
            )
        x = self._standardize(image) if self.standardize else image
        indices: list[torch.Tensor] = []
        sizes: list[tuple[int, int]] = []
        for block in self.encoder:
            x = block(x)
            sizes.append((x.shape[-2], x.shape[-1]))
            x, found = F.max_pool2d(x, 2, return_indices=True)
            indices.append(found)
            x = self.dropout(x)
        for i, block in enumerate(self.decoder):
            last = len(indices) - 1 - i
            x = self.dropout(block(unpool(x, indices[last], sizes[last][0], sizes[last][1])))
        return self.feature_map(x)

    def _standardize(self, image: torch.Tensor) -> torch.Tensor:
        grey = image[:, :1]
        mean = grey.mean(dim=(1, 2, 3), keepdim=True)
        deviation = (grey - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return torch.cat([(grey - mean) / deviation.clamp(min=1e-3), image[:, 1:]], dim=1)

    def _initialise(self) -> None:
        """He initialisation (He et al. 2015), with its fan-in counted after unpooling."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.decoder:
            # Three of four inputs are zeros from unpooling. Without this factor each block halves the signal, and
            # four blocks leave logits that tell no image from another.
            next(block.parameters()).data.mul_(2.0)
        nn.init.zeros_(self.head.bias)
