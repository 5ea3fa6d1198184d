# SPDX-License-Identifier: Apache-2.0
"""Scores of the classifier with intervals, calibration of its probabilities, and its operating points.

Malignant is the positive class, label 1. An image is called malignant where its probability reaches the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_expit

from bundle.errors import UserError
from bundle.evaluation.intervals import DRAWS, LEVEL, METHOD, REFLECTED, bootstrap_by_group, bootstrap_ratio_by_group

BINS = 15  # of the calibration error, as in Guo et al., On Calibration of Modern Neural Networks, ICML 2017


def summarise_classification(
    rows: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float | Sequence[float]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a classifier, with 95 % bootstrap intervals drawn by group.

    Args:
        rows: one per image: `image`, `group`, `label` (0 benign, 1 malignant) and `probability` of malignancy.
        thresholds: an operating point's name and its threshold in [0, 1], or one for each row, where each fold of a
            cross-validation has its own; by default {"default": 0.5}.
        draws: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `intervals` (how they were drawn), `cases`, `groups`, `malignant` (counts),
        `majority_accuracy` (of always naming the more frequent class), `auroc`, `auprc` (average precision), `brier`,
        `ece` (see `bin_reliability`), and `operating_points`: for each name `threshold` (the mean where there are
        many), `confusion` ([[tn, fp], [fn, tp]], rows are the truth) and the scores at it. Each score is {"estimate",
        "low", "high"}, None where the cases do not define it.

    Raises:
        UserError: no row, a label that is not 0 or 1, or a probability outside [0, 1].
    """
    labels, probabilities = as_arrays(rows)
    groups = [str(row["group"]) for row in rows]

    def ratio(top: ArrayLike, bottom: ArrayLike | None = None) -> dict[str, float | None]:
        return bootstrap_ratio_by_group(top, groups, bottom, draws=draws, seed=seed).as_dict()

    def statistic(
        function: Callable[[np.ndarray, np.ndarray], float],
        values: np.ndarray = probabilities,
        reflected: bool = False,
    ) -> dict[str, float | None]:
        return bootstrap_by_group(
            lambda cases: function(labels[cases], values[cases]), groups, draws=draws, seed=seed, reflected=reflected
        ).as_dict()

    def score_at(threshold: float | Sequence[float]) -> dict[str, Any]:
        called = probabilities >= np.asarray(threshold)
        tp, fp = labels & called, ~labels & called
        tn, fn = ~labels & ~called, labels & ~called
        return {
            "threshold": float(np.mean(threshold)),
            "confusion": [[int(tn.sum()), int(fp.sum())], [int(fn.sum()), int(tp.sum())]],
            "accuracy": ratio(tp | tn),
            "balanced_accuracy": statistic(balanced_accuracy, called),
            "sensitivity": ratio(tp, labels),
            "specificity": ratio(tn, ~labels),
            "precision_malignant": ratio(tp, called),
            "precision_benign": ratio(tn, ~called),
            "f1": ratio(2.0 * tp, 2.0 * tp + fp + fn),
        }

    majority = labels if 2 * labels.sum() > labels.size else ~labels
    return {
        "intervals": {"method": METHOD, "ece": REFLECTED, "level": LEVEL, "draws": draws, "seed": seed},
        "cases": len(rows),
        "groups": len(set(groups)),
        "malignant": int(labels.sum()),
        "majority_accuracy": ratio(majority),
        "auroc": statistic(area_under_roc),
        "auprc": statistic(average_precision),
        "brier": ratio((probabilities - labels) ** 2),
        "ece": statistic(calibration_error, reflected=True),
        "operating_points": {name: score_at(value) for name, value in (thresholds or {"default": 0.5}).items()},
    }


def as_arrays(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) bool and probabilities (N,) float64 of rows, checked.

    Raises:
        UserError: as `summarise_classification`; it names the image.
    """
    if not rows:
        raise UserError("no classified image to score; check that the split's test part is not empty")
    for row in rows:
        if row["label"] not in (0, 1):
            raise UserError(f"{row['image']}: label {row['label']} must be 0 (benign) or 1 (malignant)")
        # Written so that NaN fails as well.
        if not 0 <= row["probability"] <= 1:
            raise UserError(
                f"{row['image']}: probability {row['probability']} must be in [0, 1]; apply the sigmoid first"
            )
    return np.array([bool(row["label"]) for row in rows]), np.array([float(row["probability"]) for row in rows])


def area_under_roc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of (malignant, benign) pairs in the right order, ties counting half; NaN with one class only.

    Equal to scikit-learn's, about a hundred times as fast: an interval needs it thousands of times.

    Args:
        labels: (N,) bool.
        scores: (N,) float.
    """
    benign = np.sort(scores[~labels])
    malignant = scores[labels]
    if benign.size == 0 or malignant.size == 0:
        return math.nan
    below = np.searchsorted(benign, malignant, side="left") + np.searchsorted(benign, malignant, side="right")
    return float(below.mean() / 2 / benign.size)


