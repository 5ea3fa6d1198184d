# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.external."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.evaluation.external import summarise_external, tabulate_patients
from bundle.evaluation.segmentation import measure_case
from bundle.reports.external import write_external_report

POINTS = [{"sensitivity_wish": 0.9, "threshold": 0.4, "sensitivity": 0.94, "specificity": 0.8}]
LABELS = ("benign", "malignant", "normal", "unclassified")
LESION = np.zeros((8, 10), dtype=bool)
LESION[2:5, 3:6] = True


def _row(number: int, patient: int, label: str, probability: float, found: bool = True) -> dict[str, Any]:
    truth = LESION & (label != "normal")
    scores = measure_case(np.where(LESION & found, 0.9, 0.1), truth)
    return {
        **{"image": f"{number}.png", "group": f"P{patient}", "class": label, "probability": probability},
        **{"flags": "", **dataclasses.asdict(scores)},
    }


rows_of_any_set = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(LABELS), st.floats(0, 1), st.booleans()), min_size=1, max_size=12
).map(lambda drawn: [_row(number, *entry) for number, entry in enumerate(drawn)])


@settings(max_examples=40, deadline=None)
@given(rows_of_any_set)
def test_any_mix_of_classes_and_patients_is_scored(rows: list[dict[str, Any]]) -> None:
    summary = summarise_external(rows, POINTS, draws=5)
    json.dumps(summary, allow_nan=False)  # what is not defined is null
    classed = [row for row in rows if row["class"] in LABELS[:2]]
    assert bool(summary["classification"]) == bool(summary["transfer"]) == bool(classed)
    if classed:
        assert summary["classification"]["per_image"]["cases"] == len(classed)
        assert summary["classification"]["per_patient_max"]["cases"] == len({row["group"] for row in classed})


@settings(max_examples=40, deadline=None)
@given(rows_of_any_set)
def test_each_image_is_in_one_patient_and_max_is_never_below_mean(rows: list[dict[str, Any]]) -> None:
    patients = tabulate_patients(rows)
    assert sum(patient["images"] for patient in patients) == len(rows)
    for patient in patients:
        if patient["classified_images"]:
            assert patient["probability_max"] >= patient["probability_mean"] - 1e-12
        else:
            assert patient["probability_max"] is None


def test_a_patient_with_many_images_counts_once_per_patient() -> None:
    rows = [_row(number, 0, "benign", 0.1) for number in range(9)] + [_row(9, 1, "malignant", 0.9, found=False)]
    segmentation = summarise_external(rows, POINTS, draws=5)["segmentation"]
    assert segmentation["per_image"]["lesions"]["dice"]["estimate"] == pytest.approx(0.9)
    assert segmentation["per_patient"]["dice"]["estimate"] == pytest.approx(0.5)


def test_transfer_compares_what_was_wanted_with_what_was_reached() -> None:
    malignant = [_row(number, number, "malignant", 0.5 if number < 6 else 0.2) for number in range(10)]
    benign = [_row(number, number, "benign", 0.1) for number in range(10, 30)]
    (point,) = summarise_external(malignant + benign, POINTS, draws=100)["transfer"]
    reached = point["reached"]["per_image"]
    assert (point["threshold"], point["on_validation"]["sensitivity"]) == (0.4, 0.94)
    assert reached["sensitivity"]["estimate"] == pytest.approx(0.6)
    assert reached["interval_holds_wish"] is (reached["sensitivity"]["high"] >= 0.9)
    assert reached["threshold_in_hindsight"] == pytest.approx(0.2)
    assert reached["specificity_in_hindsight"] == 1.0


@pytest.mark.parametrize("labels", [["normal"], ["benign", "benign"], ["malignant"], ["unclassified"], LABELS])
def test_a_page_is_written_whatever_classes_there_are(tmp_path: Path, labels: list[str]) -> None:
    rows = [_row(number, number, label, 0.9) for number, label in enumerate(labels)]
    rows[0]["image"] = "<script>.png"
    metrics = {
        **{
            "dataset": {
                "name": "set",
                "source": "manifest",
                "images": 1,
                "groups": 1,
                "classes": {},
                "flags": {},
                "lesion_states": {},
            }
        },
        **{"unit": "group of near duplicates", "threshold": 0.5, "warnings": ["a warning"], "synthetic": False},
        **{"bad": [], "left_out": [{"path": "x.png", "reason": "left out"}], "provenance": {"commit": None}},
        **summarise_external(rows, POINTS, draws=5),
    }
    page = write_external_report(tmp_path, metrics, rows, examples=False).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "a warning" in page
    assert "x.png: left out" in page
