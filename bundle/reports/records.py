# SPDX-License-Identifier: Apache-2.0
"""Recorded results (docs/results/*.json): how they are written, checked and read again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.errors import InputError, UserError
from bundle.files import read_json, write_json
from bundle.reports.cines import RECORD as CINES
from bundle.reports.evidence import kind_of
from bundle.reports.peers import RECIPE as PEER
from bundle.reports.tools import RECORD as TOOLS

RECIPES = ("paper", "ours", PEER)
COMPARISON = "compare_"  # begins the names of recorded comparisons
EXTERNAL = "external_"  # begins the names of recorded evaluations on another hospital's images
BENCHMARK = "benchmark_"  # begins the names of what scripts/benchmark.py wrote
FUZZ = "fuzz"
GREY = "grey"  # what scripts/audit_grey.py wrote
EXAMINATION = "examination_rule"  # what scripts/examination_rule.py wrote
MARKS = "marks"  # names of what scripts/audit_marks.py wrote begin with it
RECALIBRATION = "recalibration"  # the site file that docs/recalibration.md quotes, without its images
SCORES = ("dice", "iou", "hd95", "pixel_accuracy", "background_accuracy", "missed")
_METRICS = ("synthetic", "threshold", "intervals", "lesions", "classes", "normals", "weights", "provenance")
CLASSIFICATION = "classification"  # the "task" that a classifier's metrics.json names; a segmenter's names none
EXTERNAL_TASK = "external"  # the "task" of what scripts/evaluate_external.py wrote
_CLASS_METRICS = ("synthetic", "masks", "intervals", "auroc", "ece", "operating_points", "weights", "provenance")
_EXTERNAL_METRICS = (
    *("synthetic", "dataset", "unit", "threshold", "segmentation", "classification", "transfer", "weights"),
    "provenance",
)
_COMPARED = ("images", "scores", "provenance")
_SPEEDS = ("settings", "rounds", "bare_images_per_second", "loop_images_per_second", "ratio", "provenance")
_MEND = "record it again with scripts/record_result.py"

PathLike = str | os.PathLike[str]


@dataclass
class Records:
    """All recorded results; each is the content of its file, with the file's stem as ``name``."""

    segmentations: list[dict[str, Any]] = field(default_factory=list)
    peers: list[dict[str, Any]] = field(default_factory=list)
    classifications: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    externals: list[dict[str, Any]] = field(default_factory=list)
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: list[dict[str, Any]] = field(default_factory=list)
    """Evidence and damaged files, which pages of their own show."""


