# SPDX-License-Identifier: Apache-2.0
"""Networks: tensor in, tensor out, scriptable and exportable."""

from .build import build_from_card, build_network, network_settings
from .lite_segnet import LiteSegNet
from .lite_unet import LiteUNet
from .peers import PEERS, Peer
from .segnet import SegNet
from .unet import UNet

__all__ = [
    "PEERS",
    "LiteSegNet",
    "LiteUNet",
    "Peer",
    "SegNet",
    "UNet",
    "build_from_card",
    "build_network",
    "network_settings",
]
