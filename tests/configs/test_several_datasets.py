# SPDX-License-Identifier: Apache-2.0
"""The whole chain over two datasets at once, with the pretrained networks' architecture, on small phantoms."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.data.phantom import make_phantom
from bundle.networks.lite_unet import PRESENCE_MIX
from bundle.prediction import Predictor
from bundle.reports.pooling import pool_folds

Run = Callable[..., subprocess.CompletedProcess[str]]
TRAIN = "['configs/train.json', 'configs/lite_segmentation.yaml']"
TRAIN_CLASSIFIER = "['configs/train_classifier.json', 'configs/lite_classifier.yaml']"
NETWORK = ["--pretrained", "false", "--width", "0.25"]
SEGMENTER = ["--spatial_size", "[32,32]", "--decoder_channels", "[8,8,8,8,4]", *NETWORK]
CLASSIFIER = ["--spatial_size", "[32,32]", *NETWORK]
EPOCH = ["--max_epochs", "1", "--batch_size", "4"]


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two datasets; one has no normal image."""
    folder = tmp_path_factory.mktemp("several")
    counts = {"first": {"benign": 8, "malignant": 8, "normal": 4}, "second": {"benign": 8, "malignant": 8}}
    for seed, (name, count) in enumerate(counts.items()):
        make_phantom(folder / name, counts=count, seed=seed, size_range=((48, 60), (48, 60)))
    return folder


def _sets(folder: Path) -> list[str]:
    return ["--dataset_dir", str([str(folder / "first"), str(folder / "second")])]


@pytest.fixture(scope="module")
def segmented(folder: Path, run_bundle: Run) -> Path:
    """Two folds of a segmenter, trained, evaluated, with the maps of what each never saw."""
    for fold in range(2):
        run = folder / f"run_fold{fold}"
        given = [*_sets(folder), "--prepared_dir", str(folder / f"prepared_fold{fold}"), "--output_dir", str(run)]
        words = [*given, "--split", f"fold {fold} of 2", *SEGMENTER, *EPOCH]
        done = run_bundle("training", "--config_file", TRAIN, *words)
        assert done.returncode == 0, done.stderr[-3000:]
        words = [*given, "--maps_dir", str(run / "predictions")]
        done = run_bundle("--config_file", "configs/evaluate.json", *words)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def classified(segmented: Path, run_bundle: Run) -> Path:
    """Two folds of a classifier on these maps."""
    for fold in range(2):
        given = [*_sets(segmented), "--output_dir", str(segmented / f"class_fold{fold}")]
        given += ["--segmentation_dir", str(segmented / "run"), "--prepared_dir", str(segmented / "prepared")]
        words = [*given, "--folds", "2", "--split", f"fold {fold} of 2", *CLASSIFIER, *EPOCH]
        done = run_bundle("training", "--config_file", TRAIN_CLASSIFIER, *words)
        assert done.returncode == 0, done.stderr[-3000:]
        done = run_bundle("--config_file", "configs/evaluate_classifier.json", *given)
        assert done.returncode == 0, done.stderr[-3000:]
    return segmented


def test_the_card_names_the_architecture_the_datasets_and_the_presence_limit(segmented: Path) -> None:
    card = _read(segmented / "run_fold0" / "model.json")
    told = {key: card[key] for key in ("architecture", "width", "presence", "pretrained")}
    assert told == {"architecture": "LiteUNet", "width": 0.25, "presence": True, "pretrained": False}
    assert not {"filters", "context", "batch_norm"} & set(card)
    assert set(card["datasets"]) == {"first", "second"}
    assert 0 <= card["presence_points"]["none_below"] <= 1
    assert card["presence_mix"] == list(PRESENCE_MIX)
    assert card["name"] == "first+second"


