# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals that respect groups: images of one patient, or copies of one frame, are drawn together.

Bias-corrected and accelerated bootstrap over groups (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapters 8 and 14), its quantiles widened from the normal to Student's distribution for few groups (Hesterberg, The
American Statistician 69, 2015), with Satterthwaite's degrees of freedom. Drawing single images would count near-copies
as independent evidence and give intervals that are too narrow.

Where all cases agree (a rate of 0 or 1) the bootstrap never varies and would claim certainty. A rate then gets the
exact binomial interval with groups as trials (Clopper and Pearson, Biometrika 26, 1934); other statistics get none.

A sum of absolute differences, such as the expected calibration error, grows with every chance deviation: a bootstrap
sample's exceeds the data's as that one exceeds the truth. BCa intervals of it missed the truth four times in five in
simulations of 155 cases, and may not even hold the estimate. Its bootstrap is reflected at the estimate instead (the
basic interval, Efron and Tibshirani, chapter 13), which held the truth five times in six there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 2000
LEVEL = 0.95
METHOD = "bootstrap by group (BCa, widened for few groups)"
REFLECTED = "bootstrap by group, reflected at the estimate, not below 0"


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
        without = (sums[0].sum() - sums[0]) / (sums[1].sum() - sums[1])
    is_rate = bool(np.isin(top, (0, 1)).all() and np.isin(bottom, (0, 1)).all())
    if count > 1 and is_rate and estimate in (0, 1):
        return _exact_interval(estimate, int(np.count_nonzero(sums[1])), level)
    return _interval(estimate, samples, without, level)


def bootstrap_by_group(
    statistic: Callable[[np.ndarray], float],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    reflected: bool = False,
) -> Interval:
    """Return any statistic of the cases with its interval, such as an area under a curve.

    Args:
        statistic: takes the numbers of the drawn cases, (M,) int with repetitions, and returns a number, or NaN where
            a sample does not define it (one class only); such samples are left out.
        groups: N group names; cases of one group are drawn together.
        draws, seed, level: as in `bootstrap_ratio_by_group`.
        reflected: of a statistic that is at least 0 and that chance makes larger, such as a calibration error.

    Returns:
        The interval; its bounds are NaN with fewer than two groups.
    """
    member, count = _number_groups(groups, len(groups))
    cases = np.arange(len(groups))
    weights = _draw_weights(count, draws, seed)
    samples = np.array([statistic(np.repeat(cases, weight[member])) for weight in weights], dtype=np.float64)
    if reflected and count > 1 and np.ptp(samples) > 0:
        estimate = statistic(cases)
        low, high = 2 * estimate - np.quantile(samples, [(1 + level) / 2, (1 - level) / 2])
        return Interval(estimate, max(float(low), 0.0), max(float(high), estimate))
    # Without its only group there is no case left to ask the statistic about.
    without = np.array([statistic(cases[member != group]) for group in range(count if count > 1 else 0)])
    return _interval(statistic(cases), samples, without, level)


