# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.classification_handler."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image
from scipy.special import expit

from bundle.errors import UserError
from bundle.files import to_csv
from bundle.networks.weights import write_weights
from bundle.reports import ClassificationEvaluation

SPLIT = {"segmentation_split": "15:5:80", "split": "60:10:30"}
DATALIST = {
    **SPLIT,
    "segmentation_seed": 4,
    "seed": 5,
    "dataset_sha256": "cd" * 32,
    "name": "dots",
    "masks": "predicted",
}
CARD = {
    **SPLIT,
    **{"segmentation_split_seed": 4, "split_seed": 5, "dataset_sha256": "cd" * 32, "temperature": 2.0},
    "operating_points": [{"sensitivity_wish": 0.9, "threshold": 0.2}],
}
LOGITS = (-4.0, -3.0, -1.0, 2.0, 5.0, -2.0)  # of three benign and three malignant images
CLASSES = ("benign", "benign", "benign", "malignant", "malignant", "malignant")


def _handler(
    folder: Path, card: dict[str, Any] = CARD, part: str = "test", **datalist: Any
) -> tuple[ClassificationEvaluation, list[str]]:
    write_weights(folder / "model_classifier.pt", {"w": torch.zeros(1)}, card)
    records: list[dict[str, Any]] = [
        {"image": f"/data/{name}/{name} ({i}).png", "class": name, "group": f"g{i}", "label": float(name != "benign")}
        for i, name in enumerate(CLASSES)
    ]
    weights = folder / "model_classifier.pt"
    handler = ClassificationEvaluation(folder / "out", records, weights, {**DATALIST, **datalist}, part)
    return handler, [record["image"] for record in records]


def _evaluate(
    folder: Path, batches: Sequence[Sequence[int]] = ((0, 3, 1, 2), (5, 4)), **changes: Any
) -> dict[str, Any]:
    handler, paths = _handler(folder, **changes)

    def predict(_: Engine, batch: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {"image": MetaTensor(_crop(i), meta={"filename_or_obj": paths[i]}), "pred": torch.tensor([LOGITS[i]])}
            for i in batch
        ]

    engine = Engine(predict)
    handler.attach(engine)
    engine.run(batches)
    return json.loads((folder / "out" / "metrics.json").read_text())


def _crop(number: int) -> torch.Tensor:
    """What the classifier sees: an even grey, and a mask that is black."""
    return torch.stack([torch.full((8, 8), number / 10), torch.zeros(8, 8)])


def _report(folder: Path) -> str:
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_probabilities_are_calibrated_with_the_cards_temperature(tmp_path: Path) -> None:
    _evaluate(tmp_path)
    with open(tmp_path / "out" / "per_image.csv", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert len(rows) == 6
    row = rows["malignant/malignant (3).png"]
    assert float(row["probability"]) == pytest.approx(expit(1.0))
    assert float(row["probability_raw"]) == pytest.approx(expit(2.0))
    assert (row["class"], row["group"], row["label"]) == ("malignant", "g3", "1")


def test_scores_stand_at_one_half_and_at_the_cards_operating_points(tmp_path: Path) -> None:
    metrics = _evaluate(tmp_path)
    points = metrics["operating_points"]
    assert list(points) == ["default", "sensitivity 0.90 on validation"]
    assert points["default"]["confusion"] == [[3, 0], [1, 2]]
    # sigmoid(-1 / 2) = 0.38 and sigmoid(-2 / 2) = 0.27 reach 0.2, sigmoid(-3 / 2) = 0.18 does not.
    assert points["sensitivity 0.90 on validation"]["confusion"] == [[2, 1], [0, 3]]
    assert metrics["auroc"]["estimate"] == pytest.approx(8 / 9)


def test_prediction_sets_of_the_card_are_scored(tmp_path: Path) -> None:
    assert "conformal" not in _evaluate(tmp_path / "none")
    assert "unsure" not in _report(tmp_path / "none")
    limits = {"coverage": 0.8, "benign": 0.7, "malignant": 0.4}
    sets = _evaluate(tmp_path / "some", card={**CARD, "conformal": limits})["conformal"]
    # P(malignant) of the benign: 0.12, 0.18, 0.38, which leaves neither class; of the malignant: 0.73, 0.92, 0.27.
    assert sets["promised"] == 0.8
    shares = {name: sets[name]["estimate"] for name in ("coverage_benign", "coverage_malignant", "unsure", "accuracy")}
    expected = {"coverage_benign": 2 / 3, "coverage_malignant": 2 / 3, "unsure": 1 / 6, "accuracy": 4 / 5}
    assert shares == pytest.approx(expected)
    assert "With “unsure” as an answer" in _report(tmp_path / "some")
    assert "Most certain wrong cases" in _report(tmp_path / "some")


def test_results_hold_figures_and_origin(tmp_path: Path) -> None:
    metrics = _evaluate(tmp_path)
    assert (metrics["part"], "</html>" in _report(tmp_path)) == ("test", True)
    for name in ("roc.png", "reliability.png", "confusion.png"):
        with Image.open(tmp_path / "out" / name) as figure:
            assert figure.width > 300
    assert (metrics["synthetic"], metrics["masks"]) == (False, "predicted")
    assert metrics["provenance"]["weights_sha256"] == metrics["weights"]["sha256"]
    assert "/data" not in (tmp_path / "out" / "per_image.csv").read_text()


def test_synthetic_and_oracle_runs_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        metrics = _evaluate(tmp_path, synthetic=True, masks="oracle")
    assert (metrics["synthetic"], metrics["masks"]) == (True, "oracle")
    assert "SYNTHETIC phantom: ORACLE masks: AUROC" in caplog.text
    assert "SYNTHETIC data" in _report(tmp_path)
    assert "ORACLE masks" in _report(tmp_path)


def test_the_report_shows_what_the_classifier_saw_of_the_wrong_cases(tmp_path: Path) -> None:
    _evaluate(tmp_path)
    shown = re.findall(r'base64,([^"]+)" alt="What the classifier saw of ([^"]+)"', _report(tmp_path))
    assert [name for _, name in shown] == ["malignant/malignant (5).png"]  # sigmoid(-2 / 2) = 0.27
    crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[0][0]))))
    assert crop.shape == (8, 8)
    assert (crop == round(0.5 * 255)).all()  # the image, not the mask beside it


