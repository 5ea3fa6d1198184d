# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a crash can not spoil, and the run folder that they live in."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler

from bundle.errors import UserError
from bundle.weights import flat_state_dict, load_tensors, save_atomically

logger = logging.getLogger(__name__)

LAST, BEST = "last.pt", "best.pt"


class Checkpoint:
    """Save the whole state of a run after each epoch, keep the best weights apart, and go on from there.

    ``last.pt`` holds everything that the next epoch depends on; ``best.pt`` a flat state dict of the network that was
    validated (the moving average where there is one). A run with the same output folder continues after its last
    epoch. Attach it after the handlers whose work it saves.

    Args:
        output_dir: the run folder.
        evaluator: validation engine, whose ``state.metrics`` are compared.
        network: the network whose weights are validated and shipped.
        state: name -> object with ``state_dict`` / ``load_state_dict``: network, optimizer, scheduler, history …
        metric: name of the validation metric that picks the best epoch.
        higher_is_better: false for a loss.
        fingerprint: what must be equal for a run to be continued, such as the filters and the data's checksum.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        evaluator: Engine,
        network: torch.nn.Module,
        state: Mapping[str, Any],
        metric: str = "val_mean_dice",
        higher_is_better: bool = True,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(output_dir)
        self.evaluator = evaluator
        self.network = network
        self.state = dict(state)
        self.metric = metric
        self.sign = 1.0 if higher_is_better else -1.0
        self.fingerprint = json.loads(json.dumps(dict(fingerprint or {}), default=str))
        self.best_score: float | None = None
        self.best_epoch = 0
        self._validated = False

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        self.evaluator.add_event_handler(Events.COMPLETED, self._note_validation)
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def _note_validation(self, _: Engine) -> None:
        self._validated = True

    def resume(self, engine: Engine) -> None:
        """Continue after the last saved epoch, if there is one.

        Raises:
            UserError: the folder holds a run of other settings, or a file that can not be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LAST
        if not path.exists():
            return
        saved = load_tensors(path)
        try:
            self._refuse_another_run(saved["fingerprint"])
            for name, item in self.state.items():
                item.load_state_dict(saved["state"][name])
            # The epoch length may differ (another batch size or number of processes), so only whole epochs count.
            engine.state.epoch = saved["epoch"]
            engine.state.iteration = saved["epoch"] * (engine.state.epoch_length or 0)
            self.best_score, self.best_epoch = saved["best_score"], saved["best_epoch"]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(
                f"{path}: not the state of such a run ({reason}); name another --output_dir, or delete this one"
            ) from error
        logger.info("Resuming %s after epoch %d", self.folder, saved["epoch"])

    def _refuse_another_run(self, saved: Mapping[str, Any]) -> None:
        differing = [
            f"{key}: {saved.get(key)} there, {self.fingerprint.get(key)} here"
            for key in sorted({*saved, *self.fingerprint})
            if saved.get(key) != self.fingerprint.get(key)
        ]
        if differing:
            raise UserError(
                f"{self.folder}: holds a run with other settings ({'; '.join(differing)}); "
                "name another --output_dir, or delete this one to start afresh"
            )

    def save(self, engine: Engine) -> None:
        """Write ``last.pt``, after ``best.pt`` when a validation of this epoch beats the earlier ones.

        Every process keeps the score, the first one writes.
        """
        if self._validated:
            self._validated = False
            score = float(self.evaluator.state.metrics[self.metric])
            better = self.best_score is None or self.sign * score > self.sign * self.best_score
            if better and math.isfinite(score):
                self.best_score, self.best_epoch = score, engine.state.epoch
                if idist.get_rank() == 0:
                    save_atomically(flat_state_dict(self.network), self.folder / BEST)
        if idist.get_rank() == 0:
            state = {name: item.state_dict() for name, item in self.state.items()}
            record = {"epoch": engine.state.epoch, "best_score": self.best_score, "best_epoch": self.best_epoch}
            save_atomically({**record, "fingerprint": self.fingerprint, "state": state}, self.folder / LAST)


class MovingAverage(EMAHandler):
    """ignite's moving average of the weights, with a state for `Checkpoint`.

    ignite counts the iterations of the momentum's warm-up from the start of the process, so that a resumed run would
    begin it anew and forget the average that it has.
    """

    def state_dict(self) -> dict[str, Any]:
        """The averaged network and the iterations of the warm-up."""
        done = self.momentum_scheduler.event_index if self.momentum_scheduler is not None else 0
        return {"network": self.ema_model.state_dict(), "iterations": done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier state; only after the handler was attached, which makes the warm-up."""
        self.ema_model.load_state_dict(state["network"])
        if self.momentum_scheduler is not None:
            self.momentum_scheduler.event_index = state["iterations"]
