# SPDX-License-Identifier: Apache-2.0
"""Calling a network: mixed precision on any device, and flip test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bundle.errors import UserError


def has_fast_bfloat16(device: torch.device | str) -> bool:
    """Tell whether bfloat16 is faster than float32 on a device.

    On a CPU without AVX-512 BF16 or AMX instructions it is emulated and was measured at half the speed of float32.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def as_flag(name: str, value: bool | str) -> bool:
    """Read true or false, also as the text that MONAI's command line makes of ``--amp false``.

    Raises:
        UserError: it is neither.
    """
    text = str(value).lower()
    if text not in ("true", "false"):
        raise UserError(f"{name}: '{value}' must be true or false")
    return text == "true"


class Autocast:
    """Call the network under autocast; float32 logits come back.

    MONAI's engines only know CUDA autocast, so this brings bfloat16 to CPUs that have it.

    Args:
        device: where the network runs.
        amp: false for plain float32; by default wherever bfloat16 is fast.
        flip: average the logits of the image and of its left-right mirror image.

    Raises:
        UserError: a flag is neither true nor false.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        amp: bool | str | None = None,
        flip: bool | str = False,
    ) -> None:
        self.device_type = torch.device(device).type
        self.amp = has_fast_bfloat16(device) if amp is None else as_flag("amp", amp)
        self.flip = as_flag("flip", flip)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the network: (N, C, H, W) in, (N, K, H, W) float32 logits out."""
        # On CUDA with MONAI's amp=True an outer autocast is active already; this one then only confirms it.
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.amp):
            logits = network(inputs, *args, **kwargs).float()
            if self.flip:
                logits = (logits + network(inputs.flip(-1), *args, **kwargs).flip(-1).float()) / 2
        return logits
