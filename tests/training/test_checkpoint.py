# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.checkpoint: a run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler

from bundle import files
from bundle.errors import UserError
from bundle.networks.weights import load_tensors, save_atomically
from bundle.training import Checkpoint, MovingAverage
from bundle.training.checkpoint import BEST, LAST, PREVIOUS

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


def _stop_after(run: Any, iteration: int) -> None:
    """Run until a signal asks to stop while an iteration is on its way."""

    @run.trainer.on(Events.ITERATION_STARTED)
    def ask(engine: Engine) -> None:
        if engine.state.iteration == iteration:
            run.checkpoint.stop_signal = 15

    with pytest.raises(SystemExit) as stopped:
        run.trainer.run()
    assert stopped.value.code == 143


def _assert_same_runs(first: Path, second: Path) -> None:
    for name in (LAST, PREVIOUS, BEST):
        whole, resumed = load_tensors(first / name), load_tensors(second / name)
        for part in whole.get("state", whole):
            assert _same(whole.get("state", whole)[part], resumed.get("state", resumed)[part]), (name, part)
        assert _same(whole, resumed), name
    assert (first / "history.json").read_bytes() == (second / "history.json").read_bytes()


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    make_run: Callable[..., Any], tmp_path: Path, epoch: int
) -> None:
    make_run(tmp_path / "whole", max_epochs=5).trainer.run()
    _cut_off(make_run(tmp_path / "cut", max_epochs=5).trainer, epoch)
    assert load_tensors(tmp_path / "cut" / LAST)["epoch"] == epoch
    make_run(tmp_path / "cut", max_epochs=5).trainer.run()
    _assert_same_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_stopped_inside_epochs_is_bit_identical_too(
    make_run: Callable[..., Any], tmp_path: Path, num_workers: int
) -> None:
    make_run(tmp_path / "whole", max_epochs=3, num_workers=num_workers).trainer.run()
    # Inside the first epoch, twice inside the second, and at its end.
    for iteration, place in ((1, (0, 1)), (4, (1, 1)), (5, (1, 2)), (6, (2, 0))):
        _stop_after(make_run(tmp_path / "cut", max_epochs=3, num_workers=num_workers), iteration)
        saved = load_tensors(tmp_path / "cut" / LAST)
        assert (saved["epoch"], saved["iteration"]) == place
    make_run(tmp_path / "cut", max_epochs=3, num_workers=num_workers).trainer.run()
    _assert_same_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(("scores", "kept"), [([0.9, 0.1, 0.1, 0.1], 1), ([0.1, 0.2, 0.1, 0.1], 2)])
def test_short_epochs_share_a_save_and_a_best_one_is_always_saved(
    make_run: Callable[..., Any], tmp_path: Path, scores: list[float], kept: int
) -> None:
    make_run(tmp_path / "whole", max_epochs=4, scores=scores).trainer.run()
    _cut_off(make_run(tmp_path / "cut", max_epochs=4, scores=scores, time_share=1e-9).trainer, 3)
    assert load_tensors(tmp_path / "cut" / LAST)["epoch"] == kept
    again = make_run(tmp_path / "cut", max_epochs=4, scores=scores, time_share=1e-9)
    again.trainer.run()
    whole, resumed = (load_tensors(tmp_path / name / LAST) for name in ("whole", "cut"))
    assert resumed["epoch"] == 4  # the end of a run is always saved
    assert _same(whole, resumed)
    assert again.checkpoint.best_epoch == kept


def test_an_early_stop_and_a_signal_are_saved_whatever_the_time(make_run: Callable[..., Any], tmp_path: Path) -> None:
    scores = [0.9] + [0.1] * 8
    run = make_run(tmp_path / "early", max_epochs=9, scores=scores, patience=3, time_share=1e-9)
    run.trainer.run()
    stopped = run.trainer.state.epoch
    assert stopped < 9
    assert load_tensors(tmp_path / "early" / LAST)["epoch"] == stopped
    _stop_after(make_run(tmp_path / "signal", time_share=1e-9), 9)  # the last iteration of epoch 3
    assert load_tensors(tmp_path / "signal" / LAST)["epoch"] == 3


