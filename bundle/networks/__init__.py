# SPDX-License-Identifier: Apache-2.0
"""Networks: tensor in, tensor out, scriptable and exportable."""

from .unet import UNet

__all__ = ["UNet"]
