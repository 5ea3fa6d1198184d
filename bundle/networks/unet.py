# SPDX-License-Identifier: Apache-2.0
"""The U-Net of the segmentation stage (Macrì et al. 2024, after Ronneberger et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F


class ImageNorm(nn.InstanceNorm2d):
    """Normalise each channel of each image to zero mean and unit variance, then scale and shift it: instance norm.

    On a CPU it is computed as the batch norm of one image at a time, which gives the same numbers: PyTorch's own
    instance norm copies channels_last tensors to and fro and takes inference 1.5 times as long.

    Args:
        channels: of the input.

    Shape:
        input and output (N, channels, H, W); a channel of one pixel becomes its shift.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one_by_one = False
        if not torch.jit.is_scripting():  # compiled or exported, it is one operation on any number of images
            exported = torch.compiler.is_compiling() or torch.jit.is_tracing()
            one_by_one = image.device.type == "cpu" and not exported
        # Not those of torch.nn.functional, which refuse the one pixel that a tiny image has at the bottom.
        if one_by_one:
            each = [
                torch.batch_norm(one, self.weight, self.bias, None, None, True, 0.0, self.eps, False)
                for one in image.split(1)
            ]
            return each[0] if len(each) == 1 else torch.cat(each)
        return torch.instance_norm(
            image, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled
        )


class ConvBlock(nn.Sequential):
    """Two 3×3 "same" convolutions, each followed by (a normalisation and) ReLU, then optional dropout.

    Args:
        in_channels: channels of the input.
        out_channels: channels of both convolutions.
        batch_norm: normalise between convolution and ReLU; the paper does not.
        dropout: probability that a whole channel is dropped at the end of the block.
        instance_norm: where the batch would be normalised, normalise each image by itself.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        batch_norm: bool = True,
        dropout: float = 0.0,
        instance_norm: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            # A bias before a normalisation would be subtracted again.
            layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(ImageNorm(out_channels) if instance_norm else nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        super().__init__(*layers)


class UNet(nn.Module):
    """Encoder-decoder with concatenated skip connections; one logit per pixel.

    Each encoder block is followed by 2×2 max pooling, the bottom block has twice the channels of the last encoder
    block, and each decoder block is preceded by a 2×2 transposed convolution. Inputs of any size are accepted: they
    are mirrored at the edges ("context extrapolation" in the paper, the overlap-tile strategy of Ronneberger et al.)
    up to a multiple of the pooling factor, plus ``context`` pixels, and the output is cropped back.

    Args:
        in_channels: channels of the image.
        out_channels: logits per pixel.
        filters: channels of the encoder blocks, from the top down. ``(64, 128, 256, 512)`` with its bottom of 1024
            is the paper's and has 31.03 M parameters.
        batch_norm: use batch normalisation; false in the paper's recipe.
        dropout: channel dropout after the two deepest encoder blocks and the bottom.
        context: pixels mirrored on every side beyond what divisibility needs.
        standardize: bring each image to zero mean and unit variance inside the network, so that no caller can forget
            it; false in the paper's recipe.
        instance_norm: where ``batch_norm`` normalises over the batch, normalise over each image alone.

    Shape:
        input (N, in_channels, H, W) float in [0, 1]; output (N, out_channels, H, W) float logits; H, W ≥ 1.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        filters: Sequence[int] = (64, 128, 256, 512),
        batch_norm: bool = True,
        dropout: float = 0.0,
        context: int = 0,
        standardize: bool = True,
        instance_norm: bool = False,
    ) -> None:
        super().__init__()
        if not filters or min(filters) < 1:
            raise ValueError(f"filters: {list(filters)} must be one or more positive channel counts")
        if context < 0:
            raise ValueError(f"context: {context} must be 0 or more pixels")
        self.context = int(context)
        self.standardize = bool(standardize)
        self.factor = 2 ** len(filters)
        channels = [in_channels, *filters, 2 * filters[-1]]
        deepest = len(filters) - 2
        self.encoder = nn.ModuleList(
            ConvBlock(channels[i], channels[i + 1], batch_norm, dropout if i >= deepest else 0.0, instance_norm)
            for i in range(len(filters))
        )
        self.bottom = ConvBlock(channels[-2], channels[-1], batch_norm, dropout, instance_norm)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(channels[i + 1], channels[i], kernel_size=2, stride=2)
            for i in range(len(filters), 0, -1)
        )
        self.decoder = nn.ModuleList(
            ConvBlock(2 * channels[i], channels[i], batch_norm, 0.0, instance_norm) for i in range(len(filters), 0, -1)
        )
        self.head = nn.Conv2d(filters[0], out_channels, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2], image.shape[-1]
        x = image
        if self.standardize:
            mean = x.mean(dim=(1, 2, 3), keepdim=True)
            deviation = (x - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
            x = (x - mean) / deviation.clamp(min=1e-3)
        x = self._mirror(x)
        skips: list[torch.Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        # Two lists walked together: TorchScript can not index a ModuleList by a variable.
        for i, (up, block) in enumerate(zip(self.up, self.decoder)):  # noqa: B905 - TorchScript has no zip(strict=)
            x = block(torch.cat([skips[len(skips) - 1 - i], up(x)], dim=1))
        x = self.head(x)
        return x[:, :, self.context : self.context + height, self.context : self.context + width]

    def _mirror(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2], image.shape[-1]
        bottom = self.context + (-(height + 2 * self.context)) % self.factor
        right = self.context + (-(width + 2 * self.context)) % self.factor
        if bottom == 0 and right == 0:
            return image
        padding = [self.context, right, self.context, bottom]
        # An image smaller than its padding has nothing left to mirror; its edge is repeated.
        if bottom < height and right < width:
            return F.pad(image, padding, mode="reflect")
        return F.pad(image, padding, mode="replicate")
