# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.launch and scripts/train.py: what is started again, and what is not."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import warm

from bundle.training.launch import FINAL, describe, run_processes, run_with_restarts
from scripts.train import main


def _command(folder: Path, *ends: str) -> list[str]:
    """A command whose n-th try does what the n-th of ``ends`` says, as Python, and counts its tries."""
    script = folder / "job.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        f"log = pathlib.Path({str(folder / 'tries')!r})\n"
        "number = len(log.read_text()) if log.exists() else 0\n"
        "log.write_text('x' * (number + 1))\n"
        f"exec({list(ends)!r}[number])\n"
    )
    return [sys.executable, str(script)]


def _tries(folder: Path) -> int:
    return len((folder / "tries").read_text())


def test_a_job_that_dies_is_started_again_until_it_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = _command(tmp_path, "os.kill(os.getpid(), 9)", "sys.exit(1)", "pass")
    assert run_with_restarts(command, max_restarts=5, first_pause=0.01) == 0
    assert _tries(tmp_path) == 3
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("the training ended with signal SIGKILL; restart 1 of 5")
    assert told[1].startswith("the training ended with exit code 1; restart 2 of 5")


def test_restarts_have_a_limit_and_growing_pauses(tmp_path: Path) -> None:
    start = time.monotonic()
    assert run_with_restarts(_command(tmp_path, *["sys.exit(7)"] * 4), max_restarts=3, first_pause=0.1) == 7
    assert _tries(tmp_path) == 4
    assert time.monotonic() - start > 0.1 + 0.2 + 0.4


@pytest.mark.parametrize("code", [0, 2, 130, 143])
def test_what_another_try_would_not_change_is_final(tmp_path: Path, code: int) -> None:
    assert run_with_restarts(_command(tmp_path, f"sys.exit({code})"), max_restarts=3, first_pause=0.01) == code
    assert _tries(tmp_path) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_job_and_ends_the_restarts(tmp_path: Path, number: signal.Signals) -> None:
    wait = f"import signal; signal.signal({int(number)}, lambda *_: sys.exit({128 + number})); time.sleep(60)"
    script = tmp_path / "launch.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})\n"
        "from bundle.training.launch import run_with_restarts\n"
        f"sys.exit(run_with_restarts({_command(tmp_path, wait)!r}, 3))"
    )
    process = warm.Popen([sys.executable, str(script)], tmp_path, os.environ, (tmp_path / "out", tmp_path / "err"))
    while not (tmp_path / "tries").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, number)
    assert process.wait(timeout=20) == 128 + number
    assert _tries(tmp_path) == 1


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("os.kill(os.getpid(), 9)", 1, "process 1 with signal SIGKILL"),
        ("sys.exit(7)", 1, "process 1 with exit code 7"),
        ("sys.exit(2)", 2, "process 1 with exit code 2"),
    ],
)
def test_processes_of_which_one_died_end_and_only_a_users_mistake_is_final(
    end: str, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "job.py"
    script.write_text(f"import os, sys, time\n{end} if os.environ['RANK'] == '1' else time.sleep(60)\n")
    assert run_processes([str(script)], 2) == code
    assert told in capsys.readouterr().err
    assert (code in FINAL) is (code == 2)


def test_an_exit_code_is_told_in_words() -> None:
    assert [describe(code) for code in (1, 137, 139, 255)] == [
        *("exit code 1", "signal SIGKILL", "signal SIGSEGV", "exit code 255")
    ]


def test_several_nodes_need_a_place_to_meet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "2", "configs/train.json"]) == 2
    assert "--rendezvous" in capsys.readouterr().err


def test_a_config_that_is_not_there_starts_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["configs/trian.json", "--max_epochs", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "configs/trian.json: no such config; nearest: configs/train.json" in line