def test_an_evaluation_tells_each_dataset_and_the_presence_of_lesions(segmented: Path) -> None:
    metrics = _read(segmented / "run_fold0" / "evaluation" / "metrics.json")
    assert {name: part["lesions"]["cases"] for name, part in metrics["datasets"].items()} == {"first": 8, "second": 8}
    assert metrics["datasets"]["first"]["normals"]["cases"] == metrics["presence"]["without"] == 2
    assert metrics["lesions"]["dice"]["estimate"] <= metrics["ungated"]["lesions"]["dice"]["estimate"]
    with open(segmented / "run_fold0" / "evaluation" / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"].split("/")[0] for row in rows} == {row["dataset"] for row in rows} == {"first", "second"}
    assert all(0 <= float(row["presence"]) <= 1 for row in rows)


def test_each_image_has_one_map_and_it_is_of_the_fold_that_never_saw_it(segmented: Path) -> None:
    maps = [
        {path.relative_to(root).as_posix() for path in root.rglob("*.png")}
        for root in (segmented / f"run_fold{fold}" / "predictions" / "probabilities" for fold in range(2))
    ]
    assert not maps[0] & maps[1]
    assert len(maps[0] | maps[1]) == 36
    for fold in range(2):
        tested = _read(segmented / f"prepared_fold{fold}" / "datalist_segmentation.json")
        assert maps[fold] == {record["image"] for part in ("test", "test_normal") for record in tested[part]}


def test_segmenters_of_two_folds_are_pooled_by_dataset(segmented: Path, tmp_path: Path) -> None:
    metrics = pool_folds([segmented / f"run_fold{fold}" for fold in range(2)], tmp_path)
    assert metrics["lesions"]["cases"] == 32
    assert {name: part["lesions"]["cases"] for name, part in metrics["datasets"].items()} == {"first": 16, "second": 16}
    assert metrics["presence"]["without"] == 4
    assert metrics["weights"]["architecture"] == "LiteUNet"


def test_classifiers_on_cross_fitted_maps_are_scored_and_pooled_by_dataset(classified: Path, tmp_path: Path) -> None:
    card = _read(classified / "class_fold0" / "model_classifier.json")
    assert (card["architecture"], card["in_channels"], card["margin"]) == ("LiteSegNet", 2, 0.35)
    assert set(card["datasets"]) == {"first", "second"}
    metrics = _read(classified / "class_fold0" / "evaluation" / "metrics.json")
    assert {name: part["cases"] for name, part in metrics["datasets"].items()} == {"first": 8, "second": 8}
    pooled = pool_folds([classified / f"class_fold{fold}" for fold in range(2)], tmp_path)
    assert {name: part["cases"] for name, part in pooled["datasets"].items()} == {"first": 16, "second": 16}


def test_both_networks_predict_by_their_cards_alone(classified: Path) -> None:
    predictor = Predictor(classified / "run_fold0/model.pt", classified / "class_fold0/model_classifier.pt", "cpu")
    image = classified / "first/benign/benign (1).png"
    finding = predictor.predict(image)
    assert finding.probability_map.shape == np.asarray(Image.open(image)).shape
    assert finding.probability is None or 0 <= finding.probability <= 1


def test_a_left_out_dataset_is_the_test_of_a_training_on_the_others(
    folder: Path, run_bundle: Run, tmp_path: Path
) -> None:
    given = [*_sets(folder), "--leave_out_dataset", "second", "--prepared_dir", str(tmp_path / "prepared")]
    words = [*given, "--output_dir", str(tmp_path / "run"), *SEGMENTER, *EPOCH]
    done = run_bundle("training", "--config_file", TRAIN, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    card = _read(tmp_path / "run" / "model.json")
    assert card["split"] == "leave out second"
    datalist = _read(tmp_path / "prepared" / "datalist_segmentation.json")
    assert {record["dataset"] for record in datalist["test"]} == {"second"}
    assert card["training_images"] == len(datalist["training"])


def test_inference_takes_several_folders(segmented: Path, run_bundle: Run, tmp_path: Path) -> None:
    words = ["--weights", str(segmented / "run_fold0/model.pt"), "--output_dir", str(tmp_path)]
    done = run_bundle("--config_file", "configs/inference.json", *_sets(segmented), *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "probabilities/first").rglob("*.png"))) == 20
    assert len(list((tmp_path / "probabilities/second").rglob("*.png"))) == 16
