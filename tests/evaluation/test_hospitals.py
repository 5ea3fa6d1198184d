# SPDX-License-Identifier: Apache-2.0
"""Claims about what is fitted across hospitals that were left out, on drawn scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from bundle.errors import UserError
from bundle.evaluation.hospitals import Hospital, fit_across


def _hospital(count: int, seed: int, malignant: bool | None = None) -> Hospital:
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 1.5, count)
    truth = rng.random(count) < expit(score) if malignant is None else np.full(count, malignant)
    return Hospital(2 * score, truth, [f"g{i}" for i in range(count)], {0.9: 0.5})


def test_each_hospital_counts_as_one_whatever_its_size() -> None:
    small, large = _hospital(150, 1), _hospital(3000, 2)
    fitted = fit_across({"a": small, "b": large}, [0.9], draws=2)
    assert fitted["factor"] == pytest.approx((small.factor() * large.factor()) ** 0.5)
    for hospital in (small, large):
        scores = hospital.probability(fitted["factor"])[hospital.malignant]
        assert (scores >= fitted["operating_points"][0]["threshold"]).mean() >= 0.9
        assert (scores >= fitted["conformal"]["malignant"]).mean() >= 0.9


def test_a_hospital_with_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="b: has no outlined lesion of one"):
        fit_across({"a": _hospital(50, 1), "b": _hospital(50, 2, malignant=True)}, [0.9], draws=2)


def test_decisions_are_the_same_whatever_the_scale_of_the_factor() -> None:
    """A threshold is of the probability after the factor: dividing logits by it moves no case across."""
    hospital = _hospital(200, 3)
    fitted = fit_across({"a": hospital, "b": hospital}, [0.9], draws=2)
    threshold = fitted["operating_points"][0]["threshold"]
    plain = float(expit(logit(threshold) * fitted["factor"]))
    called = hospital.probability(fitted["factor"]) >= threshold
    assert np.array_equal(called, hospital.probability(1.0) >= plain - 1e-12)
