# SPDX-License-Identifier: Apache-2.0
"""Claim a run folder and run a trainer, so that signals, full disks, second runs and lost processes end it in order."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import ignite.distributed as idist
import torch
from monai.engines import Trainer

from bundle.errors import UserError
from bundle.files import lock_folder
from bundle.training.checkpoint import LAST, Checkpoint, Stopped

logger = logging.getLogger(__name__)

LOST_PROCESSES = 1
"""Exit code of a process that lost the others; scripts/train.py then starts all of them again."""


def claim_folder(output_dir: str | os.PathLike[str]) -> None:
    """Make the run folder and keep other runs out of it until this process ends; before anything else writes there.

    Raises:
        UserError: another run writes into the folder, or it cannot be written.
        SystemExit: 1, when the first process of a distributed run could not claim it.
    """
    if idist.get_rank() == 0:
        lock_folder(output_dir)
    with _lost_processes_end_the_run():
        idist.barrier()


def run_training(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Train to the end, from the run folder's checkpoint if there is one.

    SIGINT and SIGTERM let the current iteration finish and the state be saved.

    Args:
        trainer: with the checkpoint among its handlers.
        checkpoint: of the run.

    Raises:
        UserError: the run folder cannot be written, or any other of the training's own.
        Stopped: after SIGINT or SIGTERM; the process ends with 130 or 143.
        SystemExit: 1, when another process of a distributed run is gone or hangs.
    """
    with _stop_on_signals(checkpoint), _lost_processes_end_the_run():
        try:
            trainer.run()
        except UserError:
            raise
        except Stopped as stop:
            _say_how_to_go_on(checkpoint, stop.signum)
            raise
        except Exception as error:
            if checkpoint.stop_signal is not None:  # it also hit another process of ours, such as a data worker
                _say_how_to_go_on(checkpoint, checkpoint.stop_signal)
                raise Stopped(checkpoint.stop_signal) from error
            if isinstance(error, OSError):
                where = error.filename or checkpoint.folder
                raise UserError(f"{where}: {error.strerror or error}; the last checkpoint is kept") from error
            raise


@contextlib.contextmanager
def _stop_on_signals(checkpoint: Checkpoint) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the checkpoint, which stops the run where its state can be saved."""

    def ask(number: int, _: FrameType | None) -> None:
        checkpoint.stop_signal = number
        # A signal to the whole process group kills data workers too, which torch would raise in mid-iteration.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, lambda *_: None)

    if threading.current_thread() is not threading.main_thread():  # a server that trains in a thread
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _say_how_to_go_on(checkpoint: Checkpoint, signum: int) -> None:
    if idist.get_rank() == 0:
        name = signal.Signals(signum).name
        logger.warning("Stopped by %s; the same command goes on from %s", name, checkpoint.folder / LAST)


@contextlib.contextmanager
def _lost_processes_end_the_run() -> Iterator[None]:
    """Turn the failure of a collective operation into one line and an exit code."""
    try:
        yield
    except RuntimeError as error:
        # gloo's errors are plain RuntimeErrors, known by their text.
        collective = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if idist.get_world_size() == 1 or not collective:
            raise
        logger.error(
            "process %d of %d gives up, another one is gone or hangs: %s",
            *(idist.get_rank(), idist.get_world_size(), str(error).splitlines()[0][:160]),
        )
        raise SystemExit(LOST_PROCESSES) from error
