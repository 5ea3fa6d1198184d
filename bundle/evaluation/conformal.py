# SPDX-License-Identifier: Apache-2.0
"""Prediction sets with a promise per class, and "unsure" as an answer.

Class-conditional ("Mondrian") split conformal prediction (Vovk, Conditional validity of inductive conformal predictors,
Machine Learning 92, 2013): of new lesions of a class, at least the promised share has that class in its set, whatever
the classifier is worth, as long as they come from where the calibration lesions came from. A poor classifier pays with
sets that hold both classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.evaluation.intervals import DRAWS, bootstrap_ratio_by_group

COVERAGE = 0.9
UNSURE = "unsure"


def fit_conformal(probabilities: ArrayLike, labels: ArrayLike, coverage: float = COVERAGE) -> dict[str, float]:
    """Return what `conformal_call` needs, from lesions that the classifier was not trained on.

    Args:
        probabilities: (N,) float of malignancy, in [0, 1].
        labels: (N,) 0 benign, 1 malignant.
        coverage: the share promised to each class, in (0, 1).

    Returns:
        `coverage`, and `benign` and `malignant`: the probability of the class from which on it stays in the set; 0
        where a class has too few lesions to promise anything else.

    Raises:
        ValueError: the coverage is out of range.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: {coverage} must be between 0 and 1")
    malignancy, truth = np.asarray(probabilities, dtype=float), np.asarray(labels).astype(bool)
    limits = {"coverage": float(coverage)}
    for name, own in (("benign", 1 - malignancy[~truth]), ("malignant", malignancy[truth])):
        # Of n lesions and a new one, any rank is as likely: the new one falls below the k-th with k / (n + 1).
        rank = math.floor((1 - coverage) * (own.size + 1) + 1e-9)
        limits[name] = float(np.sort(own)[rank - 1]) if rank else 0.0
    return limits


def conformal_set(probability: float, limits: Mapping[str, float]) -> frozenset[str]:
    """Return the classes that a probability of malignancy leaves possible: none, one or both."""
    own = {"benign": 1 - probability, "malignant": probability}
    return frozenset(name for name, value in own.items() if value >= limits[name])


def conformal_call(probability: float, limits: Mapping[str, float]) -> str:
    """Return the only class left, or "unsure" where both or none is."""
    left = conformal_set(probability, limits)
    return next(iter(left)) if len(left) == 1 else UNSURE


def summarise_conformal(
    rows: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, float]], draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Score prediction sets, with 95 % bootstrap intervals drawn by group.

    Args:
        rows: one per image: `group`, `label` and `probability`.
        limits: for each row those fitted on other lesions, see `fit_conformal`.
        draws, seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `promised`; `coverage_benign`, `coverage_malignant`; `unsure` (share without an answer);
        and, of those with an answer, `accuracy`, `sensitivity`, `specificity`, as {"estimate", "low", "high"}.
    """
    truth = np.array([bool(row["label"]) for row in rows])
    groups = [str(row["group"]) for row in rows]
    sets = [conformal_set(row["probability"], limit) for row, limit in zip(rows, limits, strict=True)]
    covered = np.array([("malignant" if label else "benign") in left for label, left in zip(truth, sets, strict=True)])
    sure = np.array([len(left) == 1 for left in sets])
    right = sure & covered

    def ratio(top: np.ndarray, bottom: np.ndarray) -> dict[str, float | None]:
        return bootstrap_ratio_by_group(top, groups, bottom, draws=draws, seed=seed).as_dict()

    return {
        "promised": float(limits[0]["coverage"]) if limits else COVERAGE,
        "coverage_benign": ratio(covered & ~truth, ~truth),
        "coverage_malignant": ratio(covered & truth, truth),
        "unsure": ratio(~sure, np.ones_like(sure)),
        "accuracy": ratio(right, sure),
        "sensitivity": ratio(right & truth, sure & truth),
        "specificity": ratio(right & ~truth, sure & ~truth),
    }
