# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from bundle.evaluation.classification import area_under_roc, calibration_error
from bundle.evaluation.intervals import bootstrap_by_group, bootstrap_mean_of_runs, bootstrap_ratio_by_group


def _simulate_clusters(generator: np.random.Generator, clusters: int = 80) -> tuple[np.ndarray, list[str]]:
    """Return values with true mean 0, most of whose spread is between clusters, and the clusters' names."""
    sizes = generator.integers(1, 6, clusters)
    values = np.repeat(generator.normal(0, 1, clusters), sizes) + generator.normal(0, 0.3, sizes.sum())
    return values, [str(name) for name in np.repeat(np.arange(clusters), sizes)]


def test_intervals_cover_the_truth_95_times_in_100_only_when_drawn_by_group() -> None:
    generator = np.random.default_rng(1)
    by_group = by_image = 0
    for _ in range(300):
        values, groups = _simulate_clusters(generator)
        right = bootstrap_ratio_by_group(values, groups, draws=400)
        wrong = bootstrap_ratio_by_group(values, [str(number) for number in range(values.size)], draws=400)
        by_group += right.low <= 0 <= right.high
        by_image += wrong.low <= 0 <= wrong.high
    # 0.95 over 300 simulations has a standard error of 0.013; the margin is three of them.
    assert 0.91 <= by_group / 300 <= 0.99
    assert by_image / 300 < 0.85


@pytest.mark.parametrize("statistic", ["sensitivity", "AUROC", "skewed mean"])
def test_intervals_of_the_scores_that_we_report_cover_the_truth_95_times_in_100(statistic: str) -> None:
    generator = np.random.default_rng(4)
    truth = {
        "sensitivity": norm.cdf(0.9),
        "AUROC": norm.cdf(1.8 / math.sqrt(2)),
        "skewed mean": 0.65 * math.exp(0.125) + 0.35 * math.exp(0.125 + 0.9),
    }[statistic]
    simulations, covered = 400, 0
    for _ in range(simulations):
        sizes = generator.integers(1, 4, 100)
        malignant = generator.random(100) < 0.35
        label = np.repeat(malignant, sizes)
        score = np.repeat(generator.normal(0, 0.8, 100) + malignant * 1.8, sizes)
        score += generator.normal(0, 0.6, score.size)
        groups = [str(name) for name in np.repeat(np.arange(100), sizes)]
        if statistic == "AUROC":

            def area(cases: np.ndarray, label: np.ndarray = label, score: np.ndarray = score) -> float:
                return area_under_roc(label[cases], score[cases])

            interval = bootstrap_by_group(area, groups, draws=300)
        elif statistic == "sensitivity":
            interval = bootstrap_ratio_by_group(label & (score > 0.9), groups, label, draws=300)
        else:
            interval = bootstrap_ratio_by_group(np.exp(score / 2), groups, draws=300)
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / simulations <= 0.97


def test_intervals_of_the_calibration_error_hold_its_truth_although_chance_makes_it_larger() -> None:
    generator = np.random.default_rng(2)
    many = generator.beta(0.5, 1, 400_000)
    # Logits that are 0.4 too small: the true frequency of a probability p is sigmoid(logit(p) + 0.4).
    truth = calibration_error(generator.random(many.size) < expit(logit(many) + 0.4), many)
    covered = 0
    for _ in range(150):
        probabilities = generator.beta(0.5, 1, 155)
        labels = generator.random(155) < expit(logit(probabilities) + 0.4)

        def error(cases: np.ndarray, labels: np.ndarray = labels, scores: np.ndarray = probabilities) -> float:
            return calibration_error(labels[cases], scores[cases])

        groups = [str(number) for number in range(155)]
        interval = bootstrap_by_group(error, groups, draws=200, reflected=True)
        covered += interval.low <= truth <= interval.high
        assert interval.low <= interval.estimate <= interval.high
    assert covered / 150 >= 0.78  # 0.12 where BCa was taken


