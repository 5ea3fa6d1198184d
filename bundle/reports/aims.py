# SPDX-License-Identifier: Apache-2.0
"""What the work on speed and on the shipped weights aimed at, beside what records reached.

Of speed for docs/scaling.md, of the weights for docs/results.md.
"""

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


class _WeightAim(NamedTuple):
    """One aim of the weights: in words; the bound; the record and where its value with its interval stands there."""

    about: str
    bound: Literal["≥", "≤"]
    aim: float
    record: str
    path: tuple[str, ...]
    percent: bool = False


_BUSI, _BUS_BRA = ("datasets", "Dataset_BUSI_with_GT"), ("datasets", "BUSBRA")
_JOINT, _JOINT_CLASS = "joint_lite_5folds_seed0", "joint_class_lite_5folds_seed0"
_WEIGHT_AIMS = (
    _WeightAim("BUS-BRA, out of fold: Dice (floor 0.87)", "≥", 0.90, _JOINT, (*_BUS_BRA, "lesions", "dice")),
    _WeightAim("the same, AUROC by patient (floor 0.88)", "≥", 0.92, _JOINT_CLASS, (*_BUS_BRA, "patients", "auroc")),
    _WeightAim("BUSI, out of fold: AUROC", "≥", 0.94, _JOINT_CLASS, (*_BUSI, "auroc")),
    _WeightAim("the same, ECE", "≤", 0.04, _JOINT_CLASS, (*_BUSI, "ece")),
    _WeightAim("the same, presence of a lesion, AUROC", "≥", 0.98, _JOINT, (*_BUSI, "presence", "auroc")),
    _WeightAim(
        "the same, normals with an outline, %", "≤", 0.05, _JOINT, (*_BUSI, "normals", "false_positive_rate"), True
    ),
    _WeightAim("15 % of BUSI beside BUS-BRA: Dice", "≥", 0.77, "busi_lite_busbra_seed0", ("lesions", "dice")),
    _WeightAim("the same, pixel accuracy, %", "≥", 0.96, "busi_lite_busbra_seed0", ("lesions", "pixel_accuracy"), True),
    _WeightAim("BUS-BRA left out: Dice", "≥", 0.80, "left_out_busbra_lite_seed0", ("lesions", "dice")),
    _WeightAim(
        "the same, AUROC by patient", "≥", 0.82, "left_out_busbra_class_lite_seed0", (*_BUS_BRA, "patients", "auroc")
    ),
    _WeightAim("BUSI left out: Dice", "≥", 0.75, "left_out_busi_lite_seed0", ("lesions", "dice")),
    _WeightAim("the same, AUROC", "≥", 0.88, "left_out_busi_class_lite_seed0", (*_BUSI, "auroc")),
    _WeightAim(
        "calipers moved: outline the same (Dice 0.95), % of lesions", "≥", 0.95, "marks", ("lesions", "same"), True
    ),
    _WeightAim(
        "small network beside its teacher: difference in Dice",
        "≥",
        -0.01,
        "compare_lite_cut",
        ("scores", "dice", "difference"),
    ),
)


def tabulate_weight_aims(results: Path) -> str:
    """A Markdown table with a row per aim of the weights whose record is there; "" where there are none.

    Args:
        results: folder of the records.

    Raises:
        InputError: a record is no readable JSON.
    """
    rows = []
    for about, bound, aim, record, path, percent in _WEIGHT_AIMS:
        file = results / f"{record}.json"
        if not file.is_file():
            continue
        value: Any = read_json(file, "record it again")
        for key in path:
            value = value[key]
        digits, scale = (1, 100) if percent else (3, 1)
        met = value["estimate"] >= aim if bound == "≥" else value["estimate"] <= aim
        reached, wanted = number(value, digits, scale), number(aim, 0 if percent else 2, scale)
        rows.append(f"| [{about}](runs.md#{record}) | {bound} {wanted} | {reached} | {'yes' if met else 'no'} |")
    return "\n".join(["| what | aim | reached [95 % CI] | met |", "|---|---|---|---|", *rows]) if rows else ""


def tabulate_aims(results: Path) -> str:
    """A Markdown table with a row per aim of speed that records tell of; "" where there are none.

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
