# SPDX-License-Identifier: Apache-2.0
"""Handlers of the training engine: reseeding, a guard against NaN, the record of a run and its progress bar."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines.utils import IterationEvents
from monai.utils import set_determinism
from tqdm import tqdm

from bundle.errors import UserError
from bundle.files import write_json
from bundle.reports.figures import plot_curves
from bundle.training.batch import as_plain_tensor, file_names
from bundle.training.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


def shared(handler: Any) -> Any:
    """Return a handler that other parts of a config refer to as well.

    MONAI's tools read every entry of a handlers list as a component with a ``_target_``; a plain "@id" crashes them.
    """
    return handler


class Reseed:
    """Make the random numbers of an iteration depend on (seed, epoch, iteration, process) alone.

    An epoch, or the rest of one, then draws the same whether the run was interrupted before it or not: the order of
    the images, MONAI's random transforms, augmentation and dropout. A run that goes on inside an epoch passes over the
    batches that it has seen.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = int(seed) % 2**63
        self._first_batch = True

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start_iteration)

    def _start(self, _: Engine) -> None:
        self._first_batch = True

    def _start_epoch(self, engine: Engine) -> None:
        self._reseed(engine.state.epoch, 0)
        # These hold random states of their own; those in data workers are seeded from torch's by MONAI.
        set_rnd(getattr(engine.state.dataloader, "dataset", None), seed=torch.initial_seed() % 2**32)

    def _start_iteration(self, engine: Engine) -> None:
        seen = self._seen(engine)
        if self._first_batch:
            self._first_batch = False
            # Before the new seed, since the loader draws the order of the epoch while it makes its first batch.
            for _ in range(seen):
                next(engine._dataloader_iter)  # type: ignore[arg-type]
        if seen:
            self._reseed(engine.state.epoch, seen)

    @staticmethod
    def _seen(engine: Engine) -> int:
        """How many batches of the current epoch were trained on."""
        return engine.state.iteration % engine.state.epoch_length if engine.state.epoch_length else 0

    def _reseed(self, epoch: int, iteration: int) -> None:
        entropy = (self.seed, epoch, iteration, idist.get_rank())
        set_determinism(int(np.random.SeedSequence(entropy).generate_state(1)[0]), use_deterministic_algorithms=None)


class StopOnNonFinite:
    """Stop before the weights change when an image, the loss or a gradient is NaN or infinite, and name the files.

    Without it a run trains on and its NaN weights are saved. The last checkpoint stays as it was. A gradient scaler
    (``amp`` of MONAI's trainer) overflows on purpose and passes over such steps by itself: then only the loss counts.
    """

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._check_images)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._check_gradient)

    def _check_images(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        finite = torch.isfinite(as_plain_tensor(batch["image"])).flatten(1).all(1)
        if not finite.all():
            names = file_names(batch) or ["unnamed image"] * len(finite)
            guilty = [name for name, good in zip(names, finite.tolist(), strict=True) if not good]
            self._stop(engine, "pixels are not finite", guilty)

    def _check_gradient(self, engine: Engine) -> None:
        output: Any = engine.state.output
        network: Any = engine.network  # type: ignore[attr-defined]
        scaled = getattr(engine, "scaler", None) is not None
        gradients = [] if scaled else [weight.grad for weight in network.parameters() if weight.grad is not None]
        loss, norm = output["loss"].detach(), torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(loss + norm):  # one wait for a GPU, not two
            what = f"the gradient's norm is {float(norm)}" if torch.isfinite(loss) else f"loss is {float(loss)}"
            batch: Any = engine.state.batch
            self._stop(engine, what, file_names(batch) or ["unnamed images"])

    @staticmethod
    def _stop(engine: Engine, what: str, names: list[str]) -> None:
        raise UserError(
            f"{what} in epoch {engine.state.epoch}, iteration {engine.state.iteration}, on {', '.join(names)}; "
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
        """The record, for the checkpoint; inside an epoch also its sums so far, over all processes.

        Every process must call it.
        """
        sums = {name: idist.all_reduce(value.clone()) for name, value in self._sums.items()}
        return {"record": self.record(), "sums": sums}

    def record(self) -> dict[str, list[list[float]]]:
        """Name of a figure -> its (epoch, value) pairs."""
        return {name: [list(pair) for pair in pairs] for name, pairs in self.values.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up an earlier record."""
        record = {
            name: [(int(epoch), float(value)) for epoch, value in pairs] for name, pairs in state["record"].items()
        }
        self.values = defaultdict(list, record)
        self._sums = dict(state["sums"]) if idist.get_rank() == 0 else {}

    def _start(self, engine: Engine) -> None:
        if not engine.state.epoch_length or engine.state.iteration % engine.state.epoch_length == 0:
            self._sums = {}  # else the run goes on inside an epoch
        self._pending = {}

    @torch.no_grad()
    def _add(self, engine: Engine) -> None:
        # Sums stay on the device: reading them each iteration would stall a GPU. Double precision makes them
        # independent of their order, so of where a run was interrupted.
        output: Any = engine.state.output
        lesion = output["label"] > 0.5
        predicted = output["pred"][:, : lesion.shape[1]] > 0  # without the channel of a presence head
        figures = {
            "loss": output["loss"].detach(),
            "overlap": (predicted & lesion).sum(),
            "areas": predicted.sum() + lesion.sum(),
            "correct": (predicted == lesion).sum(),
            "pixels": torch.tensor(lesion.numel()),
            "iterations": torch.tensor(1),
        }
        for name, value in figures.items():
            self._sums[name] = value.double() + self._sums.get(name, 0.0)

    def _note_validation(self, evaluator: Engine) -> None:
        self._pending = {name: float(value) for name, value in evaluator.state.metrics.items()}

    def _finish(self, engine: Engine) -> None:
        # Several processes see different images; the record is of all of them.
        sums = {name: float(idist.all_reduce(value)) for name, value in self._sums.items()}
        self._sums = {}
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
        write_json(self.folder / "history.json", self.record())
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


class ShareBuffers:
    """Give all processes the buffers of the first one before they validate: each averaged those of its own batches.

    Otherwise every process would validate a slightly different network. DistributedDataParallel can do it as well, but
    in every forward pass, which hangs when processes validate different numbers of batches.
    """

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        network: Any = engine.network  # type: ignore[attr-defined]
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)
