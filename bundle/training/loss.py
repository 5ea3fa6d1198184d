# SPDX-License-Identifier: Apache-2.0
"""The loss of a segmenter that also tells whether there is a lesion."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F


class LesionLoss(nn.Module):
    """A segmentation loss, and, where the network has a presence head, the cross-entropy of its logit.

    With a presence head, images without a lesion count for the head alone: as empty masks they would teach the map to
    be silent on lesions that are hard to see.

    Args:
        segmentation: loss of map logits and masks.
        presence_weight: of the head's cross-entropy beside it.

    Shape:
        prediction (N, 1, H, W) float logits, or (N, 2, H, W) with the head's logit at every pixel of channel 1; mask
        (N, 1, H, W) float 0 or 1; returned a scalar.
    """

    def __init__(self, segmentation: nn.Module, presence_weight: float = 0.3) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.presence_weight = presence_weight

    def forward(self, prediction: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor
        if prediction.shape[1] == mask.shape[1]:
            loss = self.segmentation(prediction, mask)
            return loss
        logits, presence = prediction[:, :1], prediction[:, 1].mean(dim=(1, 2))
        present = mask.flatten(1).amax(dim=1) > 0.5
        loss = self.presence_weight * F.binary_cross_entropy_with_logits(presence, present.to(presence.dtype))
        if present.any():
            loss = loss + self.segmentation(logits[present], mask[present])
        return loss


class SmoothedCrossEntropy(nn.Module):
    """Binary cross-entropy of logits whose labels are drawn a little towards one half (Szegedy et al. 2016).

    Args:
        smoothing: share of the label that is shared out; with 0.1 a label of 1 becomes 0.95.

    Shape:
        logits and labels (N, 1) float; returned a scalar.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing: {smoothing} must be in [0, 1)")
        self.smoothing = smoothing

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, label * (1 - self.smoothing) + 0.5 * self.smoothing)
