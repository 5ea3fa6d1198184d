# SPDX-License-Identifier: Apache-2.0
"""The classifier's last word: the network's logit, joined with hand-made features, calibrated.

A few hundred lesions are too few for a network to learn what a silhouette says; a logistic regression on measured
features learns it at once, and errs on other cases. Their logits are averaged ("late fusion"). All of it is plain
numbers on the card of the weights, so nothing but the card is needed to repeat it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from bundle.errors import UserError
from bundle.evaluation.classification import fit_temperature
from bundle.transforms.features import FEATURES, GREY_SCALE

LIMIT = 4.0
"""Standardised features are cut off at this many standard deviations: no single number may decide on its own."""


def fit_fusion(features: ArrayLike, labels: ArrayLike) -> dict[str, Any]:
    """Fit a logistic regression on the features of the training images.

    Args:
        features: (N, F) float, in the order of `FEATURES`.
        labels: (N,) 0 or 1; classes count equally whatever their share.

    Returns:
        `features` (names), `grey_scale`, `mean`, `scale`, `coefficients` (F each) and `intercept`: the `fusion` of a
        card, still without `network_temperature`.
    """
    from sklearn.linear_model import LogisticRegression  # here alone: applying a fusion is three lines of NumPy
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values, truth = np.asarray(features, dtype=float), np.asarray(labels).astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000))
    model.fit(values, truth)
    scaler, regression = model[0], model[1]
    return {
        "features": list(FEATURES),
        "grey_scale": GREY_SCALE,
        "mean": scaler.mean_.tolist(),
        "scale": scaler.scale_.tolist(),
        "coefficients": regression.coef_[0].tolist(),
        "intercept": float(regression.intercept_[0]),
    }


def fit_calibration(
    logits: ArrayLike, features: ArrayLike, labels: ArrayLike, fusion: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Fit what turns logits into probabilities, on validation images.

    Args:
        logits: (N,) float, of the network.
        features: (N, F) float; not looked at without fusion.
        labels: (N,) 0 or 1.
        fusion: of `fit_fusion`; None for the network alone.

    Returns:
        `temperature` and `fusion` of a card.
    """
    card: dict[str, Any] = {"fusion": None, "temperature": 1.0}
    if fusion is not None:
        card["fusion"] = {**fusion, "network_temperature": fit_temperature(logits, labels)}
    card["temperature"] = fit_temperature(join_logits(card, logits, features), labels)
    return card


def check_fusion(card: Mapping[str, Any]) -> None:
    """Refuse a card whose features are measured in other units than those of this version.

    Raises:
        UserError: they are.
    """
    fusion = card.get("fusion")
    if fusion is None:
        return
    if fusion.get("grey_scale") != GREY_SCALE or not set(fusion["features"]) <= set(FEATURES):
        raise UserError(
            "the classifier's card joins features as an older version measured them, in absolute grey levels; "
            "run scripts/refit_classifier.py on its training's folders, or train it again"
        )


def join_logits(card: Mapping[str, Any], logits: ArrayLike, features: ArrayLike) -> np.ndarray:
    """Return the mean of the network's logits and the features' ones, or the former where the card has no fusion.

    Args:
        card: of the classifier.
        logits: (N,) float, of the network.
        features: (N, F) float, in the order of `FEATURES`; not looked at without fusion.

    Raises:
        UserError: as `check_fusion`.
    """
    check_fusion(card)
    values, fusion = np.asarray(logits, dtype=float), card.get("fusion")
    if fusion is None:
        return values
    columns = [FEATURES.index(name) for name in fusion["features"]]
    standard = (np.asarray(features, dtype=float)[:, columns] - fusion["mean"]) / fusion["scale"]
    described = standard.clip(-LIMIT, LIMIT) @ np.asarray(fusion["coefficients"]) + fusion["intercept"]
    return (values / fusion["network_temperature"] + described) / 2


def calibrated_probability(card: Mapping[str, Any], logits: ArrayLike, features: ArrayLike) -> np.ndarray:
    """Return P(malignant), (N,) float64 in [0, 1], as the card says; arguments as `join_logits`."""
    return expit(join_logits(card, logits, features) / card.get("temperature", 1.0))
