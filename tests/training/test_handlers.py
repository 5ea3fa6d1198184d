# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.handlers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from PIL import Image

from bundle.errors import UserError
from bundle.networks.weights import load_tensors
from bundle.reports.figures import plot_curves
from bundle.training import Reseed
from bundle.training.checkpoint import LAST


def _draws(seed: int, first_epoch: int = 0, epochs: int = 3) -> list[tuple[float, float]]:
    """The first random numbers of each epoch, by torch and NumPy."""
    engine = Engine(lambda *_: (float(torch.rand(1)), float(np.random.rand())))
    Reseed(seed).attach(engine)
    drawn: list[tuple[float, float]] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: drawn.append(e.state.output))

    @engine.on(Events.STARTED)
    def skip(e: Engine) -> None:
        e.state.epoch = first_epoch

    engine.run([0], max_epochs=epochs)
    return drawn


def test_an_epoch_draws_the_same_whether_others_came_before_it_or_not() -> None:
    whole = _draws(seed=5)
    assert _draws(seed=5, first_epoch=2) == whole[2:]
    assert len(set(whole)) == 3


def test_no_epoch_of_one_seed_repeats_an_epoch_of_the_next() -> None:
    assert not set(_draws(seed=0)) & set(_draws(seed=1))


def test_no_process_repeats_the_numbers_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    first = _draws(seed=0)
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    assert not set(first) & set(_draws(seed=0))


@pytest.mark.parametrize("seed", [0, 2**31, 2**40, -1])
def test_every_seed_is_possible(seed: int) -> None:
    assert len(_draws(seed)) == 3


@pytest.mark.parametrize("progress_bar", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_stops_the_run_and_is_named(
    make_run: Callable[..., Any], tmp_path: Path, progress_bar: bool, bad: float
) -> None:
    make_run(tmp_path, max_epochs=2).trainer.run()
    before = (tmp_path / LAST).read_bytes()
    make_run.items[4]["image"][0, 2, 3] = bad  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"pixels are not finite in epoch 3, iteration \d, on case4\.png;") as error:
        make_run(tmp_path, max_epochs=4, progress_bar=progress_bar).trainer.run()
    assert "\n" not in str(error.value)
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_files_of_the_batch(
    make_run: Callable[..., Any], tmp_path: Path, bad: float
) -> None:
    run = make_run(tmp_path, max_epochs=4)
    loss = run.trainer.loss_function
    run.trainer.loss_function = lambda *tensors: loss(*tensors) * (bad if run.trainer.state.iteration == 8 else 1)
    with pytest.raises(
        UserError, match=r"loss is (nan|inf) in epoch 3, iteration 8, on case\d\.png, case\d\.png; look"
    ):
        run.trainer.run()
    saved = load_tensors(tmp_path / LAST)
    assert saved["epoch"] == 2
    assert all(torch.isfinite(value.float()).all() for value in saved["state"]["network"].values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change(
    make_run: Callable[..., Any], tmp_path: Path, bad: float
) -> None:
    run = make_run(tmp_path, max_epochs=2)
    weight = next(run.network.parameters())
    weight.register_hook(lambda gradient: gradient * bad if run.trainer.state.iteration == 4 else gradient)
    before: dict[int, torch.Tensor] = {}
    run.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: before.update({engine.state.iteration: weight.detach().clone()})
    )
    with pytest.raises(UserError, match=r"gradient's norm is (nan|inf) in epoch 2, iteration 4, on case\d\.png"):
        run.trainer.run()
    assert max(before) == 4
    assert torch.equal(weight, before[4])
    assert load_tensors(tmp_path / LAST)["epoch"] == 1


def test_a_gradient_scaler_may_overflow(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=1)
    run.trainer.optimizer.step = lambda: None  # what the scaler does with such a step
    next(run.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    run.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: setattr(engine, "scaler", torch.amp.GradScaler("cpu"))
    )
    run.trainer.run()
    assert run.trainer.state.epoch == 1


def test_after_a_nan_the_run_goes_on_from_the_last_good_epoch(make_run: Callable[..., Any], tmp_path: Path) -> None:
    good = make_run.items[4]["image"].clone()  # type: ignore[attr-defined]
    make_run(tmp_path, max_epochs=1).trainer.run()
    make_run.items[4]["image"][:] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(UserError):
        make_run(tmp_path, max_epochs=3).trainer.run()
    make_run.items[4]["image"][:] = good  # type: ignore[attr-defined]
    make_run(tmp_path, max_epochs=3).trainer.run()
    assert load_tensors(tmp_path / LAST)["epoch"] == 3


