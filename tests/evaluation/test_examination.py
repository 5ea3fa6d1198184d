# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.examination: on patients whose probabilities are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from bundle.errors import UserError
from bundle.evaluation.examination import examination_probability, fit_examination
from scripts import examination_rule


def _rows(count: int = 600, seed: int = 0, noise: float = 1.0) -> list[dict[str, Any]]:
    """Patients with one to three images, each of the truth's logit, shrunk by half, and noise of its own."""
    random = np.random.default_rng(seed)
    rows = []
    for patient in range(count):
        logit = random.normal(-0.5, 2)
        label = "malignant" if random.random() < expit(logit) else "benign"
        for view in range(random.integers(1, 4)):
            shown = expit(logit / 2 + random.normal(0, noise) / 2)
            image = {"image": f"{patient}-{view}", "class": label, "group": f"g{patient // 2}"}
            rows.append({**image, "patient": f"p{patient}", "probability": shown, "outlined": True})
    return rows


def test_the_line_undoes_what_makes_probabilities_too_timid() -> None:
    found = fit_examination(_rows(1500), draws=50)
    before, after = (found["rules"]["mean of logits"][kind] for kind in ("as joined", "calibrated"))
    assert before["slope"] > 1.4
    assert after["slope"] == pytest.approx(1, abs=0.15)
    assert after["log_loss"]["estimate"] < before["log_loss"]["estimate"]
    assert found["chosen"]["ece"]["estimate"] < before["ece"]["estimate"]
    assert found["examination"]["rule"] in ("mean", "mean of logits")
    assert found["examination"]["fitted_on"]["patients"] == 1500
    assert found["examination"]["fitted_on"]["most_images"] == 3


def test_the_maximum_of_many_is_brought_down() -> None:
    calibration = {"rule": "maximum", "slope": 1.0, "intercept": -1.0}
    assert examination_probability(calibration, [0.2, 0.5]) == pytest.approx(expit(-1.0))
    assert examination_probability({**calibration, "intercept": 0.0}, [0.0, 1.0]) == pytest.approx(1, abs=1e-5)


def test_unknown_patients_and_images_without_an_outline_have_no_part() -> None:
    rows = _rows()
    known = fit_examination(rows, draws=10)["examination"]
    for row in _rows(seed=1):
        rows.append({**row, "patient": "", "probability": 0.9})
    for row in list(rows[:5]):
        rows.append({**row, "image": "x", "outlined": False, "probability": 0.0})
    rows.append({**rows[0], "patient": "nobody", "outlined": False})
    again = fit_examination(rows, draws=10)["examination"]
    assert again["fitted_on"].pop("without_an_outline") == 1
    assert known["fitted_on"].pop("without_an_outline") == 0
    assert again == known


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(UserError, match="a fit needs 30 of each"):
        fit_examination(_rows(40))


def test_the_command_writes_the_record_and_the_card(tmp_path: Path) -> None:
    folder, card = tmp_path / "run" / "evaluation", tmp_path / "model_classifier.json"
    folder.mkdir(parents=True)
    metrics = {"task": "classification", "synthetic": True, "provenance": {"dataset": "X"}, "weights": {"sha256": "a"}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    lines = ["image,class,group,patient,label,probability,outlined"]
    lines += [
        ",".join([row["image"], row["class"], row["group"], row["patient"], "0", str(row["probability"]), "True"])
        for row in _rows(200)
    ]
    (folder / "per_image.csv").write_text("\n".join(lines))
    card.write_text(json.dumps({"sha256": "b" * 64, "temperature": 1.5}))
    words = [str(tmp_path / "run"), "--output", str(tmp_path / "rule.json"), "--card", str(card)]
    assert examination_rule.main(words) == 0
    written, record = json.loads(card.read_text()), json.loads((tmp_path / "rule.json").read_text())
    assert written["temperature"] == 1.5
    assert written["examination"] == record["examination"]
    assert written["examination"]["fitted_on"]["classifiers"] == ["a"]
    assert written["examination"]["synthetic"] is True
