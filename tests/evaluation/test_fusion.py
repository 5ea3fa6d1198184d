# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.fusion."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from bundle.errors import UserError
from bundle.evaluation.fusion import calibrated_probability, fit_calibration, fit_fusion, join_logits
from bundle.transforms import FEATURES


def _cases(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits and one feature that each know the class half, with independent errors; the other features are noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    features = random.normal(size=(count, len(FEATURES)))
    features[:, 0] += 1.5 * labels
    return 5 * (labels - 0.5 + random.normal(scale=0.7, size=count)), features, labels


def test_logits_and_features_together_tell_more_than_each_alone() -> None:
    _, features, labels = _cases(400)
    fusion = fit_fusion(features, labels)
    logits, features, labels = _cases(400, seed=1)
    card = fit_calibration(logits, features, labels, fusion)
    logits, features, labels = _cases(1000, seed=2)
    together = roc_auc_score(labels, calibrated_probability(card, logits, features))
    without_network = roc_auc_score(labels, calibrated_probability(card, 0 * logits, features))
    assert together > roc_auc_score(labels, logits) + 0.02
    assert together > without_network + 0.02


def test_a_card_that_went_through_json_gives_the_same_numbers() -> None:
    logits, features, labels = _cases(60)
    card = fit_calibration(logits, features, labels, fit_fusion(features, labels))
    again = json.loads(json.dumps(card))
    assert np.array_equal(
        calibrated_probability(again, logits, features), calibrated_probability(card, logits, features)
    )


def test_without_fusion_the_features_are_not_looked_at() -> None:
    logits, features, labels = _cases(60)
    card = fit_calibration(logits, features, labels, None)
    assert np.array_equal(join_logits(card, logits, np.empty((60, 0))), logits)
    expected = expit(logits / card["temperature"])
    assert calibrated_probability(card, logits, np.full((60, 0), np.nan)) == pytest.approx(expected)


def test_an_order_of_features_that_changed_since_the_training_does_not_matter() -> None:
    logits, features, labels = _cases(60)
    card = fit_calibration(logits, features, labels, fit_fusion(features, labels))
    order = np.random.default_rng(3).permutation(len(FEATURES))
    fusion = card["fusion"]
    shuffled = {key: [fusion[key][i] for i in order] for key in ("features", "mean", "scale", "coefficients")}
    other = {**card, "fusion": {**fusion, **shuffled}}
    assert join_logits(other, logits, features) == pytest.approx(join_logits(card, logits, features))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=len(FEATURES), max_size=len(FEATURES)), st.floats(-1e4, 1e4))
def test_no_measurement_however_odd_leaves_the_range_of_probabilities(values: list[float], logit: float) -> None:
    logits, features, labels = _cases(60)
    card = fit_calibration(logits, features, labels, fit_fusion(features, labels))
    assert 0 <= calibrated_probability(card, [logit], [values]).item() <= 1


@pytest.mark.parametrize("change", ["grey_scale", "features"])
def test_a_card_whose_features_were_measured_otherwise_is_refused_with_the_mend(change: str) -> None:
    logits, features, labels = _cases(60)
    card = fit_calibration(logits, features, labels, fit_fusion(features, labels))
    older = {key: value for key, value in card["fusion"].items() if key != "grey_scale"}
    if change == "features":
        older = {**card["fusion"], "features": ["components", *card["fusion"]["features"][1:]]}
    with pytest.raises(UserError, match=r"scripts/refit_classifier\.py"):
        calibrated_probability({**card, "fusion": older}, logits, features)