def test_a_share_of_the_time_is_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="time_share: 0 must be more than 0"):
        Checkpoint(tmp_path, Engine(lambda *_: None), torch.nn.Identity(), {}, time_share=0)


def test_a_stop_inside_an_epoch_keeps_the_last_whole_epoch_as_previous(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    for iteration in (4, 5):
        _stop_after(make_run(tmp_path), iteration)
        assert load_tensors(tmp_path / PREVIOUS)["epoch"] == 1


def test_another_length_of_the_epoch_goes_on_from_its_beginning(make_run: Callable[..., Any], tmp_path: Path) -> None:
    _stop_after(make_run(tmp_path, max_epochs=3), 4)
    saved = load_tensors(tmp_path / LAST)
    save_atomically({**saved, "epoch_length": 7}, tmp_path / LAST, seal=True)
    run = make_run(tmp_path, max_epochs=2)
    trained: list[int] = []
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: trained.append(engine.state.iteration))
    run.trainer.run()
    assert trained == [4, 5, 6]
    assert [epoch for epoch, _ in run.history.values["train_loss"]] == [1, 2]


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


def _rates(run: Any) -> list[float]:
    """The learning rate of each iteration, as the trainer goes."""
    seen: list[float] = []
    run.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda _: seen.append(run.trainer.optimizer.param_groups[0]["lr"])
    )
    run.trainer.run()
    return seen


