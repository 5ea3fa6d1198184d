# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/fit_left_out.py, on fabricated evaluations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from bundle.errors import UserError
from bundle.files import to_csv
from bundle.networks.weights import card_path, read_card
from bundle.reports.pages import render_pages
from bundle.training.left_out import fit_left_out
from scripts.fit_left_out import main

WISHES = (0.9, 0.95)
EXTREME = {"BUSBRA": 2.3, "Dataset_BUSI_with_GT": 2.7}
"""By which calibrated logits are too large in the hospital that was left out."""

Make = Callable[..., Path]


@pytest.fixture
def models(write_models: Callable[..., Path], tmp_path: Path) -> Path:
    """The weights of all hospitals; the temperature of their own validation is 2."""
    return write_models(tmp_path / "models", datasets={name: "d" * 64 for name in EXTREME}, conformal=None)


@pytest.fixture
def make(models: Path, tmp_path: Path) -> Make:
    """The run of a classifier that was trained without a hospital, as its evaluation leaves it."""

    def make(name: str, folder: str = "", changes: dict[str, Any] | None = None, **card: Any) -> Path:
        rng = np.random.default_rng(len(name))
        rows = []
        for number in range(400):
            score = rng.normal(-0.3, 1.5)
            label, outlined = int(rng.random() < expit(score)), rng.random() > 0.03
            value = score * EXTREME.get(name, 1.0)
            rows.append(
                {
                    **{"image": f"{name}/benign/{number}.png", "class": "malignant" if label else "benign"},
                    **{"group": f"g{number // 2}", "label": label, "dataset": name, "outlined": outlined},
                    "logit": value if outlined else None,
                    "probability_raw": float(expit(value)) if outlined else 0.0,
                    "probability": float(expit(value)) if outlined else 0.0,
                }
            )
        points = [{"sensitivity_wish": wish, "threshold": 0.8} for wish in WISHES]
        weights = {**read_card(models / "model_classifier.pt"), "sha256": "r" * 64, "operating_points": points, **card}
        metrics = {
            **{"task": "classification", "part": "test", "synthetic": False, "masks": "predicted", "weights": weights},
            "provenance": {"split": f"leave out {name}", "dataset_sha256": "d", "split_seed": 0},
            **(changes or {}),
        }
        run = tmp_path / (folder or f"without_{name}")
        (run / "evaluation").mkdir(parents=True)
        (run / "evaluation/metrics.json").write_text(json.dumps(metrics))
        (run / "evaluation/per_image.csv").write_text(to_csv(rows))
        return run

    return make


def test_the_card_gets_what_left_out_hospitals_needed(models: Path, make: Make, tmp_path: Path) -> None:
    weights = models / "model_classifier.pt"
    before = read_card(weights)
    card = fit_left_out(weights, [make(name) for name in EXTREME], tmp_path / "out", draws=20)
    assert card == json.loads((tmp_path / "out/model_classifier.json").read_text())
    assert (tmp_path / "out/model_classifier.pt").read_bytes() == weights.read_bytes()
    assert card["left_out"]["factor"] == pytest.approx(2.5, rel=0.2)
    assert card["temperature"] == pytest.approx(2.0 * card["left_out"]["factor"])
    assert [point["sensitivity_wish"] for point in card["operating_points"]] == list(WISHES)
    for point, wish in zip(card["operating_points"], WISHES, strict=True):
        assert point["sensitivity"] >= wish  # in the hospital where it is lowest
    assert card["left_out"]["on_validation"] == {
        key: before.get(key) for key in ("temperature", "operating_points", "conformal")
    }
    assert card["left_out"]["not_trained_on"] == []
    assert card["left_out"]["runs"]["BUSBRA"]["run"] == "without_BUSBRA"


