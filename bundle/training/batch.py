# SPDX-License-Identifier: Apache-2.0
"""From a collated batch to what the network eats: moved to the device once, augmented there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor

UNMARKED = "unmarked"
"""Under this key a batch may hold copies of its images without drawn marks, see `bundle.transforms.RemoveMarksd`."""


class PrepareBatch:
    """The ``prepare_batch`` of MONAI's engines: move, lay out channels-last, augment.

    Args:
        augment: called with (image, label) on the device, returns both; None for validation.
        channels_last: memory layout that convolutions of small networks prefer on CPUs and tensor cores.
        unmarked: chance that an image is replaced by its copy without drawn marks, where the batch has one.
    """

    def __init__(
        self,
        augment: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
        channels_last: bool = True,
        unmarked: float = 0.0,
    ) -> None:
        self.augment = augment
        self.unmarked = unmarked
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(
        self, batch: dict[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image (N, C, H, W) and label, (N, 1, H, W) of a mask or (N, 1) of a class; float32, plain tensors."""
        # Plain tensors: the bookkeeping of MetaTensor costs more than the arithmetic on small images.
        image = as_plain_tensor(batch["image"]).to(device, torch.float32, non_blocking=non_blocking)
        label = as_plain_tensor(batch["label"]).to(device, torch.float32, non_blocking=non_blocking)
        if label.ndim == 1:
            label = label[:, None]
        if self.unmarked and UNMARKED in batch:
            copies = as_plain_tensor(batch[UNMARKED]).to(device, torch.float32, non_blocking=non_blocking)
            chosen = (torch.rand(len(image)) < self.unmarked).to(image.device)
            image = torch.where(chosen[:, None, None, None], copies, image)
        if self.augment is not None:
            image, label = self.augment(image, label)
        return image.contiguous(memory_format=self.memory_format), label


def as_plain_tensor(value: torch.Tensor) -> torch.Tensor:
    """Drop MONAI's metadata from a tensor without copying it."""
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def file_names(batch: dict[str, Any]) -> list[str]:
    """Name the image files of a collated batch, for messages."""
    image = batch.get("image")
    names = image.meta.get("filename_or_obj", []) if isinstance(image, MetaTensor) else []
    return [str(name) for name in ([names] if isinstance(names, str) else names)]
