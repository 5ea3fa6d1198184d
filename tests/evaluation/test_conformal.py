# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.conformal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from bundle.evaluation.conformal import UNSURE, conformal_call, conformal_set, fit_conformal, summarise_conformal


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_each_class_is_covered_as_promised_whatever_the_classifier_is_worth(strength: float, coverage: float) -> None:
    rng = np.random.default_rng(0)
    covered = {"benign": [], "malignant": []}
    for _ in range(400):
        labels = rng.random(121) < 0.3
        scores = expit(strength * (labels - 0.5) + rng.standard_normal(121))
        limits = fit_conformal(scores[:120], labels[:120], coverage)
        truth = "malignant" if labels[-1] else "benign"
        covered[truth].append(truth in conformal_set(scores[-1], limits))
    for hits in covered.values():
        error = 4 * np.sqrt(coverage * (1 - coverage) / len(hits))
        assert coverage - error < np.mean(hits) < coverage + 0.03 + error


def test_a_useless_classifier_is_unsure_of_most_and_a_perfect_one_of_nothing() -> None:
    labels = np.arange(200) % 2
    useless = fit_conformal(np.random.default_rng(0).random(200), labels)
    assert conformal_call(0.5, useless) == UNSURE
    perfect = fit_conformal(np.where(labels, 0.99, 0.01), labels)
    assert (conformal_call(0.999, perfect), conformal_call(0.001, perfect)) == ("malignant", "benign")


def test_too_few_lesions_promise_nothing() -> None:
    limits = fit_conformal([0.1, 0.9], [0, 1], 0.9)
    assert (limits["benign"], limits["malignant"]) == (0, 0)
    assert conformal_call(0.99, limits) == UNSURE


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_a_call_is_the_only_class_left_or_none(probability: float, benign: float, malignant: float) -> None:
    limits = {"coverage": 0.9, "benign": benign, "malignant": malignant}
    left = conformal_set(probability, limits)
    assert conformal_call(probability, limits) == (next(iter(left)) if len(left) == 1 else UNSURE)


def test_the_summary_counts_answers_and_those_without() -> None:
    limits = {"coverage": 0.9, "benign": 0.6, "malignant": 0.6}  # above both: sure; between 0.4 and 0.6: neither
    rows = [
        {"group": str(number), "label": label, "probability": probability}
        for number, (label, probability) in enumerate([(0, 0.1), (0, 0.9), (1, 0.9), (1, 0.5)])
    ]
    summary = summarise_conformal(rows, [limits] * 4, draws=50)
    assert summary["promised"] == 0.9
    names = ("coverage_benign", "coverage_malignant", "unsure", "accuracy", "sensitivity", "specificity")
    assert [summary[name]["estimate"] for name in names] == pytest.approx([0.5, 0.5, 0.25, 2 / 3, 1, 0.5])


@pytest.mark.parametrize("coverage", [0, 1, -0.1])
def test_an_impossible_coverage_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage"):
        fit_conformal([0.5], [1], coverage)