def test_what_a_hospital_reached_comes_from_the_others_alone(models: Path, make: Make, tmp_path: Path) -> None:
    weights = models / "model_classifier.pt"
    runs = [make(name) for name in EXTREME]
    hospitals = fit_left_out(weights, runs, tmp_path / "out", draws=20)["left_out"]["hospitals"]
    assert set(hospitals) == set(EXTREME)
    one, other = hospitals.values()
    assert one["from_others"]["factor"] == pytest.approx(other["own_factor"])
    for hospital in hospitals.values():
        assert hospital["images"] == 400
        assert hospital["not_outlined"] > 0
        for place, wish in enumerate(WISHES):
            reached = {key: hospital[key]["operating_points"][place] for key in ("from_others", "from_validation")}
            assert reached["from_validation"]["sensitivity"]["estimate"] < wish - 0.2
            assert reached["from_others"]["sensitivity"]["estimate"] == pytest.approx(wish, abs=0.12)
            assert reached["from_others"]["sensitivity"]["low"] < reached["from_others"]["sensitivity"]["estimate"]
        assert hospital["from_others"]["ece"]["estimate"] < hospital["from_validation"]["ece"]["estimate"]


def test_fitting_again_begins_from_validation(models: Path, make: Make, tmp_path: Path) -> None:
    weights, runs = models / "model_classifier.pt", [make(name) for name in EXTREME]
    words = [*map(str, runs), "--weights", str(weights), "--output", str(tmp_path / "out"), "--draws", "4", "--publish"]
    assert main(words) == 0
    first = read_card(weights)
    assert first["temperature"] != 2.0
    assert main(words) == 0
    again = read_card(weights)
    assert {**first, "left_out": None} == {**again, "left_out": None}
    assert first["left_out"]["on_validation"] == again["left_out"]["on_validation"]
    assert main([str(runs[0]), *words[2:]]) == 2  # one hospital only
    assert read_card(weights) == again


@pytest.mark.parametrize(
    ("changes", "card", "message"),
    [
        ({"provenance": {"split": "fold 0 of 5"}}, {}, "its split is 'fold 0 of 5'"),
        ({"provenance": {"split": "leave out BUSBRA, inner fold 0 of 2"}}, {}, "inner fold"),
        ({"synthetic": True}, {}, "SYNTHETIC"),
        ({"part": "validation"}, {}, "validation part"),
        ({}, {"margin": 0.1}, "its margin is 0.1"),
        ({}, {"architecture": "LiteSegNet"}, "its architecture is LiteSegNet"),
        ({}, {"fusion": {"features": []}}, "measured features"),
        ({}, {"operating_points": [{"sensitivity_wish": 0.8, "threshold": 0.5}]}, "are meant for"),
    ],
)
def test_runs_that_say_nothing_of_these_weights_are_refused(
    models: Path, make: Make, tmp_path: Path, changes: dict[str, Any], card: dict[str, Any], message: str
) -> None:
    runs = [make("BUSBRA", changes=changes, **card), make("Dataset_BUSI_with_GT")]
    with pytest.raises(UserError, match=message):
        fit_left_out(models / "model_classifier.pt", runs, tmp_path / "out", draws=2)
    assert not (tmp_path / "out").exists()


def test_two_runs_without_one_hospital_are_refused(models: Path, make: Make, tmp_path: Path) -> None:
    runs = [make("BUSBRA"), make("BUSBRA", folder="again")]
    with pytest.raises(UserError, match="leaves out BUSBRA, as"):
        fit_left_out(models / "model_classifier.pt", runs, tmp_path / "out", draws=2)


def test_the_model_card_shows_what_each_point_reached(models: Path, make: Make, tmp_path: Path, root: Path) -> None:
    weights = models / "model_classifier.pt"
    fit_left_out(weights, [make(name) for name in EXTREME], models, draws=20)
    (tmp_path / "configs").mkdir()
    for name in ("configs/metadata.json", "configs/train.json", "requirements.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    page = render_pages(root / "docs" / "results", tmp_path)["README.md"]
    (line,) = (line for line in page.splitlines() if line.startswith("| BUS-BRA |") and "| 0.9 |" in line)
    reached = read_card(weights)["left_out"]["hospitals"]["BUSBRA"]["from_others"]["operating_points"][0]
    assert f"{100 * reached['sensitivity']['estimate']:.1f}" in line
    assert "varies as the table above shows" in page
    card_path(weights).unlink()
    assert "Neither carries over to another one" in render_pages(root / "docs" / "results", tmp_path)["README.md"]
