# SPDX-License-Identifier: Apache-2.0
"""One probability for a patient's images of one examination: how they are joined, and calibrated for the patient.

The probability of an image was calibrated for images. The highest of several is higher than that of one, and a mean is
less sure than it could be, since images of one lesion agree. So what is joined goes through a logistic line that was
fitted on patients, by probabilities of images that no network had seen.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from bundle.data.cases import DIAGNOSES
from bundle.errors import UserError
from bundle.evaluation.cine import AGGREGATES
from bundle.evaluation.cine_rules import score_aggregate
from bundle.evaluation.classification import choose_operating_points
from bundle.evaluation.drift import CLIP, calibration_line
from bundle.evaluation.intervals import DRAWS

RULES = ("maximum", "mean", "mean of logits")
"""Of `AGGREGATES`, what is tried."""

SENSITIVITIES = (0.90, 0.95)
FEWEST = 30
"""Patients of each class that a fit needs."""

FOLDS = 5
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Patient:
    """A patient's outlined images: her group (near duplicates share one), whether malignant, their probabilities."""

    group: str
    malignant: bool
    probabilities: tuple[float, ...]


def examination_probability(calibration: Mapping[str, Any], probabilities: Sequence[float]) -> float:
    """Return P(malignant) of a patient's images together.

    Args:
        calibration: ``examination`` of a classifier's card: `rule`, `slope`, `intercept`.
        probabilities: of her images with an outline, each in [0, 1]; at least one.
    """
    joined = AGGREGATES[calibration["rule"]](probabilities)
    return float(_follow_line(np.array([joined]), calibration["slope"], calibration["intercept"])[0])


def fit_examination(rows: Sequence[Row], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Choose how to join a patient's images, and fit the line that calibrates it.

    Each figure is of patients whom neither the line nor, for `chosen`, the choice of the rule had seen: those of four
    fifths are fitted for the other fifth, whole groups at a time.

    Args:
        rows: out of fold, one per image: `class`, `group`, `patient` ("" where it is not known), `probability`
            (calibrated for images) and `outlined`. Patients that are not known have no part, nor images without an
            outline.
        draws, seed: of the bootstrap; the seed also deals out the folds.

    Returns:
        A dict ready for JSON: `examination`, for the card: `rule`, `slope`, `intercept`, `operating_points` and
        `fitted_on`; `rules`: for each its scores ``as joined`` and ``calibrated``, see `score_aggregate`; `chosen`, the
        scores of the whole procedure; `several`, the same of patients with several images; and counts.

    Raises:
        UserError: too few patients of a class.
    """
    patients, counts = _gather(rows)
    labels = np.array([patient.malignant for patient in patients], dtype=bool)
    if min(labels.sum(), (~labels).sum()) < FEWEST:
        raise UserError(f"{int(labels.sum())} malignant of {len(labels)} known patients; a fit needs {FEWEST} of each")
    groups = [patient.group for patient in patients]
    joined = {rule: np.array([AGGREGATES[rule](patient.probabilities) for patient in patients]) for rule in RULES}
    calibrated = {rule: np.empty(len(labels)) for rule in RULES}
    chosen = np.empty(len(labels))
    for others, own in _deal(labels, groups, seed):
        for rule, values in joined.items():
            calibrated[rule][own] = _follow_line(values[own], *_fit_line(values[others], labels[others]))
        best = _best_rule({rule: values[others] for rule, values in joined.items()}, labels[others])
        chosen[own] = calibrated[best][own]
    rule = _best_rule(joined, labels)
    slope, intercept = _fit_line(joined[rule], labels)
    several = np.array([len(patient.probabilities) > 1 for patient in patients])

    def score(values: np.ndarray, part: np.ndarray | slice = slice(None)) -> dict[str, Any]:
        own = [group for group, kept in zip(groups, _as_flags(part, len(groups)), strict=True) if kept]
        return score_aggregate(labels[part], values[part], own, draws, seed)

    points = choose_operating_points(_follow_line(joined[rule], slope, intercept), labels, SENSITIVITIES)
    return {
        "examination": {
            **{"rule": rule, "slope": slope, "intercept": intercept, "operating_points": points},
            "fitted_on": {**counts, "malignant": int(labels.sum())},
        },
        "rules": {rule: {"as joined": score(joined[rule]), "calibrated": score(calibrated[rule])} for rule in RULES},
        "chosen": score(chosen),
        "several": {
            "patients": int(several.sum()),
            **({"chosen": score(chosen, several)} if 0 < labels[several].sum() < several.sum() else {}),
        },
    }


def _gather(rows: Sequence[Row]) -> tuple[list[Patient], dict[str, Any]]:
    """Known patients with an outlined image of a benign or malignant lesion, and how many there are of what."""
    by_patient: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["class"] in DIAGNOSES and row.get("patient"):
            by_patient[str(row["patient"])].append(row)
    patients, numbers = [], []
    for images in by_patient.values():
        shown = [row for row in images if row.get("outlined", True)]
        if shown:
            is_malignant = any(row["class"] == "malignant" for row in images)
            values = tuple(float(row["probability"]) for row in shown)
            patients.append(Patient(str(shown[0]["group"]), is_malignant, values))
            numbers.append(len(values))
    return patients, {
        "patients": len(patients),
        "without_an_outline": len(by_patient) - len(patients),
        "images": sum(numbers),
        "most_images": max(numbers, default=0),
    }


def _best_rule(joined: Mapping[str, np.ndarray], labels: np.ndarray) -> str:
    """The rule of the lowest log loss once its line is fitted; the line has two numbers whatever the rule."""

    def loss(rule: str) -> float:
        fitted = _follow_line(joined[rule], *_fit_line(joined[rule], labels)).clip(CLIP, 1 - CLIP)
        return float(-np.log(np.where(labels, fitted, 1 - fitted)).mean())

    return min(joined, key=loss)


def _fit_line(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic line.

    Raises:
        UserError: none can be fitted.
    """
    intercept, slope = calibration_line(labels, values)
    if not np.isfinite(slope):
        raise UserError(
            "the probabilities of the patients separate the classes, or are all equal: nothing can be fitted"
        )
    return slope, intercept


def _follow_line(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    return expit(slope * logit(values.clip(CLIP, 1 - CLIP)) + intercept)


def _as_flags(part: np.ndarray | slice, count: int) -> np.ndarray:
    flags = np.zeros(count, bool)
    flags[part] = True
    return flags


def _deal(labels: np.ndarray, groups: Sequence[str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedGroupKFold  # here alone: it takes a second to import

    dealer = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(dealer.split(np.zeros(len(labels)), labels, groups))
