# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.loss."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss
from torch.nn.functional import binary_cross_entropy_with_logits

from bundle.training import LesionLoss, SmoothedCrossEntropy

LOSS = LesionLoss(DiceCELoss(sigmoid=True), presence_weight=0.5)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.zeros(3, 1, 8, 8)
    mask[:2, :, 2:5, 2:6] = 1
    return torch.randn(3, 2, 8, 8).requires_grad_(), mask


def test_without_a_presence_channel_it_is_the_segmentation_loss() -> None:
    logits, mask = _batch()
    assert torch.equal(LOSS(logits[:, :1], mask), DiceCELoss(sigmoid=True)(logits[:, :1], mask))


def test_images_without_a_lesion_count_for_the_head_alone() -> None:
    logits, mask = _batch()
    presence = logits[:, 1].mean(dim=(1, 2))
    head = binary_cross_entropy_with_logits(presence, torch.tensor([1.0, 1.0, 0.0]))
    expected = DiceCELoss(sigmoid=True)(logits[:2, :1], mask[:2]) + 0.5 * head
    loss = LOSS(logits, mask)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad[2, 0].abs().sum() == 0
    assert logits.grad[2, 1].abs().sum() > 0
    assert logits.grad[:2, 0].abs().sum() > 0


def test_a_batch_without_any_lesion_has_a_finite_loss() -> None:
    logits, mask = _batch()
    loss = LOSS(logits, torch.zeros_like(mask))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_smoothing_draws_labels_towards_one_half() -> None:
    logits, label = torch.tensor([[2.0], [-1.0]]), torch.tensor([[1.0], [0.0]])
    assert torch.equal(SmoothedCrossEntropy()(logits, label), binary_cross_entropy_with_logits(logits, label))
    expected = binary_cross_entropy_with_logits(logits, torch.tensor([[0.95], [0.05]]))
    torch.testing.assert_close(SmoothedCrossEntropy(0.1)(logits, label), expected)
    with pytest.raises(ValueError, match="smoothing"):
        SmoothedCrossEntropy(1.0)
