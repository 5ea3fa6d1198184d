# SPDX-License-Identifier: Apache-2.0
"""Scores of both networks on another hospital's images, per image and per patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bundle.data.cases import DIAGNOSES
from bundle.evaluation.classification import choose_operating_points, name_point, summarise_classification
from bundle.evaluation.drift import summarise_calibration
from bundle.evaluation.intervals import DRAWS, LEVEL, METHOD, REFLECTED, bootstrap_ratio_by_group
from bundle.evaluation.segmentation import gate, summarise
from bundle.evaluation.subgroups import summarise_strata

RULES: dict[str, Callable[[Sequence[float]], float]] = {"max": max, "mean": fmean}
"""What a patient's probability is made of those of her images."""
SEGMENTATION_SCORES = ("dice", "iou", "hd95", "pixel_accuracy", "background_accuracy", "missed")
DEFAULT = "default"  # the operating point at probability 0.5

Row = Mapping[str, Any]


def summarise_external(
    rows: Sequence[Row], operating_points: Sequence[Mapping[str, Any]], draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Score a run over a dataset that the networks were not trained on, with intervals drawn by patient.

    Args:
        rows: one per image: `image`, `group`, `class`, `probability` of malignancy, 0 where no lesion is told, and the
            fields of `CaseScores`; where the segmenter has a presence head also its `presence`, `told_none`, and
            `probability_ungated`, see `summarise`.
        operating_points: of the classifier's card, fitted on validation images of its own training set.
        draws: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `intervals`; `segmentation` (`per_image`, `per_patient`); `classification` and
        `calibration`, each by level: `per_image`, `per_patient_max`, `per_patient_mean`; `strata`, see
        `summarise_strata`; and `transfer`, for each operating point what was wanted, what validation gave and what was
        reached here. Without benign and malignant images the last four are empty. Where a lesion was told
        to be none, `ungated` holds the classification with that word passed over; the segmentation's stands in
        `segmentation.per_image`.
    """
    thresholds = {
        DEFAULT: 0.5,
        **{name_point(point["sensitivity_wish"]): point["threshold"] for point in operating_points},
    }
    levels = levels_of(rows)
    gated = any(row.get("told_none") for row in rows)
    ungated = levels_of([{**row, "probability": row["probability_ungated"]} for row in rows]) if gated else {}
    classification = {name: summarise_classification(part, thresholds, draws, seed) for name, part in levels.items()}
    return {
        "intervals": {"method": METHOD, "ece": REFLECTED, "level": LEVEL, "draws": draws, "seed": seed},
        "segmentation": {
            "per_image": summarise(rows, draws, seed),
            "per_patient": _average_patients(rows, draws, seed),
        },
        "classification": classification,
        "calibration": {name: summarise_calibration(part, draws, seed) for name, part in levels.items()},
        "strata": summarise_strata(
            [{**row, "label": _label(row)} for row in rows if row["class"] in DIAGNOSES], draws, seed
        ),
        "transfer": [_transfer(point, levels, classification) for point in operating_points] if levels else [],
        **(
            {
                "ungated": {
                    name: summarise_classification(part, thresholds, draws, seed) for name, part in ungated.items()
                }
            }
            if gated
            else {}
        ),
    }


def tabulate_patients(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per patient: `group`, `class` (the worst of her images'), counts, and her probability by each rule.

    Means of Dice, IoU, HD95 and the pixel accuracies are over her images with a lesion; None without one. Images that
    are normal or unclassified count for the segmentation only, and a patient without others has no probability.
    """
    patients: defaultdict[str, list[Row]] = defaultdict(list)
    for row in map(gate, rows):
        patients[str(row["group"])].append(row)
    table = []
    for name, images in sorted(patients.items()):
        classed = [row for row in images if row["class"] in DIAGNOSES]
        lesions = [row for row in images if row["dice"] is not None]
        labels = {row["class"] for row in images}
        order = ("malignant", "benign", "unclassified", "normal")
        table.append(
            {
                "group": name,
                "class": next(label for label in order if label in labels),
                "images": len(images),
                "classified_images": len(classed),
                **{
                    f"probability_{rule}": join([row["probability"] for row in classed]) if classed else None
                    for rule, join in RULES.items()
                },
                **{key: _mean([row[key] for row in lesions]) for key in SEGMENTATION_SCORES},
            }
        )
    return table


def levels_of(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """What a classifier is scored on at each level: the images, and the patients by each rule; empty without any."""
    classed = [
        {**{key: row[key] for key in ("image", "group", "class", "probability")}, "label": _label(row)}
        for row in rows
        if row["class"] in DIAGNOSES
    ]
    if not classed:
        return {}
    levels = {"per_image": classed}
    patients = [row for row in tabulate_patients(rows) if row["class"] in DIAGNOSES]
    for rule in RULES:
        levels[f"per_patient_{rule}"] = [
            {
                **{"image": row["group"], "group": row["group"], "label": _label(row)},
                "probability": row[f"probability_{rule}"],
            }
            for row in patients
        ]
    return levels


def _label(row: Row) -> int:
    return int(row["class"] == "malignant")


def _average_patients(rows: Sequence[Row], draws: int, seed: int) -> dict[str, Any]:
    """The mean over patients of each one's mean, so that a patient with many images counts as one."""
    patients = [row for row in tabulate_patients(rows) if row["dice"] is not None]
    result: dict[str, Any] = {"patients": len(patients)}
    for key in SEGMENTATION_SCORES:
        known = [row for row in patients if row[key] is not None]
        values, groups = [row[key] for row in known], [row["group"] for row in known]
        result[key] = bootstrap_ratio_by_group(values, groups, draws=draws, seed=seed).as_dict()
    return result


def _transfer(
    point: Mapping[str, Any], levels: Mapping[str, Sequence[Row]], classification: Mapping[str, Any]
) -> dict[str, Any]:
    """What became of one operating point on these images."""
    wish, reached = float(point["sensitivity_wish"]), {}
    for name, part in levels.items():
        at_point = classification[name]["operating_points"][name_point(point["sensitivity_wish"])]
        sensitivity = at_point["sensitivity"]
        known = None not in (sensitivity["low"], sensitivity["high"])
        labels = [row["label"] for row in part]
        # Chosen on the tested images, so it is no operating point: it tells how far the threshold has moved.
        needed = choose_operating_points([row["probability"] for row in part], labels, [wish])[0] if any(labels) else {}
        reached[name] = {
            "sensitivity": sensitivity,
            "specificity": at_point["specificity"],
            "interval_holds_wish": sensitivity["low"] <= wish <= sensitivity["high"] if known else None,
            "threshold_in_hindsight": needed.get("threshold"),
            "specificity_in_hindsight": needed.get("specificity"),
        }
    return {
        "name": name_point(point["sensitivity_wish"]),
        "sensitivity_wish": wish,
        "threshold": float(point["threshold"]),
        "on_validation": {key: point.get(key) for key in ("sensitivity", "specificity")},
        "reached": reached,
    }


def _mean(values: Sequence[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None