def test_a_finished_run_goes_on_for_more_epochs_with_a_warm_up_and_a_new_cosine(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    make_run(tmp_path, max_epochs=2, continue_rate=0.004).trainer.run()
    kept = load_tensors(tmp_path / LAST)
    longer = make_run(tmp_path, max_epochs=10, continue_rate=0.004)
    rates = _rates(longer)
    assert len(rates) == 8 * ITERATIONS
    assert rates[0] == pytest.approx(0.002)
    assert rates[1] == max(rates) == pytest.approx(0.004)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.0002
    (told,) = longer.checkpoint.continued
    assert told == {
        **{"from_epoch": 2, "to_epoch": 10, "learning_rate": 0.004, "warmup_steps": 1, "steps": 24, "first_step": 6}
    }
    saved = load_tensors(tmp_path / LAST)
    assert saved["epoch"] == 10
    assert not _same(saved["state"]["network"], kept["state"]["network"])
    assert [epoch for epoch, _ in saved["state"]["history"]["record"]["train_loss"]] == list(range(1, 11))


def test_a_run_that_goes_on_longer_and_is_cut_off_resumes_bit_identical(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    for name in ("whole", "cut"):
        make_run(tmp_path / name, max_epochs=2, continue_rate=0.004).trainer.run()
    make_run(tmp_path / "whole", max_epochs=5, continue_rate=0.004).trainer.run()
    _cut_off(make_run(tmp_path / "cut", max_epochs=5, continue_rate=0.004).trainer, 3)
    again = make_run(tmp_path / "cut", max_epochs=5, continue_rate=0.004)
    again.trainer.run()
    _assert_same_runs(tmp_path / "whole", tmp_path / "cut")
    assert len(again.checkpoint.continued) == 1


@pytest.mark.parametrize(("done", "asked", "said"), [(2, 4, "with --max_epochs 3, goes on with more"), (3, 2, "there")])
def test_only_a_finished_run_goes_on_and_only_for_more(
    make_run: Callable[..., Any], tmp_path: Path, done: int, asked: int, said: str
) -> None:
    if done < 3:
        _cut_off(make_run(tmp_path, max_epochs=3, continue_rate=0.004).trainer, done)
    else:
        make_run(tmp_path, max_epochs=3, continue_rate=0.004).trainer.run()
    with pytest.raises(UserError, match=said):
        make_run(tmp_path, max_epochs=asked, continue_rate=0.004).trainer.run()


def test_data_that_changed_is_told_as_such(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=1, fingerprint={"dataset_sha256": "a", "seed": 0}).trainer.run()
    with pytest.raises(UserError, match=r"the data changed since this run began.*name another --output_dir"):
        make_run(tmp_path, max_epochs=1, fingerprint={"dataset_sha256": "b", "seed": 0}).trainer.run()


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


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    elif how == "zeroed":
        content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    else:
        content[int(len(content) * 0.6)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "zeroed", "one bit"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_with_a_warning(
    make_run: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    make_run(tmp_path / "whole", max_epochs=4).trainer.run()
    make_run(tmp_path / "cut", max_epochs=3).trainer.run()
    _damage(tmp_path / "cut" / LAST, how)
    run = make_run(tmp_path / "cut", max_epochs=4)
    first: list[int] = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: first.append(engine.state.epoch))
    run.trainer.run()
    assert first == [3, 4]
    assert any(str(tmp_path / "cut" / LAST) in text and "going on from previous.pt" in text for text in caplog.messages)
    _assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_a_damaged_checkpoint_never_becomes_the_previous_one(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=3).trainer.run()
    _damage(tmp_path / LAST, "one bit")
    _stop_after(make_run(tmp_path, max_epochs=4), 8)
    assert load_tensors(tmp_path / PREVIOUS, sealed=True)["epoch"] == 2


def test_a_run_killed_between_the_two_names_goes_on(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path / "whole", max_epochs=4).trainer.run()
    make_run(tmp_path / "cut", max_epochs=3).trainer.run()
    (tmp_path / "cut" / LAST).replace(tmp_path / "cut" / PREVIOUS)
    make_run(tmp_path / "cut", max_epochs=4).trainer.run()
    _assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_a_run_without_a_whole_checkpoint_is_refused_and_not_started_from_scratch(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    make_run(tmp_path, max_epochs=3).trainer.run()
    for name in (LAST, PREVIOUS):
        _damage(tmp_path / name, "one bit")
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(UserError) as error:
        make_run(tmp_path, max_epochs=4).trainer.run()
    assert "\n" not in str(error.value)
    for part in (LAST, PREVIOUS, "sha256", str(tmp_path)):
        assert part in str(error.value)
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.parametrize("how", ["truncated", "one bit", "gone"])
def test_damaged_best_weights_are_named_before_anything_is_trained(
    make_run: Callable[..., Any], tmp_path: Path, how: str
) -> None:
    make_run(tmp_path, max_epochs=2).trainer.run()
    (tmp_path / BEST).unlink() if how == "gone" else _damage(tmp_path / BEST, how)
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(UserError, match=rf"{BEST}.*was the best so far") as error:
        make_run(tmp_path, max_epochs=3).trainer.run()
    assert "\n" not in str(error.value)
    assert (tmp_path / LAST).read_bytes() == before


def test_a_checkpoint_without_its_checksum_is_not_trusted(make_run: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path, max_epochs=1).trainer.run()
    save_atomically(load_tensors(tmp_path / LAST), tmp_path / LAST)
    with pytest.raises(UserError, match="lacks the sha256"):
        make_run(tmp_path, max_epochs=2).trainer.run()


@pytest.mark.parametrize("content", [{"epoch": 1}, [1, 2], {"epoch": 1, "state": {}}, "another state"])
def test_a_checkpoint_of_something_else_is_refused_in_one_line(
    make_run: Callable[..., Any], tmp_path: Path, content: Any
) -> None:
    if content == "another state":
        make_run(tmp_path, max_epochs=1).trainer.run()
        content = load_tensors(tmp_path / LAST)
        content["state"]["network"] = {"weight": torch.zeros(3)}
    save_atomically(content, tmp_path / LAST, seal=True)
    with pytest.raises(UserError) as error:
        make_run(tmp_path, max_epochs=2).trainer.run()
    assert "\n" not in str(error.value)
    assert str(tmp_path / LAST) in str(error.value)


def test_a_checkpoint_of_another_architecture_names_a_layer_that_differs(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    make_run(tmp_path, max_epochs=1).trainer.run()
    saved = load_tensors(tmp_path / LAST)
    saved["state"]["network"]["head.weight"] = torch.zeros(5, 5, 1, 1)
    save_atomically(saved, tmp_path / LAST, seal=True)
    with pytest.raises(UserError, match=r"head\.weight"):
        make_run(tmp_path, max_epochs=2).trainer.run()


def test_the_folder_holds_no_temporary_files_not_even_those_of_a_killed_run(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half")
    make_run(tmp_path, max_epochs=2).trainer.run()
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS, BEST, "history.json", "curves.png"}


def test_a_full_disk_keeps_the_earlier_epochs(
    make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, max_epochs=2).trainer.run()
    best = (tmp_path / BEST).read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full_disk)
        with pytest.raises(UserError, match="No space left on device"):
            make_run(tmp_path, max_epochs=4).trainer.run()
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / BEST).read_bytes() == best
    make_run(tmp_path, max_epochs=4).trainer.run()
    make_run(tmp_path / "whole", max_epochs=4).trainer.run()
    assert _same(*(load_tensors(folder / LAST)["state"] for folder in (tmp_path, tmp_path / "whole")))


def test_a_run_folder_that_is_gone_ends_the_run(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", max_epochs=3)

    @run.trainer.on(Events.EPOCH_STARTED)
    def remove(engine: Engine) -> None:
        if engine.state.epoch == 2:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(UserError, match="run folder is gone"):
        run.trainer.run()
    assert not (tmp_path / "run").exists()


def test_a_gradient_scaler_goes_on_with_its_scale(tmp_path: Path) -> None:
    def make(scale: float) -> Any:
        engine: Any = Engine(lambda *_: None)
        engine.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        Checkpoint(tmp_path, Engine(lambda *_: None), torch.nn.Identity(), {}).attach(engine)
        return engine

    make(128.0).run([0], max_epochs=1)
    engine = make(2.0)
    engine.run([0], max_epochs=1)
    assert engine.scaler.get_scale() == 128.0


def test_a_network_of_several_processes_is_saved_as_that_of_one(tmp_path: Path) -> None:
    def make(network: torch.nn.Module) -> Engine:
        engine = Engine(lambda *_: None)
        Checkpoint(tmp_path, Engine(lambda *_: None), network, {"network": network}).attach(engine)
        return engine

    alone, wrapped = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    make(alone).run([0], max_epochs=1)
    idist.initialize("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path}/store")
    try:
        make(torch.nn.parallel.DistributedDataParallel(wrapped)).run([0], max_epochs=1)
    finally:
        idist.finalize()
    assert _same(alone.state_dict(), wrapped.state_dict())
    assert set(load_tensors(tmp_path / LAST)["state"]["network"]) == {"weight", "bias"}


def test_the_average_begins_at_pretrained_weights(make_run: Any, tmp_path: Path) -> None:
    # As MONAI Label does: a handler before all others loads them, after everything was built.
    run = make_run(tmp_path, max_epochs=1)
    pretrained = {name: torch.full_like(value, 3) for name, value in run.network.state_dict().items()}
    average = run.evaluator.network
    seen: dict[str, torch.Tensor] = {}
    run.trainer._event_handlers[Events.STARTED].insert(0, (lambda: run.network.load_state_dict(pretrained), (), {}))
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: seen.update(average.state_dict()))
    run.trainer.add_event_handler(Events.EPOCH_STARTED, run.trainer.terminate)
    run.trainer.run()
    assert all((value == 3).all() for value in seen.values())


def test_the_average_is_that_of_ignite() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    ours, theirs = (kind(network, momentum=0.3, handle_buffers="update") for kind in (MovingAverage, EMAHandler))

    def change(*_: Any) -> None:
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight))
        network(torch.rand(2, 1, 8, 8) * 5)

    engine = Engine(change)
    for average in (ours, theirs):
        average.attach(engine, warn_if_exists=False)
    engine.run([0] * 7)
    found = ours.ema_model.state_dict()
    for key, expected in theirs.ema_model.state_dict().items():
        assert torch.allclose(found[key].float(), expected.float(), atol=1e-5), key
    assert found["1.num_batches_tracked"] == 7
    assert not torch.equal(found["0.weight"], network[0].weight)
