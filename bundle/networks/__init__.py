# SPDX-License-Identifier: Apache-2.0
"""Networks: tensor in, tensor out, scriptable and exportable."""

from .peers import PEERS, Peer
from .segnet import SegNet
from .unet import UNet

__all__ = ["PEERS", "Peer", "SegNet", "UNet"]
