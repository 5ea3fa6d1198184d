# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.tracking, and about what weights a moving average and a federated client begin at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine

from bundle.training import Checkpoint, ListOutput, MovingAverage
from bundle.training.checkpoint import LAST


def _trainer(network: torch.nn.Module) -> Engine:
    def step(_: Engine, batch: float) -> dict[str, float]:
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(1.0)
        return {"loss": batch}

    return Engine(step)


def test_the_loss_reaches_what_reads_decollated_output() -> None:
    engine = _trainer(torch.nn.Linear(1, 1))
    read: list[Any] = []
    ListOutput().attach(engine)
    take_loss = from_engine(["loss"], first=True)  # MONAI's setting for --tracking mlflow
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: read.append(take_loss(e.state.output)))
    engine.run([0.5, 0.25])
    assert read == [0.5, 0.25]


@pytest.mark.parametrize("name", ["train", "train_classifier"])
def test_the_handler_stands_last_in_the_configs(name: str, root: Path) -> None:
    handlers = json.loads((root / "configs" / f"{name}.json").read_text())["train"]["handlers"]
    assert handlers[-1] == {"_target_": "bundle.training.ListOutput"}


def test_the_average_begins_at_weights_that_were_loaded_after_it_was_made() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, momentum=0.5)
    engine = _trainer(network)
    average.attach(engine)
    for loaded in (10.0, 100.0):  # as two rounds of a federation
        torch.nn.init.constant_(network.weight, loaded)
        engine.run([0.0], max_epochs=int(engine.state.epoch or 0) + 1)
        assert float(average.ema_model.weight.detach()) == pytest.approx(loaded + 0.5)


@pytest.mark.parametrize(("resume", "weight"), [(True, 3.0), (False, 101.0)])
def test_a_client_that_starts_again_trains_from_the_servers_weights(
    resume: bool, weight: float, tmp_path: Path
) -> None:
    for given, epochs in ((0.0, 3), (100.0, 1)):
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(network.weight, given)
        engine = _trainer(network)
        checkpoint = Checkpoint(tmp_path, Engine(lambda *_: None), network, {"network": network}, resume=resume)
        checkpoint.attach(engine)
        engine.run([0.0], max_epochs=epochs)
    assert float(network.weight.detach()) == weight  # with resume it has the three epochs of its own, and trains none
    assert (tmp_path / LAST).exists()