def roc_points(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC curve: the shares of benign and of malignant cases that reach each limit.

    Equal to scikit-learn's with all points, whose import takes a second.

    Args:
        labels: (N,) bool, of both classes.
        scores: (N,) float.

    Returns:
        false and true positive rates, (M,) each: from 0, above the highest score, to 1, at the lowest.
    """
    limits = np.append(np.unique(scores), np.inf)[::-1]
    sides = (np.sort(scores[~labels]), np.sort(scores[labels]))
    false, true = ((side.size - np.searchsorted(side, limits)) / side.size for side in sides)
    return false, true


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the precision-recall curve as average precision; NaN without a malignant case."""
    malignant = np.sort(scores[labels])
    if malignant.size == 0:
        return math.nan
    # The mean, over malignant cases, of the precision at each one's own score.
    tp = malignant.size - np.searchsorted(malignant, malignant, side="left")
    called = scores.size - np.searchsorted(np.sort(scores), malignant, side="left")
    return float((tp / called).mean())


def balanced_accuracy(labels: np.ndarray, called: np.ndarray) -> float:
    """Return the mean of sensitivity and specificity; NaN with one class only. Both are (N,) bool."""
    if labels.all() or not labels.any():
        return math.nan
    return float((called[labels].mean() + (~called[~labels]).mean()) / 2)


def bin_reliability(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare probabilities with frequencies in 15 bins of equal width over P(malignant) in [0, 1].

    Args:
        labels: (N,) bool.
        probabilities: (N,) float.

    Returns:
        (15,) each: number of cases, sum of the probabilities, number of malignant cases.
    """
    number = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    count, probability, malignant = (
        np.bincount(number, weights=values, minlength=BINS) for values in (None, probabilities, labels)
    )
    return count, probability, malignant


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the expected calibration error: the mean over cases of their bin's |mean probability - frequency|."""
    count, probability, malignant = bin_reliability(labels, probabilities)
    return float(np.abs(probability - malignant).sum() / count.sum())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature T for which sigmoid(logit / T) has the least negative log-likelihood.

    The targets are Platt's, (n+ + 1) / (n+ + 2) and 1 / (n- + 2) in place of 1 and 0 (Platt, Probabilistic outputs for
    support vector machines, 1999): separable cases would otherwise ask for T = 0, that is for certainty.

    Args:
        logits: (N,) float.
        labels: (N,) 0 or 1.

    Returns:
        T > 0; 1 where nothing can be fitted (one class only, or all logits zero). T is searched from a tenth to a
        hundred times the mean size of the logits; it ends there for logits that order the cases the wrong way.

    Raises:
        ValueError: a logit is not finite.
    """
    from scipy.optimize import minimize_scalar  # here alone

    values, truth = np.asarray(logits, dtype=float).ravel(), np.asarray(labels).ravel().astype(bool)
    if not np.isfinite(values).all():
        raise ValueError("logits: all must be finite")
    size = float(np.abs(values).mean()) if values.size else 0.0
    if size == 0 or truth.all() or not truth.any():
        return 1.0
    malignant = int(truth.sum())
    targets = np.where(truth, (malignant + 1) / (malignant + 2), 1 / (truth.size - malignant + 2))

    def loss(log_temperature: float) -> float:
        scaled = values / math.exp(log_temperature)
        return float(-(targets * log_expit(scaled) + (1 - targets) * log_expit(-scaled)).mean())

    bounds = (math.log(size / 10), math.log(size * 100))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def name_point(wish: float) -> str:
    """The name of the operating point meant for a sensitivity: "sensitivity 0.90"."""
    return f"sensitivity {wish:.2f}"


def choose_operating_points(
    probabilities: ArrayLike, labels: ArrayLike, sensitivities: Sequence[float] = (0.90, 0.95)
) -> list[dict[str, float | None]]:
    """Return, for each wished sensitivity, the highest threshold that reaches it; meant for validation cases.

    Args:
        probabilities: (N,) float of malignancy.
        labels: (N,) 0 or 1.
        sensitivities: each in (0, 1].

    Returns:
        One {"sensitivity_wish", "threshold", "sensitivity", "specificity"} per wish; the last is None without benign
        cases.

    Raises:
        UserError: no case is malignant.
        ValueError: a wish is out of range.
    """
    scores, truth = np.asarray(probabilities, dtype=float).ravel(), np.asarray(labels).ravel().astype(bool)
    malignant, benign = np.sort(scores[truth])[::-1], scores[~truth]
    if malignant.size == 0:
        raise UserError("no validation case is malignant, so no operating point can be chosen; check the split")
    points: list[dict[str, float | None]] = []
    for wish in sensitivities:
        if not 0 < wish <= 1:
            raise ValueError(f"sensitivities: {wish} must be in (0, 1]")
        # The tolerance keeps 9 of 10 enough for 0.9, whatever 0.9 × 10 is in binary.
        threshold = float(malignant[math.ceil(wish * malignant.size - 1e-9) - 1])
        points.append(
            {
                "sensitivity_wish": float(wish),
                "threshold": threshold,
                "sensitivity": float((malignant >= threshold).mean()),
                "specificity": float((benign < threshold).mean()) if benign.size else None,
            }
        )
    return points
