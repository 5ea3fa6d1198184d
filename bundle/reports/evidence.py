# SPDX-License-Identifier: Apache-2.0
"""The evidence page: what a score on a dataset is made of, told from the recorded audits of that dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bundle.errors import InputError
from bundle.files import read_json, write_json
from bundle.reports.planned_figure import PlannedFigure
from bundle.transforms.features import GREY_SCALE

KINDS = {"audit": "repeated_groups", "leaks": "protocols", "factorial": "cells"}
"""What is recorded, and the key by which its file is known."""

FIGURES = ("evidence_leaks.png", "evidence_factorial.png")

_LISTS = (
    *("pairs", "label_conflicts", "contours", "equal_files", "equal_pixels", "coloured", "calipers"),
    *("outlier_sizes", "skipped"),
)
_BLUE, _ORANGE, _GREY = "#0072b2", "#e69f00", "#666666"  # of the Okabe-Ito palette


def kind_of(content: Mapping[str, Any]) -> str | None:
    """Which of `KINDS` a file's content is; None for another file."""
    return next((kind for kind, key in KINDS.items() if key in content), None)


def record_evidence(
    file: str | os.PathLike[str], results_dir: str | os.PathLike[str], allow_synthetic: bool = False
) -> Path:
    """Copy ``audit.json``, ``leaks.json`` or ``factorial.json`` to the recorded results; of an audit only the counts.

    Raises:
        InputError: it is none of these, or its data are synthetic.
    """
    content = read_json(file)
    kind = kind_of(content)
    if kind is None:
        raise InputError(file, "is no audit.json, leaks.json or factorial.json", "give one")
    if content["synthetic"] and not allow_synthetic:
        raise InputError(file, "its data are synthetic and say nothing about patients", "or add --allow-synthetic")
    if kind == "audit":
        content = {key: len(value) if key in _LISTS else value for key, value in content.items()}
    target = Path(results_dir) / f"evidence_{kind}.json"
    write_json(target, content)
    return target


def read_evidence(results_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The recorded evidence by kind, None for what is not recorded.

    Beside it: whether all of it is there (`complete`), whether any is of `synthetic` data, and whether the leaks were
    measured by `older_features` than those of today.

    Raises:
        InputError: a file is no readable JSON, or they are of different datasets.
    """
    files = {kind: Path(results_dir) / f"evidence_{kind}.json" for kind in KINDS}
    found = {kind: read_json(file) if file.is_file() else None for kind, file in files.items()}
    datasets = {content["dataset_sha256"] for content in found.values() if content}
    if len(datasets) > 1:
        raise InputError(files["leaks"], "is of another dataset than the files beside it", "record them again")
    return {
        **found,
        "complete": all(found.values()),
        "synthetic": any(content["synthetic"] for content in found.values() if content),
        "older_features": found["leaks"] is not None and found["leaks"].get("grey_scale") != GREY_SCALE,
    }


def summarise_factorial(factorial: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the page says of the sixteen cells: each choice's mean effect on AUROC, and the honest cells."""
    if factorial is None:
        return {"effects": [], "honest": {}}
    cells = factorial["cells"]
    choices = (
        ("ground-truth in place of predicted masks", "masks", "ground truth"),
        ("random in place of grouped split", "split", "random"),
        ("oversampled before in place of after the split", "oversampled", "before"),
        ("silhouette in place of crop", "input", "masked"),
    )
    effects = []
    for name, factor, leaky in choices:
        sides: dict[bool, list[float]] = {True: [], False: []}
        for cell in cells:
            sides[cell[factor] == leaky].append(cell["auroc"]["estimate"])
        effects.append({"name": name, "change": mean(sides[True]) - mean(sides[False])})
    honest = {
        cell["input"]: cell
        for cell in cells
        if (cell["masks"], cell["split"], cell["oversampled"]) == ("predicted", "grouped", "after")
    }
    return {"effects": effects, "honest": honest}


def plan_evidence_figures(evidence: Mapping[str, Any]) -> dict[str, PlannedFigure]:
    """The page's two figures by name, as soon as all is recorded that they show."""
    if not evidence["complete"]:
        return {}
    shown = (evidence["leaks"], evidence["factorial"])
    drawn = (lambda: _draw_leaks(shown[0]), lambda: _draw_factorial(shown[1]))
    return {name: PlannedFigure(shown, draw) for name, draw in zip(FIGURES, drawn, strict=True)}


def _draw_leaks(leaks: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    names = list(next(iter(leaks["silhouettes"].values())))
    for offset, (source, colour) in enumerate(zip(leaks["silhouettes"], (_ORANGE, _BLUE), strict=False)):
        scores = [leaks["silhouettes"][source][name]["auroc"] for name in names]
        _dots(left, [row + 0.3 * offset for row in range(len(names))], scores, colour, f"{source} masks")
    left.set_yticks([row + 0.15 for row in range(len(names))], names)
    left.set_title("Class from the outline, no network\n(grouped cross-validation)", fontsize=10)
    protocols = leaks["protocols"]
    _dots(right, range(len(protocols)), [entry["auroc"] for entry in protocols.values()], _BLUE, "one random forest")
    labels = [
        f"{name}\n{entry['test_images_with_a_twin_in_training']:.0%} have a twin in training"
        for name, entry in protocols.items()
    ]
    right.set_yticks(range(len(protocols)), labels, fontsize=8)
    right.set_title(f"The same classifier, four ways to split\n({leaks['protocol_masks']} masks)", fontsize=10)
    for axes in (left, right):
        axes.invert_yaxis()
        axes.set_xlabel("AUROC with 95 % interval")
        axes.set_xlim(0.5, 1.0)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize=8, loc="lower left")
    return figure


def _draw_factorial(factorial: Mapping[str, Any]) -> Figure:
    cells = sorted(factorial["cells"], key=lambda cell: -cell["accuracy"]["estimate"])
    figure = Figure(figsize=(9, 5.2), layout="constrained", dpi=120)
    axes = figure.subplots()
    for source, colour in (("ground truth", _ORANGE), ("predicted", _BLUE)):
        rows = [row for row, cell in enumerate(cells) if cell["masks"] == source]
        _dots(axes, rows, [cells[row]["accuracy"] for row in rows], colour, f"{source} masks")
    for row, cell in enumerate(cells):
        axes.plot([run["accuracy"] for run in cell["runs"]], [row] * len(cell["runs"]), "|", color=_GREY)
    axes.set_yticks(range(len(cells)), [name_cell(cell) for cell in cells], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy with 95 % interval; bars: single runs")
    axes.set_title(f"One small SegNet, {factorial['seeds']} seeds, sixteen ways to be scored", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def name_cell(cell: Mapping[str, Any]) -> str:
    """A cell's factors in a few words."""
    seen = "silhouette" if cell["input"] == "masked" else "crop"
    return f"{seen}, {cell['split']} split, oversampled {cell['oversampled']} it"


def _dots(axes: Axes, rows: Sequence[float], scores: Sequence[Mapping[str, Any]], colour: str, label: str) -> None:
    """Estimates as dots with their intervals as lines."""
    middle, low, high = (
        np.array([score["estimate"] if score[key] is None else score[key] for score in scores])
        for key in ("estimate", "low", "high")
    )
    axes.errorbar(middle, list(rows), xerr=(middle - low, high - middle), fmt="o", color=colour, capsize=3, label=label)