def test_a_rate_of_one_or_none_has_the_exact_interval_of_its_groups() -> None:
    groups = [str(i // 2) for i in range(20)]  # ten groups
    everything = bootstrap_ratio_by_group(np.ones(20), groups)
    assert everything.as_dict() == {"estimate": 1.0, "low": pytest.approx(0.025**0.1), "high": 1.0}
    nothing = bootstrap_ratio_by_group(np.zeros(20), groups)
    assert nothing.as_dict() == {"estimate": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025**0.1)}


def test_a_perfect_auroc_claims_no_certainty() -> None:
    label = np.array([0, 0, 0, 1, 1, 1], dtype=bool)
    interval = bootstrap_by_group(lambda cases: area_under_roc(label[cases], label[cases] * 1.0), list("abcdef"))
    assert interval.as_dict() == {"estimate": 1.0, "low": None, "high": None}


def test_the_mean_of_equal_runs_is_as_uncertain_as_one_and_of_other_cases_less() -> None:
    generator = np.random.default_rng(6)
    values, groups = _simulate_clusters(generator)
    others, other_groups = _simulate_clusters(generator)
    other_groups = [f"other {name}" for name in other_groups]
    one = (lambda cases: float(values[cases].mean()), groups)
    two = (lambda cases: float(others[cases].mean()) if cases.size else math.nan, other_groups)
    single = bootstrap_mean_of_runs([one], draws=400)
    same = bootstrap_mean_of_runs([one, one, one], draws=400)
    apart = bootstrap_mean_of_runs([one, two], draws=400)
    assert same == pytest.approx(single)
    assert apart.high - apart.low < 0.9 * (single.high - single.low)
    assert all(map(math.isnan, bootstrap_mean_of_runs([])))


def test_ratio_of_sums_equals_the_general_statistic() -> None:
    generator = np.random.default_rng(2)
    top, bottom = generator.random(40), generator.random(40) + 1
    groups = [str(name) for name in generator.integers(0, 12, 40)]
    fast = bootstrap_ratio_by_group(top, groups, bottom, draws=200, seed=5)
    slow = bootstrap_by_group(lambda cases: top[cases].sum() / bottom[cases].sum(), groups, draws=200, seed=5)
    np.testing.assert_allclose(fast, slow)
    assert fast.low < fast.estimate < fast.high


def test_samples_that_do_not_define_the_statistic_are_left_out() -> None:
    label, score = np.array([1, 0, 0, 0]), np.array([0.9, 0.3, 0.2, 0.95])

    def auroc(cases: np.ndarray) -> float:
        return roc_auc_score(label[cases], score[cases]) if len(set(label[cases])) == 2 else math.nan

    interval = bootstrap_by_group(auroc, list("abcd"), draws=200)
    assert interval.estimate == pytest.approx(2 / 3)
    assert 0 <= interval.low <= interval.high <= 1


def test_values_too_small_to_be_squared_have_an_interval() -> None:
    for tiny in (1e-141, 1e-60, 1e-80):
        interval = bootstrap_ratio_by_group([tiny, 0.0, 0.0], ["a", "b", "c"], draws=50)
        assert 0 <= interval.low <= interval.estimate <= interval.high


def test_equal_seeds_give_equal_intervals() -> None:
    values, groups = _simulate_clusters(np.random.default_rng(3))
    assert bootstrap_ratio_by_group(values, groups, seed=7) == bootstrap_ratio_by_group(values, groups, seed=7)
    assert bootstrap_ratio_by_group(values, groups, seed=7) != bootstrap_ratio_by_group(values, groups, seed=8)


def test_one_group_has_an_estimate_but_no_interval() -> None:
    interval = bootstrap_ratio_by_group([0.2, 0.4], ["a", "a"])
    assert interval.as_dict() == {"estimate": pytest.approx(0.3), "low": None, "high": None}


def test_no_cases_have_neither_estimate_nor_interval() -> None:
    assert bootstrap_ratio_by_group([], []).as_dict() == {"estimate": None, "low": None, "high": None}


def test_values_without_a_group_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values but 1 groups"):
        bootstrap_ratio_by_group([0.2, 0.4], ["a"])
