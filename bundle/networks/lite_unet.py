# SPDX-License-Identifier: Apache-2.0
"""A U-Net on the encoder of EfficientNet-Lite0, with a head that tells whether there is a lesion at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F

from .efficientnet import LiteEncoder, initialise, load_imagenet, standardise_grey
from .unet import ConvBlock

PRESENCE_MIX = (0.4, 0.4, -1.0)
"""Weight of the presence head's logit, weight of the map's evidence, and what is added: how a trained network tells.

In a hospital that the head never saw it takes much tissue for normal; the map is led astray less. The weights were
chosen with scores out of fold and of both left-out hospitals in sight, by how many lesions a limit from home loses
elsewhere; what it comes to stands in docs/README.md, with the limit of the shipped weights.
"""


class LiteUNet(nn.Module):
    """U-Net whose encoder is EfficientNet-Lite0, or its first part; one logit per pixel, and by choice one per image.

    Each decoder block doubles the size (nearest neighbour), joins the encoder's map of that size and applies two 3×3
    convolutions. The decoder is narrow: at 256×256 the whole costs half the multiplications of `UNet` with filters 16
    to 128. Inputs of any size are accepted: they are mirrored at the right and the bottom up to a multiple of 32 (of 16
    with four blocks), and the output is cropped back.

    Args:
        in_channels: channels of the image.
        out_channels: logits per pixel.
        decoder_channels: of the decoder blocks, from the bottom up; the last is of the image's size. Five blocks, or
            four on an encoder without its last two stages, which hold three quarters of its parameters.
        width: factor of the encoder's channels.
        dropout: channel dropout of the deepest map, before decoder and presence head.
        presence: add the head: global average of the deepest map, then one logit "there is a lesion". It stands in a
            channel of its own, the same at every pixel: so it passes mirrored averaging, resizing, exports and other
            engines as a map does.
        presence_mix: join the head's logit with the evidence of the map, the logarithm of the mean odds of its pixels:
            weight of the head, weight of the map, and what is added, see `PRESENCE_MIX`; None, as in training, for the
            head alone.
        standardize: bring each image to zero mean and unit variance inside the network.
        pretrained: begin with ImageNet weights, see `load_imagenet`; for training alone.

    Shape:
        input (N, in_channels, H, W) float in [0, 1]; output (N, out_channels, H, W) float logits, with the head
        (N, out_channels + 1, H, W), its logit last; H, W ≥ 1.

    Raises:
        ValueError: an impossible setting.
        UserError: the ImageNet weights are asked for and not there.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        decoder_channels: Sequence[int] = (96, 64, 40, 24, 16),
        width: float = 1.0,
        dropout: float = 0.0,
        presence: bool = False,
        presence_mix: Sequence[float] | None = None,
        standardize: bool = True,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        levels = len(decoder_channels)
        if levels not in (4, 5) or min(decoder_channels) < 1:
            raise ValueError(f"decoder_channels: {list(decoder_channels)} must be four or five positive channel counts")
        if not width > 0:
            raise ValueError(f"width: {width} must be above 0")
        self.standardize = bool(standardize)
        self.out_channels = int(out_channels)
        self.factor = 2**levels
        self.encoder = LiteEncoder(in_channels, width, levels)
        self.dropout = nn.Dropout2d(dropout)
        skips = [*self.encoder.channels[-2::-1], 0]
        below = [self.encoder.channels[-1], *decoder_channels[:-1]]
        self.decoder = nn.ModuleList(
            ConvBlock(below[i] + skips[i], decoder_channels[i], batch_norm=True) for i in range(levels)
        )
        self.head = nn.Conv2d(decoder_channels[-1], out_channels, kernel_size=1)
        self.presence_head = nn.Linear(self.encoder.channels[-1], 1) if presence else None
        self.mix_presence(presence_mix)
        initialise(self.decoder)
        initialise(self.head)
        if pretrained:
            load_imagenet(self.encoder)

    def mix_presence(self, mix: Sequence[float] | None) -> None:
        """Set how head and map are joined; the argument is the constructor's `presence_mix`.

        Raises:
            ValueError: it is not three numbers.
        """
        if mix is not None and (len(mix) != 3 or not all(math.isfinite(value) for value in mix)):
            raise ValueError(f"presence_mix: {mix} must be three numbers, of the head, of the map, and an offset")
        self.head_weight, self.map_weight, self.presence_offset = (float(value) for value in mix or (1.0, 0.0, 0.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2], image.shape[-1]
        x = standardise_grey(image) if self.standardize else image
        bottom, right = (-height) % self.factor, (-width) % self.factor
        if bottom != 0 or right != 0:
            # An image smaller than its padding has nothing left to mirror; its edge is repeated.
            mirrored = bottom < height and right < width
            x = F.pad(x, [0, right, 0, bottom], mode="reflect" if mirrored else "replicate")
        maps = self.encoder(x)
        x = self.dropout(maps.pop())
        deepest = x
        for block in self.decoder:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, maps.pop()], dim=1) if len(maps) > 0 else x)
        x = self.head(x)[:, :, :height, :width]
        if self.presence_head is not None:
            logit = self.presence_head(deepest.mean(dim=(2, 3)))
            if self.map_weight != 0.0:
                pixels = x.float().flatten(1)
                evidence = pixels.logsumexp(dim=1, keepdim=True) - math.log(pixels.shape[1])
                logit = self.head_weight * logit.float() + self.map_weight * evidence + self.presence_offset
            x = torch.cat([x, logit[:, :, None, None].to(x.dtype).expand(-1, 1, height, width)], dim=1)
        return x