def record_result(
    metrics_file: PathLike,
    results_dir: PathLike,
    name: str,
    *,
    title: str,
    recipe: str,
    row: int | None = None,
    note: str = "",
    allow_synthetic: bool = False,
) -> Path:
    """Copy the ``metrics.json`` of an evaluation to the recorded results, with what the pages say of it added.

    Args:
        metrics_file: as ``bundle.reports.SegmentationEvaluation`` wrote it; kept whole.
        results_dir: where results are recorded; a former one of the same name is replaced.
        name: of the file, without suffix: lower-case letters, digits and underscores.
        title: of the run on the pages.
        recipe: ``paper``, ``ours``, or ``peer`` for a network of the comparison with those of MONAI.
        row: of the paper's Table 1, where the run repeats one.
        note: a sentence for the run's section.
        allow_synthetic: also record a result on the synthetic phantom.

    Returns:
        the recorded file.

    Raises:
        UserError: the file is no such metrics, the name or the recipe is not allowed, or the data are synthetic.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name) or name.startswith(("benchmark", COMPARISON, EXTERNAL)):
        raise UserError(f"--name {name}: use lower-case letters, digits and underscores, such as busi_ours_seed0")
    if recipe not in RECIPES:
        raise UserError(f"--recipe {recipe}: choose one of {', '.join(RECIPES)}")
    mend = "give the metrics.json of an evaluation run"
    metrics = read_json(metrics_file, mend)
    _require(metrics_file, metrics, _CLASS_METRICS if metrics.get("task") == CLASSIFICATION else _METRICS, mend)
    _refuse_synthetic(metrics_file, metrics, allow_synthetic)
    target = Path(results_dir) / f"{name}.json"
    write_json(target, {"title": title, "recipe": recipe, "row": row, "note": note, **metrics})
    return target


def record_comparison(
    file: PathLike, results_dir: PathLike, name: str, *, title: str, first: str, second: str, note: str = ""
) -> Path:
    """Copy what ``scripts/compare.py --output`` wrote to the recorded results.

    Args:
        file: the comparison.
        results_dir: where results are recorded; a former one of the same name is replaced.
        name: of the file, which begins with ``compare_``.
        title: what was changed between the two models.
        first, second: the models, in a few words.
        note: a sentence for the table.

    Returns:
        the recorded file.

    Raises:
        UserError: the file is no comparison, or the name is not allowed.
    """
    if not re.fullmatch(COMPARISON + r"[a-z0-9_]+", name):
        raise UserError(
            f"--name {name}: a comparison is named {COMPARISON}…, in lower-case letters, digits, underscores"
        )
    mend = "give what scripts/compare.py --output wrote"
    content = read_json(file, mend)
    _require(file, content, _COMPARED, mend)
    target = Path(results_dir) / f"{name}.json"
    write_json(target, {"title": title, "first": first, "second": second, "note": note, **content})
    return target


def record_external(
    file: PathLike,
    results_dir: PathLike,
    name: str,
    *,
    title: str,
    note: str = "",
    allow_synthetic: bool = False,
) -> Path:
    """Copy the ``metrics.json`` of ``scripts/evaluate_external.py`` to the recorded results.

    Of the images that were left out or could not be used only the counts are kept: their names are the hospital's.

    Args:
        file: the metrics.
        results_dir: where results are recorded; a former one of the same name is replaced.
        name: of the file, which begins with ``external_``.
        title: the dataset and the weights, in a few words.
        note: a sentence for the run's section.
        allow_synthetic: also record a result on the synthetic phantom.

    Returns:
        the recorded file.

    Raises:
        UserError: the file is no such metrics, the name is not allowed, or the data are synthetic.
    """
    if not re.fullmatch(EXTERNAL + r"[a-z0-9_]+", name):
        raise UserError(f"--name {name}: use {EXTERNAL}… with lower-case letters, digits, underscores")
    mend = "give the metrics.json of scripts/evaluate_external.py"
    metrics = read_json(file, mend)
    _require(file, metrics, _EXTERNAL_METRICS, mend)
    _refuse_synthetic(file, metrics, allow_synthetic)
    counted = {key: len(value) if key in ("bad", "left_out") else value for key, value in metrics.items()}
    target = Path(results_dir) / f"{name}.json"
    write_json(target, {"title": title, "note": note, **counted})
    return target


def read_records(results_dir: PathLike) -> Records:
    """Read and sort every recorded result of a folder.

    Raises:
        InputError: a file is no readable JSON or lacks what the pages show.
    """
    records = Records()
    for file in sorted(Path(results_dir).glob("*.json")):
        read = read_json(file, _MEND)
        content: dict[str, Any] = {**read, "name": file.stem}
        if file.stem.startswith(COMPARISON):
            _require(file, content, ("title", "first", "second", "note", *_COMPARED), _MEND)
            records.comparisons.append(content)
        elif file.stem.startswith(EXTERNAL):
            _require(file, content, ("title", "note", *_EXTERNAL_METRICS), _MEND)
            records.externals.append(content)
        elif file.stem.startswith(BENCHMARK):
            kind = file.stem.removeprefix(BENCHMARK)
            keys = _SPEEDS if kind.startswith("training") else ("runs", "provenance")
            again = kind.split("_")[0]
            if kind == "duplicates":  # in two builds, in turns
                keys, again = (*keys, "rounds"), "builds --only duplicates"
            _require(file, content, keys, f"run scripts/benchmark.py {again} again")
            records.benchmarks[kind] = content
        elif (
            kind_of(content)
            or file.stem.startswith(MARKS)
            or file.stem in (FUZZ, GREY, RECALIBRATION, TOOLS, CINES, EXAMINATION)
        ):
            records.others.append({**content, "dataset_name": read.get("name")})
        elif content.get("task") == CLASSIFICATION:
            _require(file, content, ("title", "recipe", "row", "note", *_CLASS_METRICS), _MEND)
            if "ece" not in content["intervals"]:  # drawn when BCa was taken for it: may not even hold the estimate
                content["ece"] = {**content["ece"], "low": None, "high": None}
            records.classifications.append(content)
        else:
            _require(file, content, ("title", "recipe", "row", "note", *_METRICS), _MEND)
            _require(file, content["lesions"], SCORES, _MEND)
            (records.peers if content["recipe"] == PEER else records.segmentations).append(content)
    # The paper's recipe first, by its rows, then ours: the order in which a reader compares.
    for listed in (records.segmentations, records.peers, records.classifications):
        listed.sort(key=lambda result: (RECIPES.index(result["recipe"]), result["row"] or 0, result["name"]))
    return records


def _refuse_synthetic(file: PathLike, metrics: Mapping[str, Any], allowed: bool) -> None:
    if metrics["synthetic"] and not allowed:
        raise InputError(file, "its data are synthetic and say nothing about patients", "or add --allow-synthetic")


def _require(file: PathLike, content: Mapping[str, Any], keys: tuple[str, ...], mend: str) -> None:
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(file, f"lacks {', '.join(missing)}", mend)
