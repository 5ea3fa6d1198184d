# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/ship_weights.py and the sets of weights in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.data.training_sets import add_recorded, read_recorded
from bundle.files import read_json, sha256_of, write_json
from bundle.networks import LiteUNet, UNet
from bundle.prediction import Predictor
from scripts.ship_weights import main

SHA = "ab" * 32
SCORE = {"estimate": 0.9, "low": 0.88, "high": 0.92}


@pytest.fixture
def place(tmp_path: Path, tiny_models: Path, write_lite_models: Callable[..., Path], root: Path) -> Path:
    """Plain networks in models, runs of Lite ones, and what is recorded of networks like these."""
    shutil.copytree(tiny_models, tmp_path / "models")
    runs = write_lite_models(tmp_path / "runs")
    for name in ("model", "model_classifier"):
        card = read_json(runs / f"{name}.json")
        told = (
            {"dataset_sha256": SHA, "segmenter_sha256": ["11" * 32]}
            if "classifier" in name
            else {"dataset_sha256": SHA}
        )
        write_json(runs / f"{name}.json", {**card, **told})
        _record(tmp_path, f"{name}_folds", card)
    add_recorded(runs, {SHA: {"0123"}})
    return tmp_path


def _record(place: Path, name: str, card: dict[str, Any], **changes: Any) -> None:
    weights = {key: card[key] for key in ("architecture", "width", "presence", "pretrained", "masks") if key in card}
    scores: dict[str, Any] = {"lesions": {"dice": SCORE, "cases": 20}, "presence": {"auroc": SCORE}}
    if "classifier" in name:
        scores = {"task": "classification", "auroc": SCORE, "cases": 20}
    content = {"title": name, "weights": weights, "provenance": {"dataset_sha256": SHA}, **scores, **changes}
    write_json(place / "results" / f"{name}.json", content)


def _ship(place: Path, name: str, *words: str) -> int:
    where = ["--models", str(place / "models"), "--results", str(place / "results")]
    return main([str(place / "runs" / f"{name}.pt"), "--cross_validated_by", f"{name}_folds", *where, *words])


def test_new_weights_take_the_plain_names_and_the_former_ones_stay_a_set(place: Path, small_phantom: Path) -> None:
    former = sha256_of(place / "models/model.pt")
    assert _ship(place, "model", "--keep_former_as", "paper") == 0
    assert _ship(place, "model_classifier") == 0
    models = place / "models"
    assert sha256_of(models / "paper_model.pt") == former
    assert sha256_of(models / "model.pt") == sha256_of(place / "runs/model.pt")
    image = small_phantom / "benign/benign (1).png"
    new, old = (Predictor.from_folder(folder, "cpu") for folder in (models, models / "paper"))
    assert isinstance(new.segmenter, LiteUNet)
    assert isinstance(old.segmenter, UNet)
    assert old.predict(image).models["segmenter"] == former
    # A cross-fitted classifier has seen the masks of the folds' segmenters; it is shipped with one of their recipe.
    assert not [warning for warning in new.predict(image).warnings if "another segmenter" in warning]
    assert read_recorded(models)[SHA] == {"0123"}


def test_findings_by_the_small_segmenter_say_that_the_classifier_never_saw_its_masks(
    place: Path, small_phantom: Path, write_lite_models: Callable[..., Path]
) -> None:
    runs = write_lite_models(place / "small", presence_bias=4.0)
    write_json(runs / "model.json", {**read_json(runs / "model.json"), "dataset_sha256": SHA})
    add_recorded(runs, {SHA: {"0123"}})
    where = ["--models", str(place / "models"), "--results", str(place / "results")]
    assert main([str(runs / "model.pt"), "--cross_validated_by", "model_folds", "--small", *where]) == 0
    assert _ship(place, "model") == _ship(place, "model_classifier") == 0
    image = small_phantom / "benign/benign (1).png"
    for small in (False, True):
        finding = Predictor.from_folder(place / "models", "cpu", small=small).predict(image)
        assert any("another segmenter" in warning for warning in finding.warnings) == small


def test_the_card_says_how_good_networks_of_the_recipe_are_on_images_that_they_never_saw(place: Path) -> None:
    card = read_json(place / "runs/model.json")
    _record(place, "new_hospital", card, datasets={"there": {"lesions": {"dice": SCORE, "cases": 3}}})
    assert _ship(place, "model", "--left_out", "new_hospital") == 0
    shipped = json.loads((place / "models/model.json").read_text())
    assert shipped["cross_validated_by"] == "model_folds"
    assert shipped["cross_validated"]["dice"] == {"all": SCORE}
    assert shipped["cross_validated"]["presence_auroc"] == {"all": SCORE}
    assert shipped["tested_elsewhere"]["new_hospital"]["dice"]["there"] == SCORE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"provenance": {"dataset_sha256": "cd" * 32}}, "is of other data"),
        ({"weights": {"architecture": "UNet"}}, "another architecture"),
        ({"synthetic": True}, "SYNTHETIC"),
    ],
)
def test_figures_of_something_else_are_refused_in_one_line_and_nothing_moves(
    changes: dict[str, Any], told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in (place / "models").iterdir())
    _record(place, "model_folds", read_json(place / "runs/model.json"), **changes)
    assert _ship(place, "model", "--keep_former_as", "paper") == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in (place / "models").iterdir()) == before


def test_the_figures_on_the_shipped_cards_are_those_of_their_records(root: Path) -> None:
    told = 0
    for file in sorted((root / "models").glob("*.json")):
        card = json.loads(file.read_text())
        named = {card["cross_validated_by"]: card["cross_validated"]} if "cross_validated_by" in card else {}
        for name, figures in {**named, **card.get("tested_elsewhere", {})}.items():
            record = json.loads((root / "docs" / "results" / f"{name}.json").read_text())
            score, wanted = ("auroc", record) if "auroc" in figures else ("dice", record["lesions"])
            assert figures[score]["all"] == wanted[score], f"{file.name}: {name} was recorded anew; ship it again"
            told += 1
    assert told >= 4
