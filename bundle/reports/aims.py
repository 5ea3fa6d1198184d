# SPDX-License-Identifier: Apache-2.0
"""What the work on speed aimed at, beside what the records of scripts/benchmark.py reached, for docs/scaling.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bundle.files import read_json
from bundle.reports.markdown import number

_Records = Mapping[str, Any]


class _Aim(NamedTuple):
    """One aim: in words; at least or at most so much; the records that tell, and what they reached; decimals."""

    about: str
    bound: Literal["≥", "≤"]
    aim: float
    records: tuple[str, ...]
    reached: Callable[[_Records], Sequence[float]]
    digits: int = 2


def _faster(item: str) -> Callable[[_Records], Sequence[float]]:
    def reached(records: _Records) -> list[float]:
        run = _of(records["prediction"], item)
        return [run["former_seconds"] / run["current_seconds"]]

    return reached


def _of(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return {run["name"]: run for run in record["runs"]}[name]


def _searches(records: _Records) -> list[Mapping[str, Any]]:
    """The searches of this build, of few images first."""
    (found,) = (rounds["current"][0]["search"] for rounds in records["duplicates"]["rounds"].values())
    return sorted(found, key=lambda search: search["images"])


def _growth(records: _Records) -> list[float]:
    few, many = (search["cpu_seconds"] / search["images"] for search in (_searches(records)[0], _searches(records)[-1]))
    return [many / few]


_BACKENDS = "share of the networks' own rate, several at once, that the pipeline without outputs reaches, by backend"
_AIMS = (
    _Aim("`predict.py`, default outputs, × the former build", "≥", 2.0, ("prediction",), _faster("predict")),
    _Aim("`predict.py --small`, × the former build", "≥", 3.0, ("prediction",), _faster("small")),
    _Aim("`evaluate_external.py`, × the former build", "≥", 3.0, ("prediction",), _faster("external")),
    _Aim(
        "first finding from a cold start, of the former build's time",
        "≤",
        0.4,
        ("builds",),
        lambda records: [_of(records["builds"], "cold")["ratio"]],
    ),
    _Aim(
        _BACKENDS,
        "≥",
        0.85,
        ("inference",),
        lambda records: [run["share_at_once"] for run in records["inference"]["runs"]],
    ),
    _Aim(
        "CPU ms an image outside networks and decoder, by backend",
        "≤",
        4.0,
        ("inference",),
        lambda records: [run["outside_cpu_ms"] for run in records["inference"]["runs"]],
        1,
    ),
    _Aim(
        "near duplicates among the most images, peak memory, GiB",
        "≤",
        1.8,
        ("duplicates",),
        lambda records: [_searches(records)[-1]["peak_memory_gib"]],
    ),
    _Aim("CPU per image there, of that among the fewest", "≤", 1.1, ("duplicates",), _growth),
    _Aim(
        "training loop, of its bare network's rate, by precision",
        "≥",
        0.95,
        ("training", "training_float32"),
        lambda records: [records[name]["ratio"] for name in ("training", "training_float32")],
    ),
    _Aim(
        "training loop, × that of MONAI's dictionary transforms, by precision",
        "≥",
        3.0,
        ("dictionary", "dictionary_float32"),
        lambda records: [records[name]["ratio"] for name in ("dictionary", "dictionary_float32")],
    ),
)


def tabulate_aims(results: Path) -> str:
    """A Markdown table with a row per aim that records tell of; "" where there are none.

    Args:
        results: folder of the records.

    Raises:
        InputError: a record is no readable JSON.
    """
    rows = []
    for aim in _AIMS:
        files = {name: results / f"benchmark_{name}.json" for name in aim.records}
        if not all(file.is_file() for file in files.values()):
            continue
        try:
            values = aim.reached({name: read_json(file, "record it again") for name, file in files.items()})
        except LookupError:
            continue  # the record is of other commands
        low, high = min(values), max(values)
        told = (
            number(low, aim.digits) if len(values) == 1 else f"{number(low, aim.digits)} to {number(high, aim.digits)}"
        )
        met = [value >= aim.aim if aim.bound == "≥" else value <= aim.aim for value in values]
        verdict = "yes" if all(met) else "in part" if any(met) else "no"
        rows.append(f"| {aim.about} | {aim.bound} {number(aim.aim, aim.digits)} | {told} | {verdict} |")
    return "\n".join(["| what | aim | reached | met |", "|---|---|---|---|", *rows]) if rows else ""
