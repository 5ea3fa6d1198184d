# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bundle.evaluation.classification import area_under_roc
from bundle.evaluation.comparison import compare_auroc, compare_by_bootstrap


def _simulate(
    generator: np.random.Generator, gain: float, clusters: int = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Labels, the scores of two models on the same cases, and clusters whose cases resemble each other."""
    sizes = generator.integers(1, 4, clusters)
    label = np.repeat(generator.random(clusters) < 0.4, sizes)
    shared = np.repeat(generator.normal(0, 1, clusters), sizes)
    noise = generator.normal(0, 0.7, (2, sizes.sum()))
    scores = label * 1.5 + shared + noise + np.array([[0], [gain]]) * label
    return label, scores[0], scores[1], [str(name) for name in np.repeat(np.arange(clusters), sizes)]


def _bootstrap(label: np.ndarray, first: np.ndarray, second: np.ndarray, groups: list[str]) -> tuple[float, ...]:
    score = [lambda cases, s=s: area_under_roc(label[cases], s[cases]) for s in (first, second)]
    return compare_by_bootstrap(score[0], score[1], groups, draws=300)


def test_delong_agrees_with_its_published_formula_where_each_case_is_its_own_group() -> None:
    label, first, second, _ = _simulate(np.random.default_rng(0), gain=0.5)
    found = compare_auroc(label, first, second, [str(i) for i in range(label.size)])
    # The formula written out with all pairs of cases, without sorting.
    x, y = np.flatnonzero(label), np.flatnonzero(~label)
    order = [(s[x][:, None] > s[y][None]) + 0.5 * (s[x][:, None] == s[y][None]) for s in (first, second)]
    delta = order[1] - order[0]
    variance = np.var(delta.mean(axis=1), ddof=1) / x.size + np.var(delta.mean(axis=0), ddof=1) / y.size
    assert found.estimate == pytest.approx(delta.mean())
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(math.sqrt(variance), rel=1e-6)


@pytest.mark.parametrize("compare", [compare_auroc, _bootstrap])
def test_equal_models_differ_in_5_of_100_trials_and_a_better_one_is_found(compare) -> None:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(1)
    trials = 200
    false_alarms = sum(compare(*_simulate(generator, gain=0.0))[3] < 0.05 for _ in range(trials))
    # 5 % of 200 trials has a standard error of 1.5 %; the margin is three of them.
    assert false_alarms / trials <= 0.05 + 3 * 0.0154
    found = [compare(*_simulate(generator, gain=2.0)) for _ in range(20)]
    assert sum(result[3] < 0.05 and result[1] > 0 for result in found) >= 18


def test_clusters_count_once_however_often_they_are_repeated() -> None:
    label, first, second, groups = _simulate(np.random.default_rng(2), gain=0.3)
    once = compare_auroc(label, first, second, groups)
    thrice = compare_auroc(*(np.tile(values, 3) for values in (label, first, second)), groups * 3)
    assert thrice.p_value == pytest.approx(once.p_value, rel=1e-6)


def test_a_model_equals_itself_without_an_interval() -> None:
    label, first, _, groups = _simulate(np.random.default_rng(3), gain=0)
    for compare in (compare_auroc, _bootstrap):
        result = compare(label, first, first, groups)
        assert result[0] == 0
        assert math.isnan(result[1])
        assert math.isnan(result[3])
    assert compare_auroc(label, first, first, groups).as_dict()["p_value"] is None


def test_one_group_of_a_class_gives_no_interval() -> None:
    result = compare_auroc([1, 0, 0], [3, 1, 2], [1, 2, 3], ["a", "b", "c"])
    assert math.isnan(result.low)
