# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a crash can not spoil, and the run folder that they live in."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch.nn.parallel import DistributedDataParallel

from bundle.errors import InputError, UserError
from bundle.files import make_folder, remove_leftovers
from bundle.networks.weights import flat_state_dict, load_tensors, save_atomically
from bundle.training.schedule import continue_schedule, plan_schedule

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
EPOCHS, DATA = "max_epochs", "dataset_sha256"  # of a fingerprint


class Stopped(SystemExit):
    """The end of a run that a signal asked for, after its state was saved.

    Args:
        signum: the signal's number; the exit code is 128 more.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


class Checkpoint:
    """Save the whole state of a run at the end of epochs, keep the best weights apart, and go on from there.

    ``last.pt`` holds everything that the next iteration depends on, ``previous.pt`` the same of the save before;
    ``best.pt`` is a flat state dict of the network that was validated (the moving average where there is one). A run
    with the same output folder goes on from ``last.pt``, or from ``previous.pt`` when that is damaged. Attach it after
    the handlers whose work it saves.

    Networks are saved without DistributedDataParallel around them, so a run may go on with another number of processes.

    A run that has come to its end goes on where ``max_epochs`` is raised: its schedule ended at a rate of zero, so a
    new one begins, see `bundle.training.schedule`.

    Args:
        output_dir: the run folder; several processes must see one and the same.
        evaluator: validation engine, whose ``state.metrics`` are compared.
        network: the network whose weights are validated and shipped.
        state: name -> object with ``state_dict`` / ``load_state_dict``: network, optimizer, scheduler, history …
        metric: name of the validation metric that picks the best epoch.
        higher_is_better: false for a loss.
        fingerprint: what must be equal for a run to be continued, such as the filters and the data's checksum.
        resume: false to begin afresh, over what the folder holds: in a federation the weights come from the server.
        time_share: largest part of the run's time that goes into saving: epochs so short that saving each would take
            more share a save. A best epoch, the end and a signal are saved always; ``math.inf`` saves each epoch.
        continue_rate: learning rate from which a finished run goes on; None refuses to.

    Attributes:
        stop_signal: set to a signal's number, it makes the run save and leave after its current iteration.
        continued: how often a finished run went on, each with the epochs, the rate and the steps of the warm-up.
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
        resume: bool = True,
        time_share: float = 0.01,
        continue_rate: float | None = None,
    ) -> None:
        if not time_share > 0:
            raise ValueError(f"time_share: {time_share} must be more than 0, such as 0.01")
        self.folder = Path(output_dir)
        self.evaluator = evaluator
        self.network = network
        self.state = {name: _without_ddp(item) for name, item in state.items()}
        self.metric = metric
        self.sign = 1.0 if higher_is_better else -1.0
        self.fingerprint = json.loads(json.dumps(dict(fingerprint or {}), default=str))
        self.best_score: float | None = None
        self.best_epoch = 0
        self.continue_rate = continue_rate
        self.continued: list[dict[str, float]] = []
        self.stop_signal: int | None = None
        self._validated = False
        self._last_is_whole = False
        self._resumed = not resume
        self._time_share = time_share
        self._next_save = 0.0
        self._saved_iteration = 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        self.evaluator.add_event_handler(Events.COMPLETED, self._note_validation)
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_inside_an_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self._save_the_end)

    def _note_validation(self, _: Engine) -> None:
        self._validated = True

    def resume(self, engine: Engine) -> None:
        """Go on from the newest checkpoint that is whole, if there is any.

        A trainer that runs once more in the same process, as in federated learning, goes on from what it has.

        Raises:
            UserError: the folder holds a run of other settings, no checkpoint in it is whole, its best weights are
                damaged, or the processes see different folders.
        """
        make_folder(self.folder)
        if self._resumed:
            return
        self._resumed = True
        self._require_one_folder()
        name, saved = self._newest()
        if idist.get_rank() == 0:
            remove_leftovers(self.folder)
        if saved is None:
            return
        try:
            self._refuse_another_run(saved)
            length = engine.state.epoch_length or 0
            # Another number of processes can make an epoch of another length: then only whole epochs count.
            done = saved["iteration"] if saved["epoch_length"] == length else 0
            for key, item in self.state.items():
                item.load_state_dict(saved["state"][key])
            scaler = getattr(engine, "scaler", None)
            if scaler is not None and saved["scaler"]:
                scaler.load_state_dict(saved["scaler"])
            engine.state.epoch = saved["epoch"]
            engine.state.iteration = self._saved_iteration = saved["epoch"] * length + done
            self.best_score, self.best_epoch = saved["best_score"], saved["best_epoch"]
            self._take_up_schedule(engine, saved)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(
                f"{self.folder / name}: not the state of such a run ({reason}); name another --output_dir, or delete "
                "this one"
            ) from error
        if self.best_epoch:
            self._require_best()
        self._last_is_whole = name == LAST and saved["iteration"] == 0
        place = f" and {done} of {length} batches" if done else ""
        logger.info("Resuming %s after epoch %d%s", self.folder, saved["epoch"], place)

    def _require_one_folder(self) -> None:
        """Refuse processes that see different folders, as nodes may do: each would go on from another state."""
        if idist.get_world_size() > 1:
            here = " and ".join(name for name in (LAST, PREVIOUS) if (self.folder / name).exists()) or "no checkpoint"
            found: Any = idist.all_gather(here)
            if len(set(found)) > 1:
                raise UserError(f"{self.folder}: the processes see {', '.join(found)}; it must be one shared folder")

    def _newest(self) -> tuple[str, Any]:
        """Return the name and content of the newest checkpoint that is whole; ("", None) where there is none yet."""
        broken: list[UserError] = []
        for name in (LAST, PREVIOUS):
            if (self.folder / name).exists():
                try:
                    saved = load_tensors(self.folder / name, sealed=True)
                except UserError as error:
                    broken.append(error)
                    continue
                if broken:
                    logger.warning("%s; going on from %s", broken[0], name)
                return name, saved
        if broken:
            reasons = " | ".join(str(error).split(";")[0] for error in broken)
            raise UserError(f"{reasons}; restore one of them, or delete {self.folder} to start afresh")
        return "", None

    def _refuse_another_run(self, saved: Mapping[str, Any]) -> None:
        there = saved["fingerprint"]
        differing = [key for key in sorted({*there, *self.fingerprint}) if there.get(key) != self.fingerprint.get(key)]
        if not differing or (differing == [EPOCHS] and self._goes_on_longer(saved)):
            return
        told = "; ".join(f"{key}: {there.get(key)} there, {self.fingerprint.get(key)} here" for key in differing)
        mend = "name another --output_dir, or delete this one to start afresh"
        if DATA in differing:
            raise UserError(f"{self.folder}: the data changed since this run began ({told}); {mend}")
        if differing == [EPOCHS]:
            mend += f"; a run that was finished, with --max_epochs {there.get(EPOCHS)}, goes on with more"
        raise UserError(f"{self.folder}: holds a run with other settings ({told}); {mend}")

    def _goes_on_longer(self, saved: Mapping[str, Any]) -> bool:
        """Whether a saved run had come to its end, and more epochs are asked for now."""
        before, now = saved["fingerprint"].get(EPOCHS), self.fingerprint.get(EPOCHS)
        return self.continue_rate is not None and before is not None and now > before and saved["epoch"] >= before

    def _take_up_schedule(self, engine: Engine, saved: Mapping[str, Any]) -> None:
        """Begin a new schedule where a finished run goes on, or go on with the one that was begun then."""
        self.continued = list(saved.get("continued", []))
        scheduler = self.state.get("lr_scheduler")
        before, now = saved["fingerprint"].get(EPOCHS), self.fingerprint.get(EPOCHS)
        if before != now and self.continue_rate is not None:
            length = engine.state.epoch_length or 1
            self.continued.append(plan_schedule(scheduler, saved["epoch"], int(now), length, self.continue_rate))
            logger.info("%s was finished: going on, %s", self.folder, self.continued[-1])
        if self.continued:
            continue_schedule(scheduler, self.continued[-1])

    def _require_best(self) -> None:
        """Say at the start, not after hours of training, that the best epoch's weights are gone."""
        try:
            load_tensors(self.folder / BEST, sealed=True)
        except UserError as error:
            reason = str(error).split(";")[0]
            raise UserError(
                f"{reason}, but epoch {self.best_epoch} was the best so far; restore it, or delete {self.folder} to "
                "start afresh"
            ) from error

    def save(self, engine: Engine) -> None:
        """Write ``last.pt`` where it is due, after ``best.pt`` when a validation of this epoch beats the earlier ones.

        Every process keeps the score, the first one writes.
        """
        due = self._is_time()
        if self._validated:
            self._validated = False
            score = float(self.evaluator.state.metrics[self.metric])
            better = self.best_score is None or self.sign * score > self.sign * self.best_score
            if better and math.isfinite(score):
                due = True
                self.best_score, self.best_epoch = score, engine.state.epoch
                if idist.get_rank() == 0:
                    self._require_folder()
                    save_atomically(flat_state_dict(self.network), self.folder / BEST, seal=True)
        signum = self._asked_to_stop()
        if due or signum:
            self._write(engine, engine.state.epoch, 0)
        if signum:
            _leave(signum)

    def _save_the_end(self, engine: Engine) -> None:
        if engine.state.iteration != self._saved_iteration:
            self._write(engine, *divmod(engine.state.iteration, engine.state.epoch_length or 1))

    def _stop_inside_an_epoch(self, engine: Engine) -> None:
        signum = self._asked_to_stop()
        length = engine.state.epoch_length or 0
        done = engine.state.iteration % length if length else 0
        if signum and done:  # the last iteration leaves it to the end of the epoch, which is near
            self._write(engine, engine.state.epoch - 1, done)
            _leave(signum)

    def _asked_to_stop(self) -> int:
        """The signal that any of the processes got, or 0: all must leave together, or one would wait for the others."""
        return int(idist.all_reduce(self.stop_signal or 0, "MAX"))

    def _is_time(self) -> bool:
        """Whether saving now keeps to its share of the time; the first process's clock counts for all."""
        return bool(idist.all_reduce(int(idist.get_rank() == 0 and time.perf_counter() >= self._next_save), "MAX"))

    def _write(self, engine: Engine, epoch: int, iteration: int) -> None:
        """Write ``last.pt``: so many whole epochs are done, and so many iterations of the next one."""
        began, self._saved_iteration = time.perf_counter(), engine.state.iteration
        # In every process, since the history adds up what all of them have seen.
        state = {name: item.state_dict() for name, item in self.state.items()}
        if idist.get_rank() != 0:
            return
        self._require_folder()
        if self._last_is_whole:
            os.replace(self.folder / LAST, self.folder / PREVIOUS)
        scaler = getattr(engine, "scaler", None)
        record = {
            "epoch": epoch,
            "iteration": iteration,
            "epoch_length": engine.state.epoch_length,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "fingerprint": self.fingerprint,
            "continued": self.continued,
            "state": state,
            "scaler": scaler.state_dict() if scaler is not None else {},
        }
        save_atomically(record, self.folder / LAST, seal=True)
        self._last_is_whole = iteration == 0
        ended = time.perf_counter()
        self._next_save = ended + (ended - began) / self._time_share

    def _require_folder(self) -> None:
        # Made anew, it would lack the best weights and the lock.
        if not self.folder.is_dir():
            raise InputError(self.folder, "the run folder is gone", "restore it; the same command then goes on")