def test_history_writes_training_and_validation_as_json_and_png(
    make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.training.handlers.plot_curves", plot_curves)
    make_run(tmp_path, max_epochs=4, scores=[0.1, 0.2, 0.3, 0.4], val_interval=2).trainer.run()
    record = json.loads((tmp_path / "history.json").read_text())
    assert set(record) == {"train_loss", "train_dice", "train_accuracy", "val_mean_dice"}
    assert record["val_mean_dice"] == [[2, 0.2], [4, 0.4]]
    for name in ("train_loss", "train_dice", "train_accuracy"):
        assert [epoch for epoch, _ in record[name]] == [1, 2, 3, 4]
        assert all(np.isfinite(value) and value > 0 for _, value in record[name])
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.format == "PNG"
        assert min(curves.size) > 100


def test_history_pools_the_pixels_of_an_epoch(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=1)
    outputs: list[dict[str, torch.Tensor]] = []

    @run.trainer.on(Events.ITERATION_COMPLETED)
    def keep(engine: Engine) -> None:
        output: Any = engine.state.output
        outputs.append({key: value.detach().clone() for key, value in output.items()})

    run.trainer.run()
    predicted = torch.cat([output["pred"] for output in outputs]) > 0
    lesion = torch.cat([output["label"] for output in outputs]) > 0.5
    values = {name: pairs[0][1] for name, pairs in run.history.values.items()}
    assert values["train_accuracy"] == pytest.approx(float((predicted == lesion).float().mean()), rel=1e-6)
    dice = 2 * float((predicted & lesion).sum()) / float(predicted.sum() + lesion.sum())
    assert values["train_dice"] == pytest.approx(dice, rel=1e-6)
    assert values["train_loss"] == pytest.approx(np.mean([float(output["loss"]) for output in outputs]), rel=1e-5)


def test_history_of_a_resumed_run_has_every_epoch_once(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=2).trainer.run()
    make_run(tmp_path, max_epochs=4).trainer.run()
    record = json.loads((tmp_path / "history.json").read_text())
    assert all([epoch for epoch, _ in pairs] == [1, 2, 3, 4] for pairs in record.values())


def test_a_run_without_improvement_stops_after_its_patience_and_stays_stopped(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    scores = [0.1, 0.5, 0.4, 0.4, 0.9, 0.9]
    run = make_run(tmp_path, max_epochs=6, scores=scores, patience=2)
    run.trainer.run()
    assert (run.trainer.state.epoch, run.checkpoint.best_epoch) == (4, 2)
    assert len(json.loads((tmp_path / "history.json").read_text())["train_loss"]) == 4
    before = (tmp_path / LAST).read_bytes()
    again = make_run(tmp_path, max_epochs=6, scores=scores, patience=2)
    again.trainer.run()
    assert (again.trainer.state.epoch, again.trainer.state.iteration) == (4, run.trainer.state.iteration)
    assert (tmp_path / LAST).read_bytes() == before


def test_a_run_that_improves_within_its_patience_is_not_stopped(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=6, scores=[0.1, 0.5, 0.4, 0.6, 0.5, 0.7], patience=2)
    run.trainer.run()
    assert run.trainer.state.epoch == 6


def test_without_patience_nothing_stops_early(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=5, scores=[0.5, 0.4, 0.3, 0.2, 0.1])
    run.trainer.run()
    assert run.trainer.state.epoch == 5


def test_a_run_is_not_stopped_before_its_first_validation(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=3, scores=[0.1, 0.2, 0.3], val_interval=3, patience=2)
    run.trainer.run()
    assert (run.trainer.state.epoch, run.checkpoint.best_epoch) == (3, 3)


def test_the_progress_bar_counts_epochs_and_shows_the_figures(
    make_run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, max_epochs=2, progress_bar=True).trainer.run()
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "train_loss=" in shown
    make_run(tmp_path, max_epochs=3, progress_bar=True).trainer.run()
    assert "2/3" in capsys.readouterr().err
