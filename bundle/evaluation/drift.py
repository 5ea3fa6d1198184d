# SPDX-License-Identifier: Apache-2.0
"""How far probabilities have drifted on other data: error, intercept and slope of a logistic recalibration.

Cox, Two further applications of a model for binary regression, Biometrika 45 (1958); Van Calster et al., Calibration:
the Achilles heel of predictive analytics, BMC Medicine 17 (2019) 230.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logit

from bundle.evaluation.classification import as_arrays, bin_reliability, calibration_error
from bundle.evaluation.intervals import DRAWS, bootstrap_by_group, bootstrap_ratio_by_group

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1, whose logits are infinite."""

_STEPS, _TOLERANCE, _LARGEST = 50, 1e-8, 100.0


def calibration_line(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Return intercept a and slope b of P(malignant) = sigmoid(a + b · logit(probability)), by maximum likelihood.

    0 and 1 are perfect; a slope below 1 means that the probabilities are too extreme. Both are NaN where nothing can be
    fitted: one class only, one probability only, or classes that a threshold separates.

    Args:
        labels: (N,) bool.
        probabilities: (N,) float in [0, 1].
    """
    x = _logits(probabilities)
    if x.size == 0 or np.ptp(x) == 0:
        return math.nan, math.nan
    found = _fit(np.column_stack([np.ones_like(x), x]), labels, np.zeros_like(x))
    return float(found[0]), float(found[1])


def calibration_in_the_large(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return a of P(malignant) = sigmoid(a + logit(probability)): above 0, the probabilities are too low on the whole.

    Arguments as `calibration_line`; NaN with one class only.
    """
    x = _logits(probabilities)
    return float(_fit(np.ones((x.size, 1)), labels, x)[0])


def summarise_calibration(rows: Sequence[Mapping[str, Any]], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Score the calibration of a classifier, with 95 % bootstrap intervals drawn by group.

    Args:
        rows: as `bundle.evaluation.classification.summarise_classification` takes them.
        draws, seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `ece`, `in_the_large`, `intercept`, `slope`, `mean_probability`, `malignant_share` as
        {"estimate", "low", "high"}, and `reliability`: for each bin that is not empty, `cases`, `probability` (mean)
        and `malignant` (share).

    Raises:
        UserError: no row, a label that is not 0 or 1, or a probability outside [0, 1].
    """
    labels, probabilities = as_arrays(rows)
    groups = [str(row["group"]) for row in rows]

    def statistic(
        function: Callable[[np.ndarray, np.ndarray], float], reflected: bool = False
    ) -> dict[str, float | None]:
        return bootstrap_by_group(
            lambda cases: function(labels[cases], probabilities[cases]),
            groups,
            draws=draws,
            seed=seed,
            reflected=reflected,
        ).as_dict()

    count, probability, malignant = bin_reliability(labels, probabilities)
    filled = np.flatnonzero(count)
    return {
        "ece": statistic(calibration_error, reflected=True),
        "in_the_large": statistic(calibration_in_the_large),
        "intercept": statistic(lambda truth, scores: calibration_line(truth, scores)[0]),
        "slope": statistic(lambda truth, scores: calibration_line(truth, scores)[1]),
        "mean_probability": bootstrap_ratio_by_group(probabilities, groups, draws=draws, seed=seed).as_dict(),
        "malignant_share": bootstrap_ratio_by_group(labels, groups, draws=draws, seed=seed).as_dict(),
        "reliability": [
            {
                "cases": int(count[number]),
                "probability": float(probability[number] / count[number]),
                "malignant": float(malignant[number] / count[number]),
            }
            for number in filled
        ],
    }


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(logit(np.clip(np.asarray(probabilities, dtype=float), CLIP, 1 - CLIP)))


def _fit(columns: np.ndarray, labels: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Newton's method for a logistic regression with an offset, which scikit-learn's has not; (P,), NaN on failure."""
    truth, found = np.asarray(labels, dtype=float), np.zeros(columns.shape[1])
    if truth.all() or not truth.any():
        return np.full_like(found, np.nan)
    for _ in range(_STEPS):
        expected = expit(columns @ found + offset)
        weight = expected * (1 - expected)
        try:
            step = np.linalg.solve((columns * weight[:, None]).T @ columns, columns.T @ (truth - expected))
        except np.linalg.LinAlgError:
            break
        # A long step from a flat place may overshoot; classes that a threshold separates lead to infinity.
        found = found + np.clip(step, -5, 5)
        if not np.isfinite(found).all() or np.abs(found).max() > _LARGEST:
            break
        if np.abs(step).max() < _TOLERANCE:
            return found
    return np.full_like(found, np.nan)
