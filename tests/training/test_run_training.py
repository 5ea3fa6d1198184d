# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.run: however a run ends, it ends in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
from ignite.engine import Engine, Events

from bundle.errors import UserError
from bundle.networks.weights import load_tensors
from bundle.training import claim_folder, run_training
from bundle.training.checkpoint import LAST


def _raise_at(run: Any, iteration: int, act: Callable[[], Any]) -> None:
    @run.trainer.on(Events.ITERATION_STARTED)
    def interfere(engine: Engine) -> None:
        if engine.state.iteration == iteration:
            act()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_iteration_finish_saves_and_says_how_to_go_on(
    make_run: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, number: signal.Signals, code: int
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run = make_run(tmp_path, progress_bar=True)
    _raise_at(run, 5, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        run_training(run.trainer, run.checkpoint)
    assert stopped.value.code == code
    saved = load_tensors(tmp_path / LAST)
    assert (saved["epoch"], saved["iteration"]) == (1, 2)
    assert f"Stopped by {number.name}; the same command goes on from {tmp_path / LAST}" in caplog.messages
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_data_worker_that_dies_of_the_same_signal_is_no_failure(make_run: Callable[..., Any], tmp_path: Path) -> None:
    def hit_the_group() -> None:
        run.checkpoint.stop_signal = 15
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    run = make_run(tmp_path)
    _raise_at(run, 5, hit_the_group)
    with pytest.raises(SystemExit) as stopped:
        run_training(run.trainer, run.checkpoint)
    assert stopped.value.code == 143
    assert load_tensors(tmp_path / LAST)["epoch"] == 1


def test_a_disk_error_of_any_handler_is_one_line(make_run: Callable[..., Any], tmp_path: Path) -> None:
    def full_disk() -> None:
        raise OSError(28, "No space left on device", "events.out")

    run = make_run(tmp_path)
    _raise_at(run, 2, full_disk)
    with pytest.raises(UserError, match=r"events\.out: No space left on device; the last checkpoint is kept"):
        run_training(run.trainer, run.checkpoint)


def test_a_lost_process_is_told_from_a_bug(
    make_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)

    def lose() -> None:
        monkeypatch.setattr(idist, "get_world_size", lambda: 2)
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    _raise_at(run, 2, lose)
    with pytest.raises(SystemExit) as ended:
        run_training(run.trainer, run.checkpoint)
    assert ended.value.code == 1
    monkeypatch.undo()
    run = make_run(tmp_path)
    _raise_at(run, 2, lambda: [][0])
    with pytest.raises(IndexError):
        run_training(run.trainer, run.checkpoint)


def test_a_thread_of_a_server_can_train(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=1)
    thread = threading.Thread(target=run_training, args=(run.trainer, run.checkpoint))
    thread.start()
    thread.join()
    assert load_tensors(tmp_path / LAST)["epoch"] == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.run: cannot be made \(Not a directory\)"):
        claim_folder(tmp_path / "file" / "run")


def test_only_the_first_process_claims_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    claim_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    claim_folder(tmp_path / "run")
    assert f"process {os.getpid()}" in (tmp_path / "run" / ".lock").read_text()
