# SPDX-License-Identifier: Apache-2.0
"""What a user waits for, in two builds of this bundle: the same commands, in turns, on one machine."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data.phantom import make_phantom
from bundle.errors import UserError
from bundle.files import read_json
from bundle.provenance import commit_of, describe_run

ROOT = Path(__file__).resolve().parents[2]
FORMER, CURRENT = "former", "current"
ROUNDS = 5


@dataclass(frozen=True)
class Item:
    """One command.

    Args:
        about: what it is, for people.
        words: of the command line, which runs in a build's root; {image} stands for a synthetic image, {images} for a
            folder of `ARCHIVE` and {dataset} for a dataset of `PICTURES` synthetic ones of BUSI's sizes, {output} for a
            folder that is not there yet, {venv} for the environment; "{models}" for the option that gives a build the
            weights of `SAME_WEIGHTS`, where it has them.
        once: it takes minutes and is run once, otherwise some rounds after one that does not count.
        codes: exit codes of a run that did its work.
        told: what a record quotes of the output folder, beside the last line that was printed.
        by_name: it takes minutes or the better part of an hour and is only run where it is named.
    """

    about: str
    words: tuple[str, ...]
    once: bool = False
    codes: tuple[int, ...] = (0,)
    told: Callable[[Path], Mapping[str, Any]] | None = None
    by_name: bool = False


def _scores(output: Path) -> dict[str, Any]:
    """What a chain came to, so that nobody takes a worse result for a faster one."""
    found = {}
    for file in sorted(output.glob("*/evaluation/metrics.json")):
        metrics = read_json(file)
        found[file.parents[1].name] = {
            **{"dice": metrics.get("lesions", {}).get("dice"), "auroc": metrics.get("auroc")},
            "dataset_sha256": metrics["provenance"].get("dataset_sha256"),
        }
    return {"scores": found}


def _search(output: Path) -> dict[str, Any]:
    """What `measure_duplicates` found, and took, for each count of images."""
    return {"search": read_json(output.with_suffix(".json"))["runs"]}


_PYTHON = "{venv}/bin/python"
PICTURES, ARCHIVE = 500, 1000
SIZES = ((400, 560), (500, 760))  # heights and widths, about BUSI's
LARGE = ("predict", "small", "plain", "external", "shipped")
"""Items that need `PICTURES`."""

SAME_WEIGHTS = Path("models", "paper")
"""The set that was `models/` once: a build that ships others is measured with it, see ``{models}``."""


def _predict(*more: str) -> tuple[str, ...]:
    return (_PYTHON, "scripts/predict.py", "{images}", "--device", "cpu", *more)


ITEMS: dict[str, Item] = {
    "cold": Item(
        "one image from a cold start",
        (_PYTHON, "scripts/predict.py", "{image}", "{models}", "--device", "cpu", "--output", "{output}"),
    ),
    "help": Item("scripts/predict.py --help", (_PYTHON, "scripts/predict.py", "--help")),
    "predict": Item(
        f"{ARCHIVE} images, default outputs", _predict("{models}", "--output", "{output}"), once=True, by_name=True
    ),
    "small": Item(
        f"{ARCHIVE} images, --small", _predict("{models}", "--small", "--output", "{output}"), once=True, by_name=True
    ),
    "plain": Item(f"{ARCHIVE} images, no outputs", _predict("{models}"), once=True, by_name=True),
    "shipped": Item(
        f"{ARCHIVE} images, default outputs, each build's own weights",
        _predict("--output", "{output}"),
        once=True,
        by_name=True,
    ),
    "external": Item(
        f"evaluate_external.py, {PICTURES} images",
        (_PYTHON, "scripts/evaluate_external.py", "{dataset}", "{models}", "--device", "cpu", "--output", "{output}"),
        once=True,
        by_name=True,
    ),
    "demo": Item(
        "the whole chain on the phantom (make demo)",
        (_PYTHON, "scripts/reproduce.py", "--output_dir", "{output}"),
        once=True,
        told=_scores,
    ),
    # make knows how a build runs its tests; what its environment is made from is taken as done.
    "test": Item(
        "the tests (make test)",
        ("make", "--silent", "VENV={venv}", "-o", "{venv}/.runtime", "-o", "{venv}/.dev", "test"),
        once=True,
        codes=(0, 2),
    ),
    "duplicates": Item(
        "the search for near duplicates among 1,250 and 10,000 images",
        (_PYTHON, "scripts/benchmark.py", "duplicates", "--images", "1250", "10000", "--output", "{output}.json"),
        once=True,
        told=_search,
        by_name=True,
    ),
}
"""By their names on the command line, short ones first."""


def measure_builds(
    former: Path,
    only: Sequence[str] = (),
    rounds: int = ROUNDS,
    current: Path = ROOT,
    items: Mapping[str, Item] = ITEMS,
) -> dict[str, Any]:
    """Time commands in two builds in turns, each in a process of its own and both with this process's environment.

    Args:
        former: root of the other build, a checkout of its own.
        only: names of `items`; none for all but those that run by name.
        rounds: of the items that are not run once.
        current: root of the build that is compared with it.
        items: the commands.

    Returns:
        ready for JSON: `runs`, per item `name`, `about`, `command`, the medians `former_seconds` and `current_seconds`
        and their `ratio` (current to former); `rounds`, per item and build, each round's `seconds`, `cpu_seconds` (of
        the process and those it waited for), `exit_code`, `last_line` and what the item tells; `settings`, with the
        commit of each build; `provenance`.

    Raises:
        UserError: a build lacks what is timed, or a command failed.
    """
    builds = {FORMER: former.resolve(), CURRENT: current.resolve()}
    for folder in builds.values():
        if not (folder / "bundle" / "__init__.py").is_file():
            raise UserError(f"{folder}: no build of this bundle; give the root of a checkout")
    chosen = {name: item for name, item in items.items() if (name in only if only else not item.by_name)}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        make_phantom(folder / "phantom", counts={"malignant": 1})
        image = next((folder / "phantom" / "malignant").glob("*).png"))
        if set(LARGE) & set(chosen):
            make_pictures(folder)
        load = os.getloadavg()[0]
        timings = {name: _measure(name, item, builds, folder, image, rounds) for name, item in chosen.items()}
    return {
        "settings": {
            **{f"{build}_commit": commit_of(root) for build, root in builds.items()},
            **{"rounds": rounds, "cores": os.cpu_count(), "load_average_before": round(load, 2)},
        },
        "runs": [_summarise(name, chosen[name], timing) for name, timing in timings.items()],
        "rounds": timings,
        "provenance": describe_run(),
    }


def make_pictures(folder: Path) -> None:
    """A dataset of `PICTURES`, and copies of them in a folder of `ARCHIVE` files: making them anew takes minutes."""
    counts = {"benign": PICTURES // 2, "malignant": PICTURES - PICTURES // 2}
    make_phantom(folder / "dataset", counts=counts, size_range=SIZES)
    pictures = sorted((folder / "dataset").rglob("*).png"))
    (folder / "images").mkdir()
    for number in range(ARCHIVE):
        shutil.copyfile(pictures[number % PICTURES], folder / "images" / f"{number:04}.png")


def builds_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_builds`."""
    lines = [f"{'seconds':<44}{FORMER:>10}{CURRENT:>10}{'ratio':>8}"]
    lines += [
        f"{run['about']:<44}{run['former_seconds']:>10.2f}{run['current_seconds']:>10.2f}{run['ratio']:>8.2f}"
        for run in result["runs"]
    ]
    settings = result["settings"]
    lines.append(
        f"{settings['cores']} cores, load {settings['load_average_before']} before; medians of {settings['rounds']} "
        "rounds, minutes once"
    )
    return lines


