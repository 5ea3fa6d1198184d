# SPDX-License-Identifier: Apache-2.0
"""Where the time of long commands goes: py-spy looks at them from outside, some hundred times a second."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.benchmarks.builds import ARCHIVE, PICTURES, ROOT, make_pictures
from bundle.errors import UserError
from bundle.provenance import describe_run

RATE = 200
"""Looks per second."""

SHOWN = 12
"""Places of each command that are named; what the others take is one sum."""

IMPORTS, ELSEWHERE = "imports", "outside this bundle's code"
_WAITING = re.compile(r"_worker \(.*concurrent/futures/thread\.py:\d+\)|(?:\S+\.)?wait \(.*threading\.py:\d+\)")
"""Innermost frames of threads that wait for work, for another thread, or for their time: py-spy cannot tell."""
_FRAME = re.compile(r"(?P<function>\S+) \((?:.*/)?(?P<file>(?:bundle|scripts)/[\w/]+\.py):\d+\)")


@dataclass(frozen=True)
class Work:
    """One command.

    Args:
        about: what it is, for people.
        words: of the command line after python's name, run in the bundle's root; {images}, {dataset} and {output} are
            those of `bundle.benchmarks.builds.Item`.
        images: through which it goes.
    """

    about: str
    words: tuple[str, ...]
    images: int


_EPOCHS = 4
_TRAINING = (
    *("-m", "monai.bundle", "run", "training", "--config_file", "configs/train.json", "--dataset_dir", "{dataset}"),
    *("--prepared_dir", "{output}/prepared", "--output_dir", "{output}/run"),
)
_PREDICT = ("scripts/predict.py", "{images}", "--device", "cpu")
WORKS = {
    "plain": Work(f"{ARCHIVE} images, no outputs", _PREDICT, ARCHIVE),
    "predict": Work(f"{ARCHIVE} images, default outputs", (*_PREDICT, "--output", "{output}"), ARCHIVE),
    "external": Work(
        f"evaluate_external.py, {PICTURES} images",
        ("scripts/evaluate_external.py", "{dataset}", "--device", "cpu", "--output", "{output}"),
        PICTURES,
    ),
    "training": Work(
        f"training, {_EPOCHS} epochs of {PICTURES // 2} images",
        (*_TRAINING, "--split", "50:25:25", "--max_epochs", str(_EPOCHS)),
        _EPOCHS * PICTURES // 2,
    ),
}
"""By their names on the command line."""


def measure_profile(
    only: Sequence[str] = (), stacks: Path | None = None, works: Mapping[str, Work] = WORKS, spy: str | None = None
) -> dict[str, Any]:
    """Run commands under py-spy, and count in which of our functions they were seen at work.

    A thread that waits is not at work; one that computes a network is, in the function that calls it.

    Args:
        only: names of `works`; none for all.
        stacks: folder for what was seen, a file of stacks a command, as tools for flame graphs read them.
        works: the commands.
        spy: the program; py-spy beside this Python or on the path by default.

    Returns:
        ready for JSON: `runs`, per command `name`, `about`, `command`, `images`, `seconds` and `places`, each with
        `where`, `ms_per_image` of all threads together and its `share`, the greatest first; `settings`; `provenance`.

    Raises:
        UserError: py-spy is not installed, or a command failed.
    """
    program = spy or shutil.which(
        "py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    )
    if program is None:
        raise UserError("profile: py-spy is not installed; run pip install -r requirements-dev.txt")
    chosen = {name: work for name, work in works.items() if not only or name in only}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        make_pictures(folder)
        load = os.getloadavg()[0]
        runs = [_run(program, name, work, folder, stacks) for name, work in chosen.items()]
    settings = {"looks_per_second": RATE, "cores": os.cpu_count(), "load_average_before": round(load, 2)}
    return {"settings": settings, "runs": runs, "provenance": describe_run()}


def profile_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_profile`."""
    lines = []
    for run in result["runs"]:
        lines.append(f"{run['about']}: {run['seconds']:.1f} s; ms of an image, by where threads were at work")
        lines += [f"{place['ms_per_image']:>9.2f}  {place['share']:>6.1%}  {place['where']}" for place in run["places"]]
    return lines


def count_places(stacks: Iterable[str]) -> Counter[str]:
    """How often each function of this bundle was the innermost one of ours that was at work.

    Args:
        stacks: lines of py-spy's raw format: frames from the outermost on, divided by ";", and how often they were
            seen.

    Returns:
        "path function" -> count; what a module does while it is imported is `IMPORTS`, and a stack without a frame of
        ours `ELSEWHERE`. Threads that wait do not count.
    """
    counts: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.strip().rpartition(" ")
        if not _WAITING.fullmatch(stack.rpartition(";")[2]):
            counts[_place(stack)] += int(count or 0)
    return counts


def _place(stack: str) -> str:
    for frame in reversed(stack.split(";")):
        if found := _FRAME.fullmatch(frame):
            module = found["function"] == "<module>"
            return IMPORTS if module else f"{found['file'].removesuffix('.py')} {found['function']}"
    return ELSEWHERE


def _run(program: str, name: str, work: Work, folder: Path, stacks: Path | None) -> dict[str, Any]:
    output, seen = folder / f"{name}_output", folder / f"{name}.txt"
    given = {"images": folder / "images", "dataset": folder / "dataset", "output": output}
    words = [sys.executable, *(word.format(**given) for word in work.words)]
    spying = [program, "record", "--format", "raw", "--function", "--rate", str(RATE), "--output", str(seen), "--"]
    start = time.monotonic()
    done = subprocess.run(
        [*spying, *words], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    seconds = time.monotonic() - start
    if done.returncode or not seen.is_file():
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise UserError(f"profile: {' '.join(work.words)} ended with exit code {done.returncode}: {last}")
    if stacks is not None:
        stacks.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(seen, stacks / f"{name}.txt")
    counts = count_places(seen.read_text(encoding="utf-8").splitlines())
    total = sum(counts.values())
    places = counts.most_common(SHOWN)
    places.append((f"{len(counts) - len(places)} other places", total - sum(count for _, count in places)))
    return {
        **{"name": name, "about": work.about, "command": " ".join(["python", *work.words]), "images": work.images},
        "seconds": round(seconds, 1),
        "places": [
            {
                **{"where": where, "ms_per_image": round(1000 * count / RATE / work.images, 2)},
                "share": round(count / max(total, 1), 4),
            }
            for where, count in places
            if count
        ],
    }
