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
from bundle.evaluation.intervals import DRAWS, bootstrap_by_group, bootstrap_by_weights, bootstrap_ratio_by_group

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
    found = _fit_line(labels, probabilities)
    return float(found[0, 0]), float(found[0, 1])


def calibration_in_the_large(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return a of P(malignant) = sigmoid(a + logit(probability)): above 0, the probabilities are too low on the whole.

    Arguments as `calibration_line`; NaN with one class only.
    """
    return float(_fit_large(labels, probabilities)[0])


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

    def fitted(function: Callable[[np.ndarray], np.ndarray]) -> dict[str, float | None]:
        return bootstrap_by_weights(function, groups, draws=draws, seed=seed).as_dict()

    ece = bootstrap_by_group(
        lambda cases: calibration_error(labels[cases], probabilities[cases]),
        groups,
        draws=draws,
        seed=seed,
        reflected=True,
    )
    count, probability, malignant = bin_reliability(labels, probabilities)
    filled = np.flatnonzero(count)
    return {
        "ece": ece.as_dict(),
        "in_the_large": fitted(lambda weights: _fit_large(labels, probabilities, weights)),
        "intercept": fitted(lambda weights: _fit_line(labels, probabilities, weights)[:, 0]),
        "slope": fitted(lambda weights: _fit_line(labels, probabilities, weights)[:, 1]),
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


def _fit_line(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Intercept and slope, (S, 2), of each of S samples, see `_fit`; one sample of all cases by default."""
    x = _logits(probabilities)
    if x.size == 0:
        return np.full((1, 2), math.nan)
    counts = np.ones((1, x.size)) if weights is None else weights
    found = _fit(np.column_stack([np.ones_like(x), x]), labels, np.zeros_like(x), counts)
    there = counts > 0
    spread = np.where(there, x, -np.inf).max(axis=1) - np.where(there, x, np.inf).min(axis=1)
    return np.where(spread[:, None] > 0, found, math.nan)


def _fit_large(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Calibration in the large, (S,), of each of S samples; one sample of all cases by default."""
    x = _logits(probabilities)
    counts = np.ones((1, x.size)) if weights is None else weights
    return _fit(np.ones((x.size, 1)), labels, x, counts)[:, 0]


def _fit(columns: np.ndarray, labels: np.ndarray, offset: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Newton's method for a logistic regression with an offset, which scikit-learn's has not, of many samples at once.

    Args:
        columns: (N, P) float, P 1 or 2.
        labels: (N,) bool.
        offset: (N,) float.
        weights: (S, N) float, how often each case stands in each sample.

    Returns:
        (S, P) float; a row is NaN where a class is missing or nothing can be fitted.
    """
    truth, terms = np.asarray(labels, dtype=float), columns.shape[1]
    products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), terms * terms)
    found, answer = np.zeros((len(weights), terms)), np.full((len(weights), terms), math.nan)
    left = np.flatnonzero((weights @ truth > 0) & (weights @ (1 - truth) > 0))
    for _ in range(_STEPS):
        if not left.size:
            break
        counts = weights[left]
        expected = expit(found[left] @ columns.T + offset)
        slope = (counts * (truth - expected)) @ columns
        curvature = ((counts * expected * (1 - expected)) @ products).reshape(-1, terms, terms)
        # A long step from a flat place may overshoot; classes that a threshold separates lead to infinity.
        step = np.clip(_solve(curvature, slope), -5, 5)
        found[left] += step
        fits = np.isfinite(found[left]).all(axis=1) & (np.abs(found[left]).max(axis=1) <= _LARGEST)
        done = fits & (np.abs(step).max(axis=1) < _TOLERANCE)
        answer[left[done]] = found[left[done]]
        left = left[fits & ~done]
    return answer


def _solve(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Solve S systems of one or two equations; what is not finite has no solution, where NumPy would refuse all."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if vectors.shape[1] == 1:
            return np.asarray(vectors / matrices[:, 0])
        (a, b), (c, d) = matrices.transpose(1, 2, 0)
        first, second = vectors.T
        return np.column_stack([d * first - b * second, a * second - c * first]) / (a * d - b * c)[:, None]