def _measure(
    name: str, item: Item, builds: Mapping[str, Path], folder: Path, image: Path, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    timings: dict[str, list[dict[str, Any]]] = {build: [] for build in builds}
    for number in range(1 if item.once else rounds + 1):
        # Each leads in every other round: the second finds the disk's cache warm.
        for build in sorted(builds, reverse=number % 2 == 0):
            timing = _run(item, builds[build], folder / f"{name}_{build}_{number}", image)
            if number or item.once:
                timings[build].append(timing)
    return timings


def _summarise(name: str, item: Item, timings: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    medians = {
        f"{build}_seconds": statistics.median(timing["seconds"] for timing in done) for build, done in timings.items()
    }
    ratio = medians[f"{CURRENT}_seconds"] / medians[f"{FORMER}_seconds"]
    return {"name": name, "about": item.about, "command": " ".join(item.words), **medians, "ratio": round(ratio, 3)}


def _run(item: Item, root: Path, output: Path, image: Path) -> dict[str, Any]:
    made = {"images": output.parent / "images", "dataset": output.parent / "dataset"}
    given = {"image": image, **made, "output": output, "venv": sys.prefix}
    models = ["--models", str(SAME_WEIGHTS)] if (root / f"{SAME_WEIGHTS}_model.pt").is_file() else []
    words = [part for word in item.words for part in (models if word == "{models}" else [word.format(**given)])]
    log = output.with_suffix(".log")
    start = time.monotonic()
    with open(log, "wb") as file:
        process = subprocess.Popen(words, cwd=root, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
    if process.returncode not in item.codes:
        raise UserError(f"{root}: {' '.join(item.words)} ended with exit code {process.returncode}: {last}")
    return {
        **{"seconds": round(seconds, 3), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3)},
        "exit_code": process.returncode,
        "last_line": last.replace(str(output), "{output}"),
        **(item.told(output) if item.told else {}),
    }
