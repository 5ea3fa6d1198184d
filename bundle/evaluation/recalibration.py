# SPDX-License-Identifier: Apache-2.0
"""Fit what turns scores into answers on an institution's own labelled images, and say what it gained there.

Weights stay as they are: a temperature, thresholds and limits are a handful of numbers, which some dozens of cases can
support. What it gained is measured by cross-validation: each image is judged by what was fitted on the others, and
images of one patient, or near duplicates, are never on both sides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from bundle.data.cases import DIAGNOSES
from bundle.evaluation.classification import (
    choose_operating_points,
    fit_temperature,
    name_point,
    summarise_classification,
)
from bundle.evaluation.conformal import fit_conformal, summarise_conformal
from bundle.evaluation.drift import summarise_calibration
from bundle.evaluation.intervals import DRAWS, LEVEL, METHOD, bootstrap_by_group, bootstrap_ratio_by_group
from bundle.evaluation.presence import choose_presence
from bundle.evaluation.segmentation import summarise_doubt
from bundle.evaluation.uncertainty import choose_doubt_limit

FEWEST, FEWEST_GROUPS = 30, 10
"""Of a class, the images and the patients (or groups of near duplicates) that a fit needs."""
FOLDS = 5
TEMPERATURE, SETS, DOUBT, PRESENCE = "temperature", "prediction sets", "doubt limit", "presence limit"
"""What can be fitted, by the names that are told; and one for each operating point, see `name_point`."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Calibration:
    """What turns scores into answers, as the cards of both weights hold it.

    Args:
        temperature: that logits are divided by.
        points: operating points, see `choose_operating_points`.
        conformal: limits of prediction sets, see `fit_conformal`; None without any.
        doubtful_below: the outline's confidence below which it is doubtful; None for never.
        none_below: the probability of a lesion below which none is told of; 0 for never.
    """

    temperature: float
    points: tuple[Mapping[str, Any], ...]
    conformal: Mapping[str, float] | None
    doubtful_below: float | None
    none_below: float

    def outlines(self, scores: Scores) -> np.ndarray:
        """Whether images are told to show a lesion, (N,) bool."""
        return ~(scores.presence < self.none_below) & np.isfinite(scores.logit)

    def probability(self, scores: Scores) -> np.ndarray:
        """Their probabilities of malignancy, (N,) float64; 0 where nothing is outlined."""
        return np.where(self.outlines(scores), expit(np.nan_to_num(scores.logit) / self.temperature), 0.0)


@dataclass(frozen=True)
class Scores:
    """What is known of N images before any calibration, (N,) each.

    Args:
        logit: of malignancy before any temperature; NaN where no pixel is outlined.
        outline_confidence: likewise; see `bundle.evaluation.uncertainty`.
        presence: probability of a lesion; NaN where the segmenter does not tell.
        diagnosis: "benign", "malignant", "unclassified" or "normal".
    """

    logit: np.ndarray
    outline_confidence: np.ndarray
    presence: np.ndarray
    diagnosis: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Scores:
        """Of rows as `recalibrate` takes them."""
        names = ("logit", "outline_confidence", "presence")
        logit_, confidence, presence = (np.array([row[name] for row in rows], dtype=float) for name in names)
        return cls(logit_, confidence, presence, np.array([row["class"] for row in rows]))

    def take(self, chosen: np.ndarray) -> Scores:
        """Those of the chosen places, or of a (N,) bool."""
        return Scores(*(getattr(self, part.name)[chosen] for part in fields(self)))

    @property
    def malignant(self) -> np.ndarray:
        return np.asarray(self.diagnosis == "malignant")

    @property
    def classed(self) -> np.ndarray:
        return np.isin(self.diagnosis, DIAGNOSES)


def find_unsupported(rows: Sequence[Row], before: Calibration) -> dict[str, str]:
    """Return what the images cannot support, by name, each with the reason.

    Args:
        rows: see `recalibrate`.
        before: of the cards; its operating points are those that would be fitted.
    """
    lesions = [row for row in rows if row["class"] != "normal"]
    normals = [row for row in rows if row["class"] == "normal"]
    found = {}
    if any(row["presence"] is None for row in rows):
        found[PRESENCE] = "the segmenter does not tell how probable a lesion is"
    elif reason := _too_few("lesion", lesions) or _too_few("normal", normals):
        found[PRESENCE] = reason
    # A presence limit of its own lets most of the outlined lesions through; that of the card may not.
    gated = before if PRESENCE in found else replace(before, none_below=0.0)
    shown = [row for row, outlined in zip(rows, gated.outlines(Scores.of(rows)), strict=True) if outlined]
    shown = [row for row in shown if row["class"] != "normal"]
    classes = {label: [row for row in shown if row["class"] == label] for label in DIAGNOSES}
    lacking = next((reason for label in DIAGNOSES if (reason := _too_few(f"outlined {label}", classes[label]))), None)
    for name in (TEMPERATURE, *(name_point(point["sensitivity_wish"]) for point in before.points), SETS):
        if lacking:
            found[name] = lacking
    if reason := _too_few("outlined lesion", shown):
        found[DOUBT] = reason
    return found


