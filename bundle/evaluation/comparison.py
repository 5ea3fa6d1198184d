# SPDX-License-Identifier: Apache-2.0
"""Is one model better than another? Both are asked about the same cases, and each case is its own control.

Two answers: the bootstrap of the difference by group, for any score; and the variance of a difference of AUROCs
(DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988) for clustered cases (Obuchowski, Biometrics 53, 1997).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from bundle.data.cases import DIAGNOSES
from bundle.errors import InputError
from bundle.evaluation.classification import area_under_roc
from bundle.evaluation.intervals import DRAWS, LEVEL, bootstrap_by_group
from bundle.evaluation.tables import Cells, read_number, read_per_image

PathLike = str | os.PathLike[str]
Statistic = Callable[[np.ndarray, np.ndarray], float]
"""Takes one model's values (N,) and the numbers of the drawn cases, with repetitions."""


class Difference(NamedTuple):
    """Second minus first: the estimate, its interval, and the two-sided p-value of no difference; NaN if undefined."""

    estimate: float
    low: float
    high: float
    p_value: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the fields, with None in place of NaN."""
        return {key: None if math.isnan(value) else float(value) for key, value in self._asdict().items()}


def compare_by_bootstrap(
    first: Callable[[np.ndarray], float],
    second: Callable[[np.ndarray], float],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Difference:
    """Return second minus first of a score on the same cases.

    Args:
        first, second: the score of each model, of the numbers of drawn cases, as in `bootstrap_by_group`.
        groups: N group names; cases of one group are drawn together.
        draws, seed, level: as in `bootstrap_by_group`.

    Returns:
        The difference with its interval; the p-value is twice the smaller share of samples on one side of zero, and
        at least 2 / draws.
    """
    asked: list[float] = []

    def difference(cases: np.ndarray) -> float:
        asked.append(second(cases) - first(cases))
        return asked[-1]

    interval = bootstrap_by_group(difference, groups, draws=draws, seed=seed, level=level)
    if math.isnan(interval.low):
        return Difference(*interval, math.nan)
    drawn = np.array(asked[:draws])  # the bootstrap asks for its samples first
    drawn = drawn[np.isfinite(drawn)]
    smaller = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return Difference(*interval, min(1.0, max(2 * smaller, 2 / draws)))


def compare_auroc(
    labels: ArrayLike, first: ArrayLike, second: ArrayLike, groups: Sequence[str], level: float = LEVEL
) -> Difference:
    """Return the difference of two AUROCs on the same cases by DeLong's method, for clustered cases.

    Args:
        labels: (N,) 0 or 1; both classes are there, in two groups or more each.
        first, second: (N,) float scores of the two models.
        groups: N group names. With a group per case this is DeLong's test.
        level: of the interval.

    Returns:
        The difference; interval and p-value are NaN where the groups are too few or the scores order alike.
    """
    truth = np.asarray(labels).astype(bool)
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    areas, parts = zip(*(_components(truth, np.asarray(s, dtype=float)) for s in (first, second)), strict=True)
    estimate = areas[1] - areas[0]
    positives = np.bincount(member, weights=truth, minlength=names.size)
    negatives = np.bincount(member, weights=~truth, minlength=names.size)
    m, n = positives.sum(), negatives.sum()
    sums = {}
    for kind, chosen, count in (("x", truth, positives), ("y", ~truth, negatives)):
        # The two models' components are subtracted first: one variance then holds both and their covariance.
        delta, mean = parts[1] - parts[0], estimate
        total = np.bincount(member, weights=np.where(chosen, delta, 0), minlength=names.size)
        sums[kind] = total - count * mean
    have_x, have_y = int((positives > 0).sum()), int((negatives > 0).sum())
    if min(have_x, have_y) < 2:
        return Difference(estimate, math.nan, math.nan, math.nan)
    clusters = names.size
    variance = (
        have_x / ((have_x - 1) * m**2) * float((sums["x"] ** 2).sum())
        + have_y / ((have_y - 1) * n**2) * float((sums["y"] ** 2).sum())
        + 2 * clusters / ((clusters - 1) * m * n) * float((sums["x"] * sums["y"]).sum())
    )
    if variance <= 0:
        return Difference(estimate, math.nan, math.nan, math.nan)
    error = math.sqrt(variance)
    reach = float(ndtri((1 + level) / 2)) * error
    return Difference(estimate, estimate - reach, estimate + reach, float(2 * ndtr(-abs(estimate) / error)))


def _components(truth: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """The AUROC, and for each case the share of cases of the other class that it stands right to, ties half."""
    parts = np.empty(scores.size)
    for chosen, sign in ((truth, 1), (~truth, -1)):
        others, own = np.sort(sign * scores[~chosen]), sign * scores[chosen]
        below = np.searchsorted(others, own, side="left") + np.searchsorted(others, own, side="right")
        parts[chosen] = below / 2 / max(others.size, 1)
    return float(parts[truth].mean()), parts


def compare_tables(first: PathLike, second: PathLike, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Compare two models by the ``per_image.csv`` that their evaluations wrote, on the images that both have.

    Args:
        first, second: tables of one kind, of a segmenter or of a classifier, or of both (an external evaluation's).
            Classifiers are compared on benign and malignant images only.
        draws, seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `images`, `groups`, `only_first`, `only_second` (counts), and `scores`: for each name
        `first`, `second` (estimates), `difference` (`Difference.as_dict`) and `method`.

    Raises:
        InputError: a table is no such table, a score in it is no number, they share no image, or they disagree on a
            label or a group.
    """
    mend = "give the per_image.csv of two evaluations of one kind"
    tables = [read_per_image(path, mend) for path in (first, second)]
    shared = sorted(tables[0].keys() & tables[1].keys())
    if not shared:
        raise InputError(second, f"shares no image with {os.fspath(first)}", "evaluate both on the same split")
    rows = [[table[image] for image in shared] for table in tables]
    kinds = [kind for kind in ("probability", "dice") if all(kind in side[0] for side in rows)]
    if not kinds:
        raise InputError(second, f"is of another kind than {os.fspath(first)}", mend)
    for one, other in zip(*rows, strict=True):
        if one["group"] != other["group"] or one["class"] != other["class"]:
            raise InputError(second, f"'{one['image']}' has another class or group than there", "evaluate one dataset")
    groups = [row["group"] for row in rows[0]]
    classed = [place for place, row in enumerate(rows[0]) if row["class"] in DIAGNOSES]
    scores: dict[str, Any] = {}

    def numbers(name: str, places: Iterable[int]) -> np.ndarray:
        """(2, N) of both tables; NaN where a score need not be, such as the HD95 of a missed lesion."""

        def number(path: PathLike, row: Cells) -> float:
            text = row.get(name, "")
            return read_number(path, row["image"], text) if text or name == "probability" else math.nan

        return np.array([[number(first, rows[0][n]) for n in places], [number(second, rows[1][n]) for n in places]])

    def add(
        name: str, statistic: Statistic, sides: Sequence[np.ndarray], drawn: list[str], exact: Difference | None = None
    ) -> None:
        one, other = (partial(statistic, side) for side in sides)
        found = exact or compare_by_bootstrap(one, other, drawn, draws=draws, seed=seed)
        everything = np.arange(len(drawn))
        scores[name] = {
            "first": one(everything),
            "second": other(everything),
            "difference": found.as_dict(),
            "method": "DeLong, clustered" if exact else f"bootstrap by group, {draws} draws, seed {seed}",
        }

    if "probability" in kinds and classed:
        label = np.array([rows[0][place]["class"] == "malignant" for place in classed])
        probability = [*numbers("probability", classed)]
        names = [groups[place] for place in classed]

        def area(values: np.ndarray, cases: np.ndarray) -> float:
            return area_under_roc(label[cases], values[cases])

        add("auroc", area, probability, names, compare_auroc(label, probability[0], probability[1], names))
        add("auroc (bootstrap)", area, probability, names)
        add("accuracy at 0.5", _mean, [((values >= 0.5) == label).astype(float) for values in probability], names)
        add("brier", _mean, [(values - label) ** 2 for values in probability], names)
    if "dice" in kinds:
        for name in ("dice", "iou", "hd95", "pixel_accuracy"):
            both = numbers(name, range(len(shared)))
            # Cases without the score in one of the two are left out of both.
            both[:, ~np.isfinite(both).all(axis=0)] = np.nan
            if np.isfinite(both).any():
                add(name, _mean, list(both), groups)
    return {
        "images": len(shared),
        "groups": len(set(groups)),
        "only_first": len(tables[0]) - len(shared),
        "only_second": len(tables[1]) - len(shared),
        "scores": scores,
    }


def _mean(values: np.ndarray, cases: np.ndarray) -> float:
    known = values[cases]
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else math.nan