def bootstrap_by_weights(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Return a statistic that is computed for many bootstrap samples at once, with its interval.

    Args:
        statistic: takes how often each case stands in each of some samples, (S, N) float, and returns (S,) numbers, NaN
            where a sample does not define it.
        groups, draws, seed, level: as in `bootstrap_by_group`, whose samples these are.

    Returns:
        The interval; its bounds are NaN with fewer than two groups.
    """
    member, count = _number_groups(groups, len(groups))
    weights, at_once = _draw_weights(count, draws, seed), max(1, 2**21 // max(len(groups), 1))

    def without(first: int) -> np.ndarray:
        chosen = np.arange(first, min(first + at_once, count))
        return np.asarray(np.arange(count) != chosen[:, None], dtype=float)

    drawn = [statistic(weights[first : first + at_once, member].astype(float)) for first in range(0, draws, at_once)]
    left = [statistic(without(first)[:, member]) for first in range(0, count if count > 1 else 0, at_once)]
    estimate = float(statistic(np.ones((1, len(groups))))[0])
    return _interval(estimate, np.concatenate(drawn), np.concatenate([*left, []]), level)


def bootstrap_mean_of_runs(
    runs: Sequence[tuple[Callable[[np.ndarray], float], Sequence[str]]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Return the mean of a statistic over runs with other seeds or splits, with its interval.

    The runs' test parts overlap, so their mean is surer than one run but not by the root of their number. A group is
    therefore drawn for all runs at once: the interval tells how the mean would vary with other patients. How it varies
    with the seed is told by the runs themselves.

    Args:
        runs: for each, a statistic as in `bootstrap_by_group` and the groups of its cases.
        draws, seed, level: as in `bootstrap_ratio_by_group`.

    Returns:
        The interval; all is NaN without runs.
    """
    names = sorted({name for _, groups in runs for name in groups})
    members = [np.searchsorted(names, groups) for _, groups in runs]

    def mean(weights: np.ndarray) -> float:
        drawn = (np.repeat(np.arange(member.size), weights[member]) for member in members)
        return float(np.mean([statistic(cases) for (statistic, _), cases in zip(runs, drawn, strict=True)]))

    if not runs:
        return Interval(math.nan, math.nan, math.nan)
    samples = np.array([mean(weights) for weights in _draw_weights(len(names), draws, seed)])
    everything = np.ones(len(names), dtype=np.int64)
    without = np.array([mean(everything - chosen) for chosen in np.eye(len(names), dtype=np.int64)])
    return _interval(mean(everything), samples, without, level)


def _number_groups(groups: Sequence[str], cases: int) -> tuple[np.ndarray, int]:
    """Return each case's group number and the number of groups."""
    if len(groups) != cases:
        raise ValueError(f"{cases} values but {len(groups)} groups; give each value its group")
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return member, names.size


@lru_cache(maxsize=2)  # the scores of one report are drawn alike
def _draw_weights(count: int, draws: int, seed: int) -> np.ndarray:
    """Return (draws, count) int, read-only: how often each group stands in each bootstrap sample."""
    weights = np.zeros((draws, 0), dtype=np.int64)
    if count:
        weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    weights.setflags(write=False)
    return weights


def _interval(estimate: float, samples: np.ndarray, without: np.ndarray, level: float) -> Interval:
    """Return the BCa interval.

    Args:
        estimate: of all groups.
        samples: the bootstrap's.
        without: the statistic without each group in turn (jackknife).
        level: of the interval.
    """
    from scipy.special import ndtr, ndtri, stdtrit  # here alone: whoever predicts draws no interval

    defined, left = samples[np.isfinite(samples)], without[np.isfinite(without)]
    # What never varies, such as one group drawn again and again, would claim certainty.
    if without.size < 2 or defined.size == 0 or np.ptp(defined) == 0:
        return Interval(float(estimate), math.nan, math.nan)
    # A group's influence; where one group decides, there is none to tell of and the plain quantiles have to do.
    influence = left.mean() - left if left.size else np.zeros(1)
    power = float((influence**2).sum())
    some = power > 1e-150  # smaller ones are no number any more to the third and fourth power
    skew = float((influence**3).sum()) / (6 * power**1.5) if some else 0.0
    kurtosis = float((influence**4).mean()) / (power / left.size) ** 2 if some else 3.0
    freedom = min(max(2 * without.size / max(kurtosis - 1, 1e-6), 2.0), without.size) - 1
    widened = math.sqrt((freedom + 1) / freedom) * float(stdtrit(freedom, (1 + level) / 2))
    at_most = ((defined < estimate).mean() + (defined <= estimate).mean()) / 2  # ties count half
    bias = float(ndtri(min(max(at_most, 1 / defined.size), 1 - 1 / defined.size)))
    ends = []
    for z in (bias - widened, bias + widened):
        # Beyond 1 the acceleration's formula turns round; so skewed a statistic keeps its outermost sample.
        ends.append(bias + z / (1 - skew * z) if skew * z < 1 else math.copysign(math.inf, z))
    low, high = np.quantile(defined, ndtr(ends))
    return Interval(float(estimate), float(low), float(high))


def _exact_interval(estimate: float, trials: int, level: float) -> Interval:
    """Return the Clopper-Pearson interval of a rate of 0 or 1."""
    bound = ((1 - level) / 2) ** (1 / trials)  # the lower one of "all of them"; scipy.stats takes a second to import
    return Interval(1.0, bound, 1.0) if estimate == 1 else Interval(0.0, 0.0, 1 - bound)
