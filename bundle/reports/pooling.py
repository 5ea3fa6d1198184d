# SPDX-License-Identifier: Apache-2.0
"""One result of a cross-validation: every image scored once, by networks that never saw it ("out of fold").

Of a classifier, several runs per fold (seeds) are an ensemble: their logits are averaged. Its calibration, operating
points and prediction sets are cross-fitted: those of a fold come from the out-of-fold logits of the other folds, so no
image helps to set what it is judged by, and hundreds of images do so in place of a validation part's few dozen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from bundle.errors import InputError, UserError
from bundle.evaluation.classification import choose_operating_points, name_point, summarise_classification
from bundle.evaluation.conformal import fit_conformal, summarise_conformal
from bundle.evaluation.segmentation import STRATA, CaseScores, gate, summarise
from bundle.evaluation.subgroups import summarise_subgroups
from bundle.evaluation.tables import read_per_image
from bundle.files import read_json, to_csv, write_atomically, write_json
from bundle.provenance import describe_run
from bundle.reports.classification_handler import summarise_ungated
from bundle.reports.figures import plot_confusion, plot_dice_histogram, plot_reliability, plot_roc
from bundle.reports.html import write_classification_report, write_report

SENSITIVITIES = (0.90, 0.95)
CLIP = 1e-6  # probabilities are kept this far from 0 and 1, whose logits are infinite
_MEND = "give the folder of a run that was evaluated"
_COUNTS = ("tp", "fp", "fn", "tn")
_FLAGS = ("missed", "false_positive", "told_none", "outlined")

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One evaluated run: where it is, its ``metrics.json``, its rows by image."""

    folder: Path
    metrics: dict[str, Any]
    rows: dict[str, Row]

    @property
    def is_classification(self) -> bool:
        return self.metrics.get("task") == "classification"