def _leave(signum: int) -> NoReturn:
    idist.barrier()  # torchrun kills the others as soon as one has left
    raise Stopped(signum)


def _without_ddp(item: Any) -> Any:
    return item.module if isinstance(item, DistributedDataParallel) else item


class MovingAverage(EMAHandler):
    """ignite's moving average of the weights, with a state for `Checkpoint`, that begins where its network begins.

    ignite counts the iterations of the momentum's warm-up from the start of the process, so that a resumed run would
    begin it anew and forget the average that it has.

    The average begins at the weights that the network has when the training starts, not when it was built: tools load
    weights in between, and a federation brings new ones for every round.
    """

    def attach(self, engine: Engine, *args: Any, **kwargs: Any) -> None:
        """Register with a trainer, after what loads pretrained weights and before the checkpoint that resumes."""
        engine.add_event_handler(Events.STARTED, self._begin)
        super().attach(engine, *args, **kwargs)

    def _begin(self) -> None:
        self.ema_model.load_state_dict(_without_ddp(self.model).state_dict())

    @torch.no_grad()
    def _update_ema_model(self, engine: Engine, name: str) -> None:
        """As ignite's, but all tensors at once: one by one they take as long as a layer of the network."""
        if self.handle_buffers != "update":
            return super()._update_ema_model(engine, name)
        network = _without_ddp(self.model)
        averages: list[torch.Tensor] = [*self.ema_model.parameters(), *self.ema_model.buffers()]
        pairs = list(zip(averages, [*network.parameters(), *network.buffers()], strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(
            [pair[0] for pair in floating], [pair[1] for pair in floating], getattr(engine.state, name)
        )
        for average, value in pairs:
            if not average.is_floating_point():  # a count of batches
                average.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The averaged network and the iterations of the warm-up."""
        done = self.momentum_scheduler.event_index if self.momentum_scheduler is not None else 0
        return {"network": self.ema_model.state_dict(), "iterations": done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier state; only after the handler was attached, which makes the warm-up."""
        self.ema_model.load_state_dict(state["network"])
        if self.momentum_scheduler is not None:
            self.momentum_scheduler.event_index = state["iterations"]
