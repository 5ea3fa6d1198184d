# SPDX-License-Identifier: Apache-2.0
"""Learn from images without masks: what the network says of a changed image must agree with its average's word.

Weak-to-strong consistency as in FixMatch (Sohn et al. 2020) and UniMatch (Yang et al. 2023): the moving average of the
network segments a warped image, the network itself must say the same of that image after strong changes of its grey
levels and after CutMix with another image. Only pixels that the average is sure of count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch.utils.data import Dataset

from bundle.errors import UserError
from bundle.training.batch import as_plain_tensor


class Consistency:
    """The ``iteration_update`` of MONAI's `SupervisedTrainer` that adds unlabelled images to each batch.

    All unlabelled images are kept in memory; which of them join an iteration is drawn from torch's generator, so a
    reseeded iteration draws the same again.

    Args:
        dataset: items with "image", (C, H, W) float in [0, 1], all of one size; a mask in it is never looked at.
        teacher: the moving average of the network; or another network, which the student learns from.
        warp: moves an image before the teacher sees it; called with image and mask of a batch.
        strong: changes of the grey levels (N, C, H, W) that only the network meets.
        batch_size: unlabelled images per iteration and process.
        weight: of the consistency beside the supervised loss, from the end of the ramp-up on.
        ramp_up: iterations over which the weight rises from 0 (as a Gaussian, Laine and Aila 2017).
        confidence: a pixel counts as background if the teacher gives background at least this probability.
        lesion_confidence: a pixel counts as lesion if the teacher gives lesion at least this probability. Lower than
            for background, since lesions are the rare class: held to the same bar they fade from the pseudo labels.
        cutmix: probability that an image gets a rectangle of another one.
        hard: the teacher's word is lesion or background; false: its probability, which tells a student more where the
            teacher does not learn on ("distillation", Hinton et al. 2015).
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        teacher: torch.nn.Module,
        warp: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        strong: Sequence[Callable[[torch.Tensor], torch.Tensor]],
        batch_size: int = 8,
        weight: float = 1.0,
        ramp_up: int = 1000,
        confidence: float = 0.95,
        lesion_confidence: float = 0.8,
        cutmix: float = 0.5,
        hard: bool = True,
    ) -> None:
        if not len(dataset):  # type: ignore[arg-type]
            raise UserError("no unlabelled image; give a split such as '15:5:80, fold 0 of 2', or train without them")
        images = [as_plain_tensor(dataset[index]["image"]) for index in range(len(dataset))]  # type: ignore[arg-type]
        self.images = torch.stack(images).float()
        self.teacher, self.warp, self.strong = teacher, warp, strong
        self.batch_size, self.weight, self.ramp_up = batch_size, weight, ramp_up
        self.confidence, self.lesion_confidence = confidence, lesion_confidence
        self.cutmix, self.hard = cutmix, hard

    def __call__(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        """One step on a labelled batch and an unlabelled one, in one forward pass of the network."""
        trainer: Any = engine
        image, label = trainer.prepare_batch(batchdata, trainer.state.device, trainer.non_blocking, **trainer.to_kwargs)
        changed, target, sure, presence = self.draw(trainer.inferer, image.device)
        output = trainer.state.output = {Keys.IMAGE: image, Keys.LABEL: label}
        trainer.network.train()
        trainer.optimizer.zero_grad(set_to_none=True)
        both = torch.cat([image, changed]).contiguous(memory_format=torch.channels_last)
        output[Keys.PRED], guess = trainer.inferer(both, trainer.network).split([len(image), len(changed)])
        trainer.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = trainer.loss_function(output[Keys.PRED], label).mean()
        agreement = agreement_loss(guess[:, :1], target, sure)
        if presence is not None and guess.shape[1] > 1:
            agreement = agreement + F.binary_cross_entropy_with_logits(guess[:, 1].mean(dim=(1, 2)), presence)
        output[Keys.LOSS] = loss + self._weight(trainer.state.iteration) * agreement
        trainer.fire_event(IterationEvents.LOSS_COMPLETED)
        output[Keys.LOSS].backward()
        trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
        trainer.optimizer.step()
        trainer.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    @torch.no_grad()
    def draw(
        self, inferer: Callable[..., torch.Tensor], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Draw unlabelled images.

        Returns:
            strongly changed images (M, C, H, W) in [0, 1]; what the teacher says of them, (M, 1, H, W), 0 or 1, or its
            probability; where it is sure, (M, 1, H, W), 0 or 1; and the probability that there is a lesion, (M,), where
            a teacher with a presence head teaches it: not where the word is made hard. All float32.
        """
        chosen = torch.randint(len(self.images), (self.batch_size,))
        image = self.images[chosen].to(device)
        image, _ = self.warp(image, image[:, :1])
        self.teacher.eval()
        said = inferer(image.contiguous(memory_format=torch.channels_last), self.teacher).sigmoid()
        probability = said[:, :1]
        presence = said[:, 1].mean(dim=(1, 2)) if said.shape[1] > 1 and not self.hard else None
        target = (probability > 0.5).float() if self.hard else probability
        sure = ((probability >= self.lesion_confidence) | (1 - probability >= self.confidence)).float()
        changed = image
        for change in self.strong:
            changed = change(changed)
        box = self._draw_boxes(image.shape[-2], image.shape[-1]).to(device)
        # Each image gets the rectangle of its neighbour in the batch, which was drawn at random.
        changed, target, sure = (
            torch.where(box, value.roll(1, 0), value) for value in (changed.clamp(0, 1), target, sure)
        )
        return changed, target, sure, presence

    def _draw_boxes(self, height: int, width: int) -> torch.Tensor:
        """A rectangle per image, (M, 1, H, W) bool, of 2 to 40 per cent of the area; none where CutMix is not drawn."""
        count = self.batch_size
        area = 0.02 + 0.38 * torch.rand(count)
        aspect = (torch.rand(count) * 2 - 1).mul(torch.tensor(3.0).log()).exp()
        tall, wide = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        top, left = torch.rand(count) * (1 - tall), torch.rand(count) * (1 - wide)
        drawn = torch.rand(count) < self.cutmix
        rows, columns = torch.arange(height) / height, torch.arange(width) / width
        inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
        inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
        return (inside_rows[:, :, None] & inside_columns[:, None, :] & drawn[:, None, None])[:, None]

    def _weight(self, iteration: int) -> float:
        missing = max(0.0, 1 - iteration / max(1, self.ramp_up))
        return self.weight * float(torch.exp(torch.tensor(-5 * missing**2)))


def agreement_loss(logits: torch.Tensor, target: torch.Tensor, sure: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and Dice between logits and a target, over the pixels that are sure.

    Args:
        logits: (N, 1, H, W) float.
        target: (N, 1, H, W), in [0, 1].
        sure: (N, 1, H, W), 0 or 1.

    Returns:
        a scalar; 0 where nothing is sure. The mean is over all pixels, so that few sure ones weigh little.
    """
    entropy = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * sure).mean()
    probability = logits.sigmoid() * sure
    # Over the whole batch: many single images have no sure lesion pixel.
    overlap, area = (probability * target).sum(), (probability + target * sure).sum()
    return entropy + (1 - (2 * overlap + 1) / (area + 1)) * sure.mean()