def _too_few(kind: str, rows: Sequence[Row]) -> str | None:
    groups = len({row["group"] for row in rows})
    if len(rows) >= FEWEST and groups >= FEWEST_GROUPS:
        return None
    return (
        f"{len(rows)} {kind} image(s) of {groups} patient(s) or group(s) of near duplicates, where {FEWEST} of "
        f"{FEWEST_GROUPS} are needed"
    )


def fit(scores: Scores, before: Calibration, unsupported: Mapping[str, str]) -> Calibration:
    """Fit anew what the images support; the rest stays as it was.

    The presence limit comes first, since it decides what is classified at all. Operating points are chosen over all
    lesions of the two classes, as they are scored: one that is not outlined is called benign.

    Args:
        scores: of the images.
        before: of the cards.
        unsupported: of `find_unsupported`.
    """
    after, lesion = before, scores.diagnosis != "normal"
    if PRESENCE not in unsupported:
        chosen = choose_presence(scores.presence.tolist(), lesion.tolist())
        after = replace(after, none_below=float(chosen["none_below"]))
    shown = scores.take(lesion & after.outlines(scores))
    if DOUBT not in unsupported:
        limit = choose_doubt_limit(shown.outline_confidence.tolist())
        after = replace(after, doubtful_below=after.doubtful_below if limit is None else limit)
    if TEMPERATURE in unsupported:
        return after
    outlined, every = shown.take(shown.classed), scores.take(scores.classed)
    temperature = fit_temperature(outlined.logit, outlined.malignant)
    after = replace(after, temperature=temperature)
    points = []
    for point in before.points:
        if name_point(point["sensitivity_wish"]) in unsupported:
            points.append(_rescale(point, before.temperature / temperature))
        else:
            chosen = choose_reachable_point(after.probability(every), every.malignant, point["sensitivity_wish"])
            points.append(chosen)
    sets = fit_conformal(after.probability(outlined), outlined.malignant)
    return replace(after, points=tuple(points), conformal=sets)


def choose_reachable_point(scores: ArrayLike, labels: ArrayLike, wish: float) -> dict[str, Any]:
    """Return an operating point, see `choose_operating_points`, over lesions of which some are not outlined (score 0).

    Where so many malignant ones are not outlined that no threshold reaches the wish, the point calls all others
    malignant, and its `sensitivity` tells how far it gets.
    """
    point: dict[str, Any] = dict(choose_operating_points(scores, labels, [wish])[0])
    values, truth = np.asarray(scores), np.asarray(labels).astype(bool)
    outlined, benign = values[truth & (values > 0)], values[~truth]
    if point["threshold"] > 0 or not outlined.size:
        return point
    threshold = float(outlined.min())
    return {
        **point,
        "threshold": threshold,
        "sensitivity": float((values[truth] >= threshold).mean()),
        "specificity": float((benign < threshold).mean()) if benign.size else None,
    }


def recalibrate(
    rows: Sequence[Row], before: Calibration, draws: int = DRAWS, seed: int = 0, folds: int = FOLDS
) -> tuple[Calibration, dict[str, Any]]:
    """Fit on all images, and say by cross-validation what that gains.

    Args:
        rows: one per image: `image`, `group`, `class`, `dice` (None without a lesion), `false_positive`; `logit`, that
            of malignancy before any temperature, None where no pixel is outlined; `outline_confidence`; `presence`, the
            probability of a lesion, None where the segmenter does not tell. The presence limit is not applied to them.
        before: of the cards.
        draws, seed: of the bootstrap; the seed also deals out the folds.
        folds: of the cross-validation, by group and class.

    Returns:
        The calibration, and a dict ready for JSON: `refused` (name -> reason), `intervals` (of the fitted numbers, and
        how they were drawn), `cross_validation` with `folds`, and `before` and `after`, see `summarise`.
    """
    scores, refused = Scores.of(rows), find_unsupported(rows, before)
    after = fit(scores, before, refused)
    for point in after.points:
        name, wish = name_point(point["sensitivity_wish"]), point["sensitivity_wish"]
        if name not in refused and point["sensitivity"] < wish:
            refused[name] = f"{1 - point['sensitivity']:.0%} of the malignant lesions are not outlined"
    after = fit(scores, before, refused)
    by_row = [before] * len(rows)
    for others, own in _deal(rows, folds, seed):
        fitted = fit(scores.take(others), before, refused)
        for place in own:
            by_row[place] = fitted
    return after, {
        "refused": refused,
        "intervals": {
            **{"method": METHOD, "level": LEVEL, "draws": draws, "seed": seed},
            **_tell_intervals(scores, [str(row["group"]) for row in rows], before, after, refused, draws, seed),
        },
        "cross_validation": {
            "folds": folds,
            "before": summarise(rows, [before] * len(rows), draws, seed),
            "after": summarise(rows, by_row, draws, seed),
        },
    }


