# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals that respect groups: images of one patient, or copies of one frame, are drawn together.

Percentile bootstrap over groups (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).
Drawing single images would count near-copies as independent evidence and give intervals that are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A statistic and its confidence interval; NaN where the data do not define them."""

    estimate: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return `estimate`, `low` and `high`, with None in place of NaN, as JSON files and reports want it."""
        return {key: None if math.isnan(value) else float(value) for key, value in self._asdict().items()}


def bootstrap_ratio_by_group(
    numerators: ArrayLike,
    groups: Sequence[str],
    denominators: ArrayLike | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Return sum(numerators) / sum(denominators) with its interval: means, rates and pooled scores.

    Args:
        numerators: (N,) float, one per case.
        groups: N group names; cases of one group are drawn together.
        denominators: (N,) float; left out they are ones, and the statistic is the mean.
        draws: number of bootstrap samples.
        seed: of the random generator; equal arguments give equal intervals.
        level: share of the bootstrap samples that the interval holds.

    Returns:
        The interval; its bounds are NaN with fewer than two groups, and all is NaN without cases.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, dtype=np.float64)
    member, count = _number_groups(groups, top.size)
    weights = _draw_weights(count, draws, seed)
    sums = [np.bincount(member, weights=values, minlength=count) for values in (top, bottom)]
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = sums[0].sum() / sums[1].sum()
        samples = (weights @ sums[0]) / (weights @ sums[1])
    return _percentile_interval(estimate, samples, count, level)


def bootstrap_by_group(
    statistic: Callable[[np.ndarray], float],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Return any statistic of the cases with its interval, such as an area under a curve.

    Args:
        statistic: takes the numbers of the drawn cases, (M,) int with repetitions, and returns a number, or NaN where
            a sample does not define it (one class only); such samples are left out.
        groups: N group names; cases of one group are drawn together.
        draws, seed, level: as in `bootstrap_ratio_by_group`.

    Returns:
        The interval; its bounds are NaN with fewer than two groups.
    """
    member, count = _number_groups(groups, len(groups))
    cases = np.arange(len(groups))
    weights = _draw_weights(count, draws, seed)
    samples = np.array([statistic(np.repeat(cases, weight[member])) for weight in weights], dtype=np.float64)
    return _percentile_interval(statistic(cases), samples, count, level)


def _number_groups(groups: Sequence[str], cases: int) -> tuple[np.ndarray, int]:
    """Return each case's group number and the number of groups."""
    if len(groups) != cases:
        raise ValueError(f"{cases} values but {len(groups)} groups; give each value its group")
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return member, names.size


def _draw_weights(count: int, draws: int, seed: int) -> np.ndarray:
    """Return (draws, count) int: how often each group stands in each bootstrap sample."""
    if count == 0:
        return np.zeros((draws, 0), dtype=np.int64)
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def _percentile_interval(estimate: float, samples: np.ndarray, count: int, level: float) -> Interval:
    """Return the interval between the samples' outer percentiles."""
    defined = samples[np.isfinite(samples)]
    # One group drawn again and again never varies: a zero-width interval would claim certainty.
    if count < 2 or defined.size == 0:
        return Interval(float(estimate), math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high))
