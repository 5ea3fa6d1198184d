# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from bundle.evaluation.drift import calibration_in_the_large, calibration_line, summarise_calibration


def _drawn(intercept: float, slope: float, cases: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels whose true probability is sigmoid(intercept + slope · logit(p))."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(0, 1.5, cases))
    return rng.random(cases) < expit(intercept + slope * logit(p)), p


@settings(max_examples=25, deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(0.3, 2), st.integers(0, 2**16))
def test_line_is_scikit_learns_without_penalty(intercept: float, slope: float, seed: int) -> None:
    labels, p = _drawn(intercept, slope, 300, seed)
    found = calibration_line(labels, p)
    model = LogisticRegression(C=1e10, tol=1e-10, max_iter=10_000).fit(logit(p)[:, None], labels)
    assert found == pytest.approx((model.intercept_[0], model.coef_[0, 0]), abs=1e-3)


@pytest.mark.parametrize(("intercept", "slope"), [(0, 1), (1, 1), (-0.5, 0.5), (0, 2)])
def test_known_drift_is_found_again(intercept: float, slope: float) -> None:
    assert calibration_line(*_drawn(intercept, slope)) == pytest.approx((intercept, slope), abs=0.15)


def test_probabilities_that_are_too_low_show_in_the_large() -> None:
    labels, p = _drawn(0.7, 1)
    assert calibration_in_the_large(labels, p) == pytest.approx(0.7, abs=0.1)
    # At the maximum of the likelihood the moved probabilities sum to the malignant cases.
    moved = expit(logit(p) + calibration_in_the_large(labels, p))
    assert moved.sum() == pytest.approx(labels.sum())


@pytest.mark.parametrize(
    ("labels", "p"),
    [
        ([], []),
        ([True, True, True], [0.1, 0.5, 0.9]),
        ([False, True, False, True], [0.5, 0.5, 0.5, 0.5]),
        ([False, False, True, True], [0.1, 0.2, 0.8, 0.9]),
    ],
    ids=["no case", "one class", "one probability", "separated"],
)
def test_what_cannot_be_fitted_is_nan_not_a_number(labels: list[bool], p: list[float]) -> None:
    assert all(map(math.isnan, calibration_line(np.array(labels, dtype=bool), np.array(p))))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40))
def test_any_probability_from_0_to_1_gives_a_finite_number_or_nan(cases: list[tuple[bool, float]]) -> None:
    labels, p = (np.array(column) for column in zip(*cases, strict=True))
    for value in (*calibration_line(labels, p), calibration_in_the_large(labels, p)):
        assert math.isnan(value) or abs(value) <= 100


def test_summary_has_intervals_that_hold_the_truth() -> None:
    labels, p = _drawn(0.5, 0.6, 400)
    rows = [
        {"image": str(i), "group": str(i // 2), "label": int(label), "probability": float(value)}
        for i, (label, value) in enumerate(zip(labels, p, strict=True))
    ]
    summary = summarise_calibration(rows, draws=200)
    assert summary["slope"]["low"] < 0.6 < summary["slope"]["high"] < 1
    assert summary["intercept"]["low"] < 0.5 < summary["intercept"]["high"]
    assert sum(entry["cases"] for entry in summary["reliability"]) == 400
