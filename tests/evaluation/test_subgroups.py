# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.subgroups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bundle.evaluation.classification import summarise_classification
from bundle.evaluation.subgroups import score_patients, summarise_subgroups


def _rows(count: int = 40, **told: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            **{"image": f"{number}.png", "group": f"g{number // 2}", "label": number // 2 % 2},
            "probability": float(np.clip(0.3 * (number // 2 % 2) + rng.random() * 0.7, 0, 1)),
            **{key: value(number) for key, value in told.items()},
        }
        for number in range(count)
    ]


def test_rows_that_tell_nothing_have_no_subgroups() -> None:
    assert summarise_subgroups(_rows(), draws=20) == {}


def test_a_patient_is_scored_by_the_mean_of_their_images() -> None:
    rows = [
        *(
            {"image": f"a{i}", "group": "a", "patient": "A/1", "label": 1, "probability": p}
            for i, p in ((0, 0.9), (1, 0.3))
        ),
        {"image": "b", "group": "b", "patient": "", "label": 0, "probability": 0.5},
        {"image": "c", "group": "c", "patient": "A/2", "label": 0, "probability": 0.7},
    ]
    scored = score_patients(rows, draws=20)
    assert (scored["cases"], scored["malignant"]) == (3, 1)
    assert scored["auroc"]["estimate"] == 0.5  # 0.6 lies between 0.5 and 0.7


def test_each_dataset_has_the_scores_of_its_own_rows_at_its_own_thresholds() -> None:
    rows = _rows(dataset=lambda n: "A" if n < 16 else "B", device=lambda n: "X" if n % 4 else "", birads=lambda n: "4")
    limits = [0.2 if row["dataset"] == "A" else 0.8 for row in rows]
    found = summarise_subgroups(rows, {"point": limits}, draws=20)
    assert set(found) == {"datasets", "device", "birads"}
    expected = summarise_classification(rows[:16], {"point": 0.2}, draws=20)
    assert found["datasets"]["A"]["auroc"] == expected["auroc"]
    assert found["datasets"]["A"]["operating_points"] == expected["operating_points"]
    assert found["datasets"]["B"]["operating_points"]["point"]["threshold"] == pytest.approx(0.8)
    assert found["device"] == {"X": found["device"]["X"]}
    assert found["device"]["X"]["cases"] == 30
    assert found["birads"]["4"]["cases"] == 40
