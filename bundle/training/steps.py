# SPDX-License-Identifier: Apache-2.0
"""Run the steps of a chain, each a command in a process of its own.

A step whose result is there, made with the same settings, is skipped, so a chain that was interrupted goes on where it
was; a training that was interrupted resumes by itself.
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bundle.errors import UserError
from bundle.files import read_json, write_json
from bundle.training.forkserver import WarmProcess, start_python

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.2
AT_ONCE = 2
"""Steps without a training that run at once by default: most of each is Python, which one core runs."""

SETTINGS = "settings.json"
"""Among the logs: the words that each finished step was made with."""

_Process: TypeAlias = "WarmProcess | subprocess.Popen[bytes]"


@dataclass(frozen=True)
class Step:
    """One command of the chain.

    Args:
        name: what a person reads while it runs; unique, it names the log.
        words: arguments of the program.
        result: the file that is there when the step is done.
        program: what Python runs.
        needs: results of other steps that must be there before.
        trains: it keeps all cores or the GPU busy.
    """

    name: str
    words: tuple[str, ...]
    result: Path
    program: tuple[str, ...] = ("-m", "monai.bundle", "run")
    needs: tuple[Path, ...] = ()
    trains: bool = False


def run_steps(steps: Sequence[Step], logs: Path, jobs: int | None = None, places: Collection[str] = ()) -> None:
    """Run the steps that have no result yet, with a line each; the whole output of each goes to ``logs``.

    A result that was made with other words is never taken for this chain's.

    Args:
        steps: in an order in which they can run one after another.
        logs: folder of the logs.
        jobs: how many run at once, as soon as what they need is there; they share the CPU's threads. None: each
            training alone and on all of them, `AT_ONCE` of the others beside each other.
        places: words that say where the data lie, and may be others when a step was done before.

    Raises:
        UserError: a step was done with other settings before, or failed; it names the step, its last line and its log.
            The others are stopped: a training goes on where it was when the chain is run again.
    """
    logs.mkdir(parents=True, exist_ok=True)
    labels = {step: f"[{number}/{len(steps)}] {step.name}" for number, step in enumerate(steps, start=1)}
    made = read_json(logs / SETTINGS) if (logs / SETTINGS).is_file() else {}
    settings = {step.name: _settings(step, logs.parent, places) for step in steps}
    waiting = []
    for step in steps:
        if step.result.exists():
            _require_same(step, made.get(step.name), settings[step.name])
            print(f"{labels[step]}: done before", flush=True)
        else:
            waiting.append(step)
    running: dict[Step, tuple[_Process, float]] = {}
    try:
        while waiting or running:
            for step in _startable(waiting, list(running), jobs):
                waiting.remove(step)
                print(f"{labels[step]} …", flush=True)
                running[step] = _start(step, _log_of(step, logs), jobs), time.monotonic()
            if not running:
                raise UserError(f"{waiting[0].name}: what it needs is not there and no step makes it")
            for step, (process, start) in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[step]
                    _require_result(step, code, _log_of(step, logs))
                    made[step.name] = settings[step.name]
                    write_json(logs / SETTINGS, made)
                    print(f"{labels[step]}: done in {time.monotonic() - start:.0f} s", flush=True)
            time.sleep(POLL_SECONDS)
    finally:
        for process, _ in running.values():
            process.terminate()  # a training saves its last step; SIGINT is ignored below a shell's `&`
        for process, _ in running.values():
            process.wait()


def _settings(step: Step, folder: Path, places: Collection[str]) -> list[str]:
    """The words of a step, wherever the data and the chain's folder lie."""
    return [word.replace(str(folder), ".") for word in step.words if word not in places]


def _require_same(step: Step, made: Sequence[str] | None, words: Sequence[str]) -> None:
    """Refuse a result that was made with other words; what chains of before left tells nothing, and is taken."""
    if made is None or list(made) == list(words):
        return
    then, now = (" ".join(word for word in one if word not in other) for one, other in ((made, words), (words, made)))
    raise UserError(
        f"{step.name}: was done before with other settings ({then or 'none'} then, {now or 'none'} now); give another "
        f"--output_dir, or delete {step.result.parent} and what was made from it"
    )


def _startable(waiting: Sequence[Step], running: Sequence[Step], jobs: int | None) -> list[Step]:
    """The steps to start now, in their order."""
    ready = [step for step in waiting if all(path.exists() for path in step.needs)]
    if jobs is not None:
        return ready[: jobs - len(running)]
    if any(step.trains for step in running):
        return []
    # What comes after a training waits for it: it would only keep the training from its turn.
    others = list(itertools.takewhile(lambda step: not step.trains, ready))
    return others[: _at_once() - len(running)] if others else [] if running else ready[:1]


def _at_once() -> int:
    return min(AT_ONCE, os.cpu_count() or 1)


def _start(step: Step, log: Path, jobs: int | None) -> _Process:
    shared = jobs or (1 if step.trains else _at_once())
    environment = {}
    if shared > 1 and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // shared))
    words = [*step.program, *step.words]
    log.write_text(shlex.join(["python", "-W", "ignore", *words]) + "\n", encoding="utf-8")
    return start_python(words, ROOT, environment, log)


def _log_of(step: Step, logs: Path) -> Path:
    return logs / f"{step.name.replace(' ', '_')}.log"


def _require_result(step: Step, code: int, log: Path) -> None:
    if code or not step.result.exists():
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise UserError(f"{step.name}: {lines[-1] if lines else f'exit code {code}'} (log: {log})")
