# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.checkpoint: a run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from bundle.errors import UserError
from bundle.training.checkpoint import BEST, LAST
from bundle.weights import load_tensors, save_atomically

ITERATIONS = 3
"""Of one epoch of the runs that `make_run` makes."""


class PowerCutError(Exception):
    """Stands for whatever ends a process in the middle of an epoch."""


def _cut_off(trainer: Engine, epoch: int) -> None:
    """Run until the second iteration of the epoch after ``epoch``."""

    @trainer.on(Events.ITERATION_COMPLETED)
    def cut(engine: Engine) -> None:
        if engine.state.iteration == epoch * ITERATIONS + 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        trainer.run()


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    make_run: Callable[..., Any], tmp_path: Path, epoch: int
) -> None:
    make_run(tmp_path / "whole", max_epochs=5).trainer.run()
    _cut_off(make_run(tmp_path / "cut", max_epochs=5).trainer, epoch)
    assert load_tensors(tmp_path / "cut" / LAST)["epoch"] == epoch
    make_run(tmp_path / "cut", max_epochs=5).trainer.run()
    for name in (LAST, BEST):
        whole, resumed = (load_tensors(tmp_path / folder / name) for folder in ("whole", "cut"))
        for part in whole.get("state", whole):
            assert _same(whole.get("state", whole)[part], resumed.get("state", resumed)[part]), (name, part)
        assert _same(whole, resumed), name


def test_runs_of_another_seed_differ(make_run: Callable[..., Any], tmp_path: Path) -> None:
    # The counterpart of the claim above: the random numbers matter at all.
    first, second = make_run(tmp_path / "a", max_epochs=1), make_run(tmp_path / "b", max_epochs=1)
    second.trainer.add_event_handler(Events.EPOCH_STARTED, lambda _: torch.manual_seed(99))
    first.trainer.run()
    second.trainer.run()
    states = [load_tensors(tmp_path / name / LAST)["state"]["network"] for name in "ab"]
    assert not _same(*states)


def test_a_finished_run_is_not_trained_on(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=2).trainer.run()
    before = (tmp_path / LAST).read_bytes()
    again = make_run(tmp_path, max_epochs=2)
    again.trainer.run()
    assert (tmp_path / LAST).read_bytes() == before
    assert again.checkpoint.best_epoch == load_tensors(tmp_path / LAST)["best_epoch"]


@pytest.mark.parametrize(
    ("higher_is_better", "scores", "best"), [(True, [0.2, 0.7, 0.7, 0.5], 2), (False, [0.9, 0.8, 0.3, 0.4], 3)]
)
def test_best_pt_is_the_first_epoch_with_the_best_metric(
    make_run: Callable[..., Any], tmp_path: Path, higher_is_better: bool, scores: list[float], best: int
) -> None:
    run = make_run(tmp_path, scores=scores, higher_is_better=higher_is_better)
    kept: dict[int, Any] = {}

    @run.evaluator.on(Events.COMPLETED)
    def keep(engine: Engine) -> None:
        state = run.checkpoint.network.state_dict()
        kept[engine.state.epoch] = {key: value.clone() for key, value in state.items()}

    run.trainer.run()
    assert _same(load_tensors(tmp_path / BEST), kept[best])
    last = load_tensors(tmp_path / LAST)
    assert (last["epoch"], last["best_epoch"], last["best_score"]) == (4, best, scores[best - 1])


def test_a_resumed_run_still_knows_the_best_score(make_run: Callable[..., Any], tmp_path: Path) -> None:
    scores = [0.2, 0.7, 0.5, 0.6]
    _cut_off(make_run(tmp_path, scores=scores).trainer, 2)
    best = (tmp_path / BEST).read_bytes()
    make_run(tmp_path, scores=scores).trainer.run()
    assert (tmp_path / BEST).read_bytes() == best


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_metric_that_is_not_a_number_is_never_the_best(
    make_run: Callable[..., Any], tmp_path: Path, higher_is_better: bool
) -> None:
    run = make_run(tmp_path, scores=[np.nan, 0.4, np.nan, 0.4], higher_is_better=higher_is_better)
    run.trainer.run()
    assert (run.checkpoint.best_epoch, run.checkpoint.best_score) == (2, 0.4)


def test_epochs_without_validation_do_not_compete(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, scores=[0.9, 0.2, 0.9, 0.3], val_interval=2)
    run.trainer.run()
    assert (run.checkpoint.best_epoch, run.checkpoint.best_score) == (4, 0.3)


def test_a_run_with_other_settings_is_refused_naming_what_differs(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=1, fingerprint={"filters": (2, 4), "seed": 0, "loss": "dice"}).trainer.run()
    before = (tmp_path / LAST).read_bytes()
    other = make_run(tmp_path, max_epochs=1, fingerprint={"filters": [2, 8], "seed": 0, "context": 16})
    with pytest.raises(UserError) as error:
        other.trainer.run()
    message = str(error.value)
    assert "\n" not in message
    for part in (str(tmp_path), "filters: [2, 4] there, [2, 8] here", "loss: dice there", "context", "output_dir"):
        assert part in message
    assert "seed" not in message
    assert (tmp_path / LAST).read_bytes() == before


def test_equal_settings_of_other_types_are_the_same_run(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=1, fingerprint={"filters": (2, 4)}).trainer.run()
    run = make_run(tmp_path, max_epochs=2, fingerprint={"filters": [2, 4]})
    run.trainer.run()
    assert run.trainer.state.epoch == 2


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_in_one_line(
    make_run: Callable[..., Any], tmp_path: Path, share: float
) -> None:
    make_run(tmp_path, max_epochs=1).trainer.run()
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError) as error:
        make_run(tmp_path, max_epochs=2).trainer.run()
    assert "\n" not in str(error.value)
    assert str(tmp_path / LAST) in str(error.value)


@pytest.mark.parametrize("content", [{"epoch": 1}, [1, 2], {"epoch": 1, "state": {}}, "another state"])
def test_a_checkpoint_of_something_else_is_refused_in_one_line(
    make_run: Callable[..., Any], tmp_path: Path, content: Any
) -> None:
    if content == "another state":
        make_run(tmp_path, max_epochs=1).trainer.run()
        content = load_tensors(tmp_path / LAST)
        content["state"]["network"] = {"weight": torch.zeros(3)}
    save_atomically(content, tmp_path / LAST)
    with pytest.raises(UserError) as error:
        make_run(tmp_path, max_epochs=2).trainer.run()
    assert "\n" not in str(error.value)
    assert str(tmp_path / LAST) in str(error.value)


def test_the_folder_holds_no_temporary_files(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=2).trainer.run()
    assert {path.name for path in tmp_path.iterdir()} == {LAST, BEST, "history.json", "curves.png"}