def summarise(
    rows: Sequence[Row], calibrations: Sequence[Calibration], draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Score answers, each image by its own calibration, with 95 % intervals drawn by group.

    Returns:
        `classification` (area under the curve, Brier score, calibration error and operating points over all benign and
        malignant lesions, `calibration` over those that are outlined), `prediction_sets`, `doubt`, `presence`; what the
        images do not tell of is left out.
    """
    told = []
    for row, own in zip(rows, calibrations, strict=True):
        scores = Scores.of([row])
        outlined = bool(own.outlines(scores)[0])
        # As a share of the limit: each image has its own.
        confidence = row["outline_confidence"] / (own.doubtful_below or 1.0) if outlined else None
        answer = {"outlined": outlined, "outline_confidence": confidence}
        told.append({**row, **answer, "label": _label(row), "probability": float(own.probability(scores)[0])})
    found: dict[str, Any] = {}
    every = [(row, own) for row, own in zip(told, calibrations, strict=True) if row["class"] in DIAGNOSES]
    classed = [row for row, _ in every]
    if len({row["label"] for row in classed}) == 2:
        names = [name_point(point["sensitivity_wish"]) for point in calibrations[0].points]
        thresholds: dict[str, Any] = {"probability 0.5": 0.5}
        thresholds |= {name: [own.points[i]["threshold"] for _, own in every] for i, name in enumerate(names)}
        found["classification"] = summarise_classification(classed, thresholds, draws, seed)
        shown = [row for row in classed if row["outlined"]]
        if len({row["label"] for row in shown}) == 2:
            found["calibration"] = summarise_calibration(shown, draws, seed)
        if all(own.conformal for _, own in every):
            limits = [own.conformal or {} for _, own in every]
            found["prediction_sets"] = summarise_conformal(classed, limits, draws, seed)
    if all(own.doubtful_below for own in calibrations):
        found["doubt"] = {**summarise_doubt(told, 1.0, draws, seed), "below": _mean_of(calibrations, "doubtful_below")}
    if all(row["presence"] is not None for row in rows):
        found["presence"] = _summarise_presence(told, draws, seed)
    return found


def _summarise_presence(told: Sequence[Row], draws: int, seed: int) -> dict[str, Any]:
    """The lesions that are lost, and the normal images that are outlined, as they are told."""

    def share(part: Sequence[Row], outlined: bool) -> dict[str, float | None]:
        groups = [str(row["group"]) for row in part]
        values = [float(row["outlined"] is outlined) for row in part]
        return bootstrap_ratio_by_group(values, groups, draws=draws, seed=seed).as_dict()

    lesions = [row for row in told if row["class"] != "normal"]
    normals = [row for row in told if row["class"] == "normal"]
    return {
        **{"lesions": len(lesions), "normals": len(normals)},
        **({"lesions_lost": share(lesions, False)} if lesions else {}),
        **({"normals_outlined": share(normals, True)} if normals else {}),
    }


def _tell_intervals(
    scores: Scores,
    groups: Sequence[str],
    before: Calibration,
    after: Calibration,
    refused: Mapping[str, str],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """The interval of each number that was fitted: how far other images of the same place would move it."""
    numbers: dict[str, Callable[[Calibration], float]] = {}
    if TEMPERATURE not in refused:
        numbers[TEMPERATURE] = lambda fitted: fitted.temperature
    for place, point in enumerate(after.points):
        if (name := name_point(point["sensitivity_wish"])) not in refused:
            numbers[name] = lambda fitted, place=place: fitted.points[place]["threshold"]  # type: ignore[misc]
    if DOUBT not in refused:
        numbers[DOUBT] = lambda fitted: fitted.doubtful_below or 0.0
    if PRESENCE not in refused:
        numbers[PRESENCE] = lambda fitted: fitted.none_below
    fits: dict[bytes, Calibration] = {}  # every number asks for the same samples

    def ask(number: Callable[[Calibration], float], cases: np.ndarray) -> float:
        part, key = scores.take(cases), cases.tobytes()
        if TEMPERATURE not in refused and len(np.unique(part.diagnosis[part.classed])) < 2:
            return float("nan")
        if key not in fits:
            fits[key] = fit(part, before, refused)
        return number(fits[key])

    return {
        name: bootstrap_by_group(
            lambda cases, number=number: ask(number, cases),  # type: ignore[misc]
            groups,
            draws=draws,
            seed=seed,
        ).as_dict()
        for name, number in numbers.items()
    }


def _deal(rows: Sequence[Row], folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The places (others, own) of each fold: whole groups, every class in every fold as far as groups allow."""
    from sklearn.model_selection import StratifiedGroupKFold  # here alone: it takes a second to import

    classes, groups = [row["class"] for row in rows], [row["group"] for row in rows]
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # of which nothing is fitted
        return list(dealer.split(np.zeros(len(rows)), classes, groups))


def _rescale(point: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The point whose threshold decides the same once logits are multiplied by the factor."""
    threshold = point["threshold"]
    return {**point, "threshold": float(expit(logit(threshold) * factor)) if 0 < threshold < 1 else threshold}


def _label(row: Row) -> int:
    return int(row["class"] == "malignant")


def _mean_of(calibrations: Sequence[Calibration], name: str) -> float:
    return float(np.mean([getattr(own, name) for own in calibrations]))
