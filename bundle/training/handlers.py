# SPDX-License-Identifier: Apache-2.0
"""Handlers of the training engine: reseeding, a guard against NaN, the record of a run and its progress bar."""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism
from torch.utils.data import DistributedSampler
from tqdm import tqdm

from bundle.errors import UserError
from bundle.evaluation.figures import plot_curves
from bundle.files import write_json
from bundle.training.batch import file_names
from bundle.training.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


def shared(handler: Any) -> Any:
    """Return a handler that other parts of a config refer to as well.

    MONAI's tools read every entry of a handlers list as a component with a ``_target_``; a plain "@id" crashes them.
    """
    return handler


class ReseedEachEpoch:
    """Make every epoch draw the same random numbers whether the run was interrupted before it or not.

    Args:
        seed: of the run; the epoch is added to it.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = int(seed)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        # A large odd stride keeps (seed 0, epoch 1) and (seed 1, epoch 0) apart.
        set_determinism(seed=(self.seed * 1_000_003 + engine.state.epoch) % 2**32, use_deterministic_algorithms=None)


class StopOnNonFinite:
    """Stop at once when the loss is NaN or infinite, and name the files of the batch.

    Without it a run trains on and its NaN weights are saved. The last checkpoint stays as it was.
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        loss = float(output["loss"].detach())
        if not math.isfinite(loss):
            names = ", ".join(file_names(batch)) or "unnamed images"
            raise UserError(
                f"loss is {loss} in epoch {engine.state.epoch}, iteration {engine.state.iteration}, on {names}; "
                "look at these files, or lower --learning_rate; the last checkpoint is kept"
            )


class History:
    """Record loss, Dice and pixel accuracy of training and validation per epoch, as JSON and as curves.

    The training figures are those of the augmented images, pooled over the pixels of the epoch.

    Args:
        output_dir: gets ``history.json`` and ``curves.png``.
        evaluator: the validation engine, whose metrics are recorded when it ran.
        synthetic: stamp the figure SYNTHETIC.
        overlap: name of the pooled 2·TP / (2·TP + FP + FN): Dice over pixels, or F1 over images for a classifier.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        evaluator: Engine,
        synthetic: bool = False,
        overlap: str = "train_dice",
    ) -> None:
        self.folder = Path(output_dir)
        self.evaluator = evaluator
        self.synthetic = synthetic
        self.overlap = overlap
        self.values: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._sums: dict[str, Any] = {}
        self._pending: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, after the handler that validates and before the checkpoint that saves this."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        self.evaluator.add_event_handler(Events.COMPLETED, self._note_validation)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def state_dict(self) -> dict[str, Any]:
        """The record, for the checkpoint."""
        return {name: [list(pair) for pair in pairs] for name, pairs in self.values.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up an earlier record."""
        self.values = defaultdict(
            list, {name: [(int(epoch), float(value)) for epoch, value in pairs] for name, pairs in state.items()}
        )

    def _start(self, _: Engine) -> None:
        self._sums = defaultdict(float)
        self._pending = {}

    @torch.no_grad()
    def _add(self, engine: Engine) -> None:
        # Sums stay on the device: reading them each iteration would stall a GPU.
        output: Any = engine.state.output
        predicted, lesion = output["pred"] > 0, output["label"] > 0.5
        self._sums["loss"] += output["loss"].detach()
        self._sums["overlap"] += (predicted & lesion).sum()
        self._sums["areas"] += predicted.sum() + lesion.sum()
        self._sums["correct"] += (predicted == lesion).sum()
        self._sums["pixels"] += lesion.numel()
        self._sums["iterations"] += 1

    def _note_validation(self, evaluator: Engine) -> None:
        self._pending = {name: float(value) for name, value in evaluator.state.metrics.items()}

    def _finish(self, engine: Engine) -> None:
        # Several processes see different images; the record is of all of them.
        sums = {name: float(idist.all_reduce(float(value))) for name, value in self._sums.items()}
        figures = {
            "train_loss": sums["loss"] / sums["iterations"],
            self.overlap: 2 * sums["overlap"] / sums["areas"] if sums["areas"] else 0.0,
            "train_accuracy": sums["correct"] / sums["pixels"],
            **self._pending,
        }
        for name, value in figures.items():
            self.values[name].append((engine.state.epoch, value))

    def write(self, _: Engine | None = None) -> None:
        """Write ``history.json`` and ``curves.png``, on the first process only."""
        if idist.get_rank() != 0:
            return
        write_json(self.folder / "history.json", self.state_dict())
        if self.values:
            plot_curves(dict(self.values), self.folder / "curves.png", synthetic=self.synthetic)


class StopEarly:
    """End a run when the validation metric has not improved for a while.

    It looks at the checkpoint's best epoch, which is saved, so a resumed run counts on where it was.

    Args:
        checkpoint: of the run; picks the best epoch.
        patience: epochs without improvement that are still allowed; None never stops.
    """

    def __init__(self, checkpoint: Checkpoint, patience: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, after the checkpoint."""
        engine.add_event_handler(Events.STARTED | Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.patience is None or self.checkpoint.best_score is None:
            return
        if engine.state.epoch - self.checkpoint.best_epoch >= self.patience:
            logger.info("No better epoch since %d: stopping early", self.checkpoint.best_epoch)
            engine.terminate()


class ProgressBar:
    """One bar for the whole run: epochs done, time left, loss and Dice.

    Args:
        history: the record that the figures are taken from.
        description: what stands before the bar.
    """

    def __init__(self, history: History, description: str = "training") -> None:
        self.history = history
        self.description = description
        self.bar: tqdm[Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, after the handler that resumes it."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE | Events.EXCEPTION_RAISED, self._close)

    def _open(self, engine: Engine) -> None:
        self.bar = tqdm(
            total=engine.state.max_epochs,
            disable=idist.get_rank() != 0,
            initial=engine.state.epoch,
            desc=self.description,
            unit="epoch",
            mininterval=1,
        )

    def _step(self, engine: Engine) -> None:
        latest = {
            name: f"{self.history.values[name][-1][1]:.3f}"
            for name in ("train_loss", self.history.overlap, "val_loss", "val_mean_dice", "val_auroc")
            if self.history.values.get(name)
        }
        if self.bar is not None:
            self.bar.set_postfix(latest, refresh=False)
            self.bar.update()

    def _close(self, engine: Engine, *error: BaseException) -> None:
        if self.bar is not None:
            self.bar.close()
        # ignite swallows an exception once a handler listens to EXCEPTION_RAISED.
        if error:
            raise error[0]


class ShuffleEachEpoch:
    """Tell a distributed sampler the epoch, so that every epoch has its own order, the same in all processes.

    Args:
        sampler: a ``DistributedSampler``.
    """

    def __init__(self, sampler: DistributedSampler) -> None:
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.sampler.set_epoch(engine.state.epoch)
