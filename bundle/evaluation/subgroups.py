# SPDX-License-Identifier: Apache-2.0
"""The classifier's scores by patient, by dataset, and by what a dataset tells of its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bundle.evaluation.classification import area_under_roc, summarise_classification
from bundle.evaluation.intervals import DRAWS, bootstrap_by_group
from bundle.evaluation.segmentation import SIZES, STRATA

Row = Mapping[str, Any]


def summarise_subgroups(
    rows: Sequence[Row],
    thresholds: Mapping[str, float | Sequence[float]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a classifier by patient, dataset, scanner and BI-RADS category, as far as the rows tell them.

    Args:
        rows, thresholds, draws, seed: as `summarise_classification` takes them; rows may have `patient`, `dataset` and
            those of `STRATA`.

    Returns:
        A dict ready for JSON: `patients` (see `score_patients`), `datasets`: for each what `summarise_classification`
        returns, with its own `patients`; and under each of `STRATA` the images, the malignant ones and the AUROC of
        each value. What no row tells is left out.
    """
    found: dict[str, Any] = {}
    if any(row.get("patient") for row in rows):
        found["patients"] = score_patients(rows, draws, seed)
    names = sorted({str(row["dataset"]) for row in rows if row.get("dataset")})
    if names:
        found["datasets"] = {name: _summarise_dataset(rows, name, thresholds, draws, seed) for name in names}
    return found | summarise_strata(rows, draws, seed)


def summarise_strata(rows: Sequence[Row], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Score a classifier by scanner, BI-RADS category and size of the lesion, as far as the rows tell them.

    Args:
        rows: `group`, `label`, `probability`, and any of `STRATA` and `lesion_area`, the share of the image.
        draws, seed: of the bootstrap.

    Returns:
        A dict ready for JSON: under each of `STRATA`, and `sizes` (see `SIZES`), the images, the malignant ones and the
        AUROC of each value.
    """
    found = {}
    for key in STRATA:
        values = sorted({str(row[key]) for row in rows if row.get(key)})
        if values:
            parts = {value: [row for row in rows if str(row.get(key)) == value] for value in values}
            found[key] = {value: _score(part, draws, seed) for value, part in parts.items()}
    sized = {
        name: [row for row in rows if row.get("lesion_area") is not None and low <= row["lesion_area"] < high]
        for name, (low, high) in SIZES.items()
    }
    sizes = {name: _score(part, draws, seed) for name, part in sized.items() if part}
    return {**found, **({"sizes": sizes} if sizes else {})}


def score_patients(rows: Sequence[Row], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Score patients by the mean probability of their images; a patient with a malignant image is malignant.

    An image whose patient is not known stands for a patient of its own.
    """
    images: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        images[str(row.get("patient") or row["image"])].append(row)
    patients = [
        {
            "group": part[0]["group"],
            "label": max(row["label"] for row in part),
            "probability": float(np.mean([row["probability"] for row in part])),
        }
        for part in images.values()
    ]
    return _score(patients, draws, seed)


def _summarise_dataset(
    rows: Sequence[Row], name: str, thresholds: Mapping[str, float | Sequence[float]] | None, draws: int, seed: int
) -> dict[str, Any]:
    places = [place for place, row in enumerate(rows) if row.get("dataset") == name]
    part = [rows[place] for place in places]
    own = {
        point: value if isinstance(value, (int, float)) else [value[place] for place in places]
        for point, value in (thresholds or {"default": 0.5}).items()
    }
    told = {"patients": score_patients(part, draws, seed)} if any(row.get("patient") for row in part) else {}
    return {**summarise_classification(part, own, draws, seed), **told}


def _score(rows: Sequence[Row], draws: int, seed: int) -> dict[str, Any]:
    labels = np.array([bool(row["label"]) for row in rows])
    scores = np.array([float(row["probability"]) for row in rows])
    groups = [str(row["group"]) for row in rows]

    def area(cases: np.ndarray) -> float:
        return area_under_roc(labels[cases], scores[cases])

    auroc = bootstrap_by_group(area, groups, draws=draws, seed=seed)
    return {"cases": len(rows), "malignant": int(labels.sum()), "auroc": auroc.as_dict()}
