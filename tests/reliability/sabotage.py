# SPDX-License-Identifier: Apache-2.0
"""Run a MONAI bundle command in which the trainer is sabotaged.

    python tests/reliability/sabotage.py KIND NUMBER run training --config_file configs/train.json …

All else is `python -m monai.bundle`. Prints ``sabotaged: WHERE`` when it strikes.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.trainer import Trainer


def _kill_after_epoch(trainer: Any, number: int) -> None:
    @trainer.on(Events.EPOCH_STARTED)
    def kill(engine: Engine) -> None:
        if engine.state.epoch == number + 1:
            os.kill(os.getpid(), signal.SIGKILL)


def _nan_in_image(trainer: Any, number: int) -> None:
    @trainer.on(Events.GET_BATCH_COMPLETED)
    def spoil(engine: Any) -> None:
        if engine.state.iteration == number - 1:  # it is counted when the batch is there
            image = engine.state.batch["image"]
            image[0, 0, 5, 7] = float("nan")
            _tell(_files(trainer), number)


def _inf_in_loss(trainer: Any, number: int) -> None:
    loss = trainer.loss_function

    def spoilt(*tensors: Any) -> Any:
        if trainer.state.iteration != number:
            return loss(*tensors)
        _tell(_files(trainer), number)
        return loss(*tensors) * float("inf")

    trainer.loss_function = spoilt


def _nan_in_gradient(trainer: Any, number: int) -> None:
    def spoil(gradient: Any) -> Any:
        if trainer.state.iteration != number:
            return gradient
        _tell(_files(trainer), number)
        return gradient * float("nan")

    next(trainer.network.parameters()).register_hook(spoil)


def _files(trainer: Any) -> str:
    return Path(trainer.state.batch["image"].meta["filename_or_obj"][0]).name


def _tell(file: str, iteration: int) -> None:
    print(f"sabotaged: iteration {iteration}, {file}", flush=True)


KINDS = {
    "kill_after_epoch": _kill_after_epoch,
    "nan_in_image": _nan_in_image,
    "inf_in_loss": _inf_in_loss,
    "nan_in_gradient": _nan_in_gradient,
}


def main() -> None:
    """Patch the trainer, then be `python -m monai.bundle`."""
    kind, number = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]
    run = Trainer.run

    def sabotaged(self: Any) -> None:
        KINDS[kind](self, number)
        run(self)

    Trainer.run = sabotaged  # type: ignore[method-assign]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