def pool_folds(folders: Sequence[str | os.PathLike[str]], output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Pool the evaluations of the runs of a cross-validation; write ``metrics.json``, ``per_image.csv``, report.

    Args:
        folders: run folders with an ``evaluation``; for each fold one run, of classifiers one or more.
        output_dir: gets the result.

    Returns:
        the metrics, as an evaluation gives them, with `members` (fold, seed and sha256 of each run) in `weights`.

    Raises:
        UserError: a run is not evaluated; the runs differ in task, dataset, masks or split seed; folds overlap in
            part; there is one fold only, or one is missing; or a fold of a segmentation has two runs.
    """
    runs = [read_run(Path(folder)) for folder in folders]
    _check_alike(runs)
    folds = _sort_into_folds(runs)
    pooled = _pool_classifiers(folds) if runs[0].is_classification else _pool_segmenters(folds)
    rows: list[Row] = pooled.pop("rows")
    provenance = runs[0].metrics["provenance"]
    metrics = {
        "synthetic": bool(runs[0].metrics["synthetic"]),
        "part": "test",
        **pooled,
        "weights": _describe_members(folds),
        "provenance": {
            **describe_run(),
            **{key: provenance.get(key) for key in ("dataset", "dataset_sha256", "split_seed")},
            "segmenter_sha256": sorted(
                {sha for run in runs for sha in run.metrics["provenance"].get("segmenter_sha256") or ()}
            ),
            "split": f"{len(folds)} folds, out of fold",
        },
    }
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    write_atomically(folder / "per_image.csv", to_csv(rows))
    if runs[0].is_classification:
        write_classification_report(folder, metrics, [], _draw_classification(folder, metrics, rows))
    else:
        figures = _draw_segmentation(folder, metrics, rows)
        gated = [gate(row) for row in rows]
        write_report(folder, metrics, gated, figures, metrics["provenance"], metrics["synthetic"])
    return metrics


def calibrate_across(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, list[list[dict[str, float | None]]], list[dict[str, float]]]:
    """Calibrate each fold by the others: Platt's logistic line, operating points, prediction sets.

    Args:
        logits: (N,) float, out of fold.
        labels: (N,) 0 or 1.
        folds: (N,) int, the fold of each image.

    Returns:
        probabilities (N,) in [0, 1]; and per fold, in the order of `np.unique`, its operating points and the limits of
        its prediction sets.

    Raises:
        UserError: the other folds of one lack a class.
    """
    probabilities, points, limits = np.empty(logits.size), [], []
    for fold in np.unique(folds):
        own, other = folds == fold, folds != fold
        if len(np.unique(labels[other])) < 2:
            raise UserError(f"fold {fold}: the other folds hold one class only, so nothing can be calibrated on them")
        line = LogisticRegression(C=1e6).fit(logits[other, None], labels[other])
        probabilities[own], others = (line.predict_proba(logits[part, None])[:, 1] for part in (own, other))
        points.append(choose_operating_points(others, labels[other], SENSITIVITIES))
        limits.append(fit_conformal(others, labels[other]))
    return probabilities, points, limits


def read_run(folder: Path) -> Run:
    """Read the evaluation of a run's test part.

    Raises:
        InputError: it is not evaluated, or another part is.
    """
    file = folder / "evaluation" / "metrics.json"
    metrics = read_json(file, _MEND)
    if "provenance" not in metrics or not ("lesions" in metrics or metrics.get("task") == "classification"):
        raise InputError(file, "is not of an evaluation", _MEND)
    if metrics.get("part", "test") != "test":
        raise InputError(file, f"is of the {metrics['part']} part", "evaluate the test part")
    table = file.with_name("per_image.csv")
    try:
        rows = {image: _parse(row) for image, row in read_per_image(table, _MEND).items()}
    except (ValueError, KeyError) as error:
        raise InputError(table, f"cannot be read ({error})", _MEND) from error
    return Run(folder, metrics, rows)


def _parse(row: Mapping[str, str]) -> Row:
    """Give the cells of a ``per_image.csv`` their types back."""
    texts = ("image", "class", "group", "dataset", "device", "birads", "patient")
    parsed: Row = {}
    for key, cell in row.items():
        if key in texts:
            parsed[key] = cell
        elif cell == "":
            parsed[key] = None
        elif key in _FLAGS:
            parsed[key] = {"True": True, "False": False}[cell]
        else:
            parsed[key] = int(cell) if key in (*_COUNTS, "label") else float(cell)
    return parsed


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for name in ("task", "masks", "synthetic"):
            if run.metrics.get(name) != first.metrics.get(name):
                raise UserError(f"{run.folder}: its {name} is not that of {first.folder}; pool runs of one kind")
        for name in ("dataset_sha256", "split_seed"):
            if run.metrics["provenance"].get(name) != first.metrics["provenance"].get(name):
                raise UserError(f"{run.folder}: its {name} is not that of {first.folder}; pool folds of one split")


def _sort_into_folds(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that were tested on the same images are one fold; images of two folds are refused."""
    folds: dict[frozenset[str], list[Run]] = {}
    for run in runs:
        images = frozenset(run.rows)
        for known in folds:
            if known != images and known & images:
                raise UserError(
                    f"{run.folder}: was tested on some images of {folds[known][0].folder} and on others; "
                    "pool folds of one split"
                )
        folds.setdefault(images, []).append(run)
    if len(folds) < 2:
        raise UserError("one fold only; give the runs of all folds of a cross-validation")
    _check_complete([str(fold[0].metrics["provenance"].get("split")) for fold in folds.values()])
    # In the order of their numbers, whatever the order of the arguments.
    return sorted(folds.values(), key=lambda fold: str(fold[0].metrics["provenance"].get("split")))


def _check_complete(splits: Sequence[str]) -> None:
    """Refuse some of the folds, or folds of several kinds: the images of the others would be missing in silence."""
    matches = [re.search(r"fold (\d+) of (\d+)$", split) for split in splits]
    named = {(int(match[1]), int(match[2])) for match in matches if match}
    counts = {count for _, count in named}
    if (len(named) < len(splits) and named) or len(counts) > 1:
        raise UserError(f"the runs are of different splits ({', '.join(sorted(splits))}); pool folds of one split")
    for count in counts:
        missing = sorted(set(range(count)) - {fold for fold, _ in named})
        if missing:
            raise UserError(f"the runs of fold {', '.join(map(str, missing))} of {count} are missing; give all folds")


def _pool_segmenters(folds: Sequence[Sequence[Run]]) -> dict[str, Any]:
    for fold in folds:
        if len(fold) > 1:
            raise UserError(f"{fold[1].folder}: the same fold as {fold[0].folder}; segmenters are not averaged")
    rows = [row for fold in folds for row in fold[0].rows.values()]
    lacking = [name for name in CaseScores.__dataclass_fields__ if name not in rows[0]]
    if lacking:
        raise UserError(f"{folds[0][0].folder}: its table lacks {', '.join(lacking)}; evaluate it again")
    thresholds = sorted({fold[0].metrics["threshold"] for fold in folds})
    return {"rows": rows, "threshold": ", ".join(f"{value:g}" for value in thresholds), **summarise(rows)}


def _pool_classifiers(folds: Sequence[Sequence[Run]]) -> dict[str, Any]:
    rows: list[Row] = []
    for number, fold in enumerate(folds):
        for image, row in fold[0].rows.items():
            ungated = np.array(
                [run.rows[image].get("probability_ungated", run.rows[image]["probability"]) for run in fold]
            )
            mean = float(logit(ungated.clip(CLIP, 1 - CLIP)).mean())
            known = {key: row[key] for key in ("image", "class", "group", "label")}
            known |= {key: row[key] for key in ("dataset", "patient", *STRATA) if key in row}
            known |= {"outlined": row.get("outlined", True), "told_none": row.get("told_none", False)}
            rows.append({**known, "fold": number, "logit": mean, "seen": bool(ungated.any())})
    # What is not outlined is not classified: it has score 0 whatever the calibration, and no part in it.
    thresholds, limits = _calibrate(rows, "outlined", "probability")
    ungated_thresholds, _ = _calibrate(rows, "seen", "probability_ungated")
    for row in rows:
        row["probability_raw"] = float(expit(row["logit"])) if row["outlined"] else 0.0
        del row["seen"]
    return {
        "rows": rows,
        "task": "classification",
        "masks": folds[0][0].metrics.get("masks"),
        **summarise_classification(rows, thresholds),
        **summarise_subgroups(rows, thresholds),
        **summarise_ungated(rows, ungated_thresholds),
        "conformal": summarise_conformal(rows, limits),
    }


def _calibrate(rows: Sequence[Row], chosen: str, key: str) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Add the calibrated probability of each row, 0 where it is not chosen.

    Returns:
        for each row the thresholds of the operating points, and the limits of its prediction sets.
    """
    part = [row for row in rows if row[chosen]]
    logits, labels, folds = (np.array([row[name] for row in part]) for name in ("logit", "label", "fold"))
    probabilities, points, limits = calibrate_across(logits, labels, folds)
    for row in rows:
        row[key] = 0.0
    for row, probability in zip(part, probabilities, strict=True):
        row[key] = float(probability)
    thresholds: dict[str, Any] = {"default": 0.5}
    for place, wish in enumerate(SENSITIVITIES):
        thresholds[f"{name_point(wish)} on the other folds"] = [points[row["fold"]][place]["threshold"] for row in rows]
    return thresholds, [limits[row["fold"]] for row in rows]


def _describe_members(folds: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """What all cards agree on, and who took part."""
    cards = [run.metrics["weights"] for fold in folds for run in fold]
    alike = {key: value for key, value in cards[0].items() if all(card.get(key) == value for card in cards)}
    numbers = sorted({card.get("training_images", 0) for card in cards})
    return {
        **{key: value for key, value in alike.items() if key not in ("sha256", "validation", "split_sha256")},
        "training_images": "–".join(map(str, dict.fromkeys((numbers[0], numbers[-1])))),
        "runs_per_fold": max(len(fold) for fold in folds),
        "provenance": folds[0][0].metrics["weights"].get("provenance", {}),
        "members": [
            {"fold": number, "run": run.folder.name}
            | {key: run.metrics["weights"].get(key) for key in ("seed", "sha256", "split")}
            for number, fold in enumerate(folds)
            for run in fold
        ],
    }


def _draw_classification(folder: Path, metrics: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, Path]]:
    synthetic = metrics["synthetic"]
    plot_confusion(metrics["operating_points"]["default"]["confusion"], folder / "confusion.png", synthetic=synthetic)
    plot_roc(rows, folder / "roc.png", synthetic=synthetic)
    plot_reliability(rows, folder / "reliability.png", synthetic=synthetic)
    return [
        ("Confusion matrix at probability 0.5", folder / "confusion.png"),
        ("ROC curve", folder / "roc.png"),
        ("Reliability: how often what is called so probable is malignant", folder / "reliability.png"),
    ]


def _draw_segmentation(folder: Path, metrics: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[str, Path]]:
    dice: dict[str, list[float]] = {}
    for row in map(gate, rows):
        if row["dice"] is not None:
            dice.setdefault(row["class"], []).append(row["dice"])
    plot_dice_histogram(dice, folder / "dice_histogram.png", synthetic=metrics["synthetic"])
    return [("Distribution of Dice", folder / "dice_histogram.png")]