def test_images_that_were_not_kept_from_the_training_are_no_test(tmp_path: Path) -> None:
    assert _evaluate(tmp_path, part="validation")["part"] == "validation"
    assert "These numbers are no test." in _report(tmp_path)


def test_a_part_of_one_class_is_reported_without_a_roc_curve(tmp_path: Path) -> None:
    metrics = _evaluate(tmp_path, batches=[[0, 1], [2]])
    assert metrics["auroc"]["estimate"] is None
    assert not (tmp_path / "out" / "roc.png").exists()
    assert "ROC curve" not in _report(tmp_path)


@pytest.mark.parametrize("key", ["segmentation_split", "segmentation_split_seed", "split", "split_seed"])
def test_weights_of_another_split_of_the_same_dataset_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=rf"model_classifier\.pt: trained with {key} other"):
        _handler(tmp_path, {**CARD, key: "other"})


def test_weights_of_another_dataset_may_be_evaluated(tmp_path: Path) -> None:
    handler, _ = _handler(tmp_path, {**CARD, "dataset_sha256": "ef" * 32, "split": "other"})
    assert handler.card["split"] == "other"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_in_a_table_can_not_start_a_formula_and_numbers_stay(start: str) -> None:
    (row,) = _read_csv(to_csv([{"image": f"{start}1", "logit": -1.5, "count": -2, "none": None, "plain": "a=b"}]))
    assert row == {"image": f"'{start}1", "logit": "-1.5", "count": "-2", "none": "", "plain": "a=b"}


@given(st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1))
def test_a_table_comes_back_whole_whatever_a_file_is_called(names: list[str]) -> None:
    rows = _read_csv(to_csv([{"image": f"a{name}", "n": number} for number, name in enumerate(names)]))
    assert [(row["image"], row["n"]) for row in rows] == [(f"a{name}", str(i)) for i, name in enumerate(names)]


def _read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_what_is_not_outlined_stays_in_every_figure_as_benign_with_score_0(tmp_path: Path) -> None:
    card = {**CARD, "conformal": {"coverage": 0.9, "benign": 0.5, "malignant": 0.5}}
    handler, paths = _handler(tmp_path, card)
    blank = 4  # a malignant image, of the highest logit

    def predict(engine: Engine, _: Any) -> list[dict[str, Any]]:
        engine.state.batch = [{"outlined": int(i != blank)} for i in range(6)]
        return [
            {"image": MetaTensor(_crop(i), meta={"filename_or_obj": paths[i]}), "pred": torch.tensor([LOGITS[i]])}
            for i in range(6)
        ]

    engine = Engine(predict)
    handler.attach(engine)
    engine.run([0])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["cases"], metrics["not_outlined"]) == (6, {"benign": 0, "malignant": 1})
    assert metrics["operating_points"]["default"]["confusion"] == [[3, 0], [2, 1]]
    assert metrics["auroc"]["estimate"] == pytest.approx(5 / 9)
    with open(tmp_path / "out" / "per_image.csv", newline="") as file:
        row = list(csv.DictReader(file))[blank]
    assert (row["outlined"], row["logit"], row["probability"]) == ("False", "", "0.0")
    assert "0 benign and 1 malignant of them" in (tmp_path / "out" / "report.html").read_text()


def test_a_lesion_that_the_segmenter_tells_to_be_none_is_called_benign_and_stands_ungated_beside(
    tmp_path: Path,
) -> None:
    plain = _evaluate(tmp_path / "plain")
    handler, paths = _handler(tmp_path)
    handler.records[paths[4]]["told_none"] = True  # malignant, the highest logit

    def predict(_: Engine, batch: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {"image": MetaTensor(_crop(i), meta={"filename_or_obj": paths[i]}), "pred": torch.tensor([LOGITS[i]])}
            for i in batch
        ]

    engine = Engine(predict)
    handler.attach(engine)
    engine.run([range(6)])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["operating_points"]["default"]["confusion"] == [[3, 0], [2, 1]]
    assert metrics["not_outlined"] == {"benign": 0, "malignant": 1}
    assert metrics["ungated"]["told_none"] == {"benign": 0, "malignant": 1}
    assert metrics["ungated"]["auroc"] == plain["auroc"]
    assert metrics["auroc"]["estimate"] < plain["auroc"]["estimate"]
    assert "ungated" not in plain
    assert "With that word passed over" in _report(tmp_path)
    with open(tmp_path / "out" / "per_image.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["told_none"] == "True"]
    assert (row["probability"], row["outlined"]) == ("0.0", "False")
    assert float(row["probability_ungated"]) == pytest.approx(expit(2.5))
