# SPDX-License-Identifier: Apache-2.0
"""The classification configs, run as users run them, on a small phantom: segmenter, maps, classifier, findings."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from scipy.special import logit

from bundle.data.names import MAPS_RECORD
from bundle.data.phantom import make_phantom
from bundle.evaluation.classification import choose_operating_points, fit_temperature
from bundle.networks import SegNet
from bundle.networks.weights import read_card
from bundle.outputs.findings import write_pictures
from bundle.prediction import Predictor

Run = Callable[..., subprocess.CompletedProcess[str]]
TRAIN, EVALUATE = "configs/train_classifier.json", "configs/evaluate_classifier.json"
PIPELINE, CLASSIFY = "configs/inference_pipeline.json", "configs/inference_classifier.json"
SMALL = ["--max_epochs", "2", "--spatial_size", "[32, 32]", "--filters", "[4, 8]", "--batch_size", "4"]
SMALL += ["--architecture", "SegNet"]
# The sum of a bfloat16 convolution depends on the batch, and may move a level of the 8-bit map.
EXACT = ["--amp", "false"]
SPLIT = ["--split", "45:25:30"]


@dataclass(frozen=True)
class Chain:
    """The folders of a segmenter that was trained and has segmented the whole phantom."""

    folder: Path

    @property
    def dataset(self) -> Path:
        return self.folder / "phantom"

    @property
    def segmentation(self) -> Path:
        return self.folder / "segmentation"

    @property
    def maps(self) -> Path:
        return self.segmentation / "predictions" / "probabilities"

    @property
    def output(self) -> Path:
        return self.folder / "classification"

    def words(self, output: Path | None = None) -> list[str]:
        """What training and evaluation of the classifier are told."""
        return [
            *("--dataset_dir", str(self.dataset), "--segmentation_dir", str(self.segmentation)),
            *("--prepared_dir", str(self.folder / "prepared"), "--output_dir", str(output or self.output)),
        ]

    def rows(self, part: str) -> dict[str, dict[str, str]]:
        """The table of an evaluation, by image."""
        with open(self.output / part / "per_image.csv", newline="") as file:
            return {row["image"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory, run_bundle: Run) -> Chain:
    chain = Chain(tmp_path_factory.mktemp("chain"))
    make_phantom(chain.dataset, counts={"benign": 22, "malignant": 18}, size_range=((60, 80), (70, 100)))
    done = run_bundle(
        *("training", "--config_file", "configs/train.json", "--dataset_dir", chain.dataset, "--split", "20:10:70"),
        *("--prepared_dir", chain.folder / "prepared", "--output_dir", chain.segmentation),
        *("--max_epochs", "2", "--spatial_size", "[48, 64]", "--filters", "[4, 8]", "--batch_size", "4"),
        *("--architecture", "UNet"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    done = run_bundle(
        *("--config_file", "configs/inference.json", "--dataset_dir", chain.dataset),
        *("--weights", chain.segmentation / "model.pt", "--output_dir", chain.segmentation / "predictions"),
        *EXACT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return chain


@pytest.fixture(scope="module")
def trained(segmented: Chain, run_bundle: Run) -> Chain:
    done = run_bundle("training", "--config_file", TRAIN, *segmented.words(), *SPLIT, *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SYNTHETIC" in done.stderr
    return segmented


@pytest.fixture(scope="module")
def evaluated(trained: Chain, run_bundle: Run) -> Chain:
    for part in ("test", "validation"):
        done = run_bundle("--config_file", EVALUATE, *trained.words(), "--part", part, *EXACT)
        assert done.returncode == 0, done.stderr[-3000:]
    return trained


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_training_leaves_weights_and_a_card_of_what_it_did(trained: Chain) -> None:
    card = _read(trained.output / "model_classifier.json")
    assert card["synthetic"] is True
    assert (card["masks"], card["filters"], card["spatial_size"]) == ("predicted", [4, 8], [32, 32])
    # The split that the images really come from, though only the prepared folder named it.
    assert (card["segmentation_split"], card["segmentation_split_seed"]) == ("20:10:70", 0)
    assert card["segmenter_sha256"] == [_read(trained.segmentation / "model.json")["sha256"]]
    assert card["mask_threshold"] == _read(trained.segmentation / "model.json")["threshold"]
    network = SegNet(2, filters=[4, 8], decoder=False, batch_norm=True, standardize=True)
    network.load_state_dict(torch.load(trained.output / "model_classifier.pt", weights_only=True))
    history = _read(trained.output / "history.json")
    assert {"train_loss", "train_f1", "val_auroc", "val_loss"} <= history.keys()


def test_training_on_the_phantom_never_touches_the_shipped_classifier(trained: Chain, root: Path) -> None:
    assert read_card(root / "models" / "model_classifier.pt").get("synthetic", False) is False


def test_only_images_that_the_segmenter_never_saw_are_used_once_each(trained: Chain) -> None:
    segmentation = _read(trained.folder / "prepared" / "datalist_segmentation.json")
    datalist = _read(trained.output / "datalist_classifier.json")
    used = [record["image"] for part in ("training", "validation", "test") for record in datalist[part]]
    assert sorted(used) == sorted(record["image"] for record in segmentation["test"])
    groups = [{record["group"] for record in datalist[part]} for part in ("training", "validation", "test")]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_only_the_training_part_is_oversampled(trained: Chain, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(root)
    parser = ConfigParser(ConfigParser.load_config_file(TRAIN))
    datalist = _read(trained.output / "datalist_classifier.json")
    majority = [record for record in datalist["training"] if record["class"] == "benign"]
    parser["datalist"] = {**datalist, "training": [*majority, datalist["training"][-1]]}
    sampled = parser.get_parsed_content("training_records")
    assert sum(record["class"] == "malignant" for record in sampled) == len(majority)
    assert parser["train#dataset#data"] == "@training_records"
    assert parser["validate#dataset#data"] == "$@datalist['validation']"


def test_evaluation_tests_the_test_part_with_what_was_fitted_on_validation(evaluated: Chain) -> None:
    datalist, card = (_read(evaluated.output / name) for name in ("datalist_classifier.json", "model_classifier.json"))
    for part, folder in (("test", "evaluation"), ("validation", "evaluation_validation")):
        assert evaluated.rows(folder).keys() == {record["image"] for record in datalist[part]}
    validation = evaluated.rows("evaluation_validation").values()
    logits, labels, calibrated = (
        np.array([float(row[key]) for row in validation]) for key in ("logit", "label", "probability")
    )
    assert card["fusion"]["network_temperature"] == pytest.approx(fit_temperature(logits, labels), rel=0.01)
    assert card["temperature"] == pytest.approx(
        fit_temperature(card["temperature"] * logit(calibrated), labels), rel=0.01
    )
    points = choose_operating_points(calibrated, labels)
    for ours, recorded in zip(points, card["operating_points"], strict=True):
        assert recorded["threshold"] == pytest.approx(ours["threshold"], abs=1e-3)
    for part, folder in (("test", "evaluation"), ("validation", "evaluation_validation")):
        report = (evaluated.output / folder / "report.html").read_text(encoding="utf-8")
        assert ("These numbers are no test" in report) is (part != "test")
        assert str(evaluated.folder) not in report
    metrics = _read(evaluated.output / "evaluation" / "metrics.json")
    assert metrics["cases"] == len(datalist["test"])
    assert (metrics["synthetic"], metrics["masks"]) == (True, "predicted")
    used = [point["threshold"] for point in metrics["operating_points"].values()]
    assert used == [0.5, *(point["threshold"] for point in card["operating_points"])]


def test_evaluation_pipeline_and_predictor_say_the_same(evaluated: Chain, tmp_path: Path, run_bundle: Run) -> None:
    rows = evaluated.rows("evaluation")
    for name in rows:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(evaluated.dataset / name, tmp_path / "images" / name)
    broken = tmp_path / "images" / "broken.png"
    broken.write_bytes(b"")
    segmenter, classifier = evaluated.segmentation / "model.pt", evaluated.output / "model_classifier.pt"
    done = run_bundle(
        *("--config_file", PIPELINE, "--dataset_dir", tmp_path / "images", "--output_dir", tmp_path / "out"),
        *("--weights", segmenter, "--classifier_weights", classifier, "--batch_size", "3", "--explain", "true"),
        *EXACT,
    )
    assert done.returncode == 3, done.stderr[-3000:]
    assert "broken.png" in done.stderr
    content = _read(tmp_path / "out" / "findings.json")
    findings = {finding["image"]: finding for finding in content["findings"]}
    assert findings.keys() == rows.keys()
    assert [bad["path"] for bad in content["skipped"]] == ["broken.png"]
    predictor = Predictor(segmenter, classifier, "cpu", amp=False, explain=True)
    for name, row in rows.items():
        image = evaluated.dataset / name
        finding = predictor.predict(image)
        for key in ("probability", "probability_raw"):
            assert getattr(finding, key) == pytest.approx(float(row[key]), abs=1e-5)
            assert findings[name][key] == pytest.approx(float(row[key]), abs=1e-5)
        assert findings[name]["box"] == list(finding.box)
        assert any("SYNTHETIC" in warning for warning in findings[name]["warnings"])
        write_pictures(finding, Path(name), tmp_path / "predictor")
        for kind in ("overlays", "explanations"):
            drawn, expected = (
                np.asarray(Image.open(tmp_path / by / kind / name)).astype(int) for by in ("out", "predictor")
            )
            assert drawn.shape[:2] == finding.size
            assert np.abs(drawn - expected).mean() < 0.1


def test_classification_alone_says_the_same_as_the_evaluation(
    evaluated: Chain, tmp_path: Path, run_bundle: Run
) -> None:
    rows = evaluated.rows("evaluation")
    without_map, *others = sorted(rows)
    maps = tmp_path / "segmented" / "probabilities"
    for name in others:
        for source, target in ((evaluated.dataset, tmp_path / "images"), (evaluated.maps, maps)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
    shutil.copy(evaluated.maps.parent / MAPS_RECORD, maps.parent / MAPS_RECORD)
    (tmp_path / "images" / without_map).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(evaluated.dataset / without_map, tmp_path / "images" / without_map)
    done = run_bundle(
        *("--config_file", CLASSIFY, "--dataset_dir", tmp_path / "images", "--maps_dir", maps),
        *("--weights", evaluated.output / "model_classifier.pt", "--output_dir", tmp_path / "out", *EXACT),
    )
    assert done.returncode == 3, done.stderr[-3000:]
    assert f"its probability map {without_map} is missing" in done.stderr
    content = _read(tmp_path / "out" / "predictions.json")
    assert [bad["path"] for bad in content["skipped"]] == [without_map]
    assert str(tmp_path) not in json.dumps(content)
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        table = {row["image"]: row for row in csv.DictReader(file)}
    predictions = {prediction["image"]: prediction for prediction in content["predictions"]}
    assert predictions.keys() == table.keys() == set(others)
    shas = {
        "segmenter": _read(evaluated.segmentation / "model.json")["sha256"],
        "classifier": _read(evaluated.output / "model_classifier.json")["sha256"],
    }
    for name, prediction in predictions.items():
        for key in ("probability", "probability_raw"):
            assert prediction[key] == pytest.approx(float(rows[name][key]), abs=1e-5)
            assert float(table[name][key]) == prediction[key]
        assert prediction["models"] == shas
        assert "not a medical device" in prediction["notice"]
        assert [table[name][f"decision at {point}"] for point in prediction["decisions"]] == [
            "malignant" if prediction["probability"] >= point["threshold"] else "benign"
            for point in prediction["decisions"].values()
        ]
        assert [warning[:9] for warning in prediction["warnings"] if "region" not in warning] == ["SYNTHETIC"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.json", "predictions.csv"}


def test_maps_of_an_unknown_segmenter_are_classified_with_a_warning(
    evaluated: Chain, tmp_path: Path, run_bundle: Run
) -> None:
    shutil.copytree(evaluated.maps, tmp_path / "maps" / "probabilities")
    done = run_bundle(
        *("--config_file", CLASSIFY, "--dataset_dir", evaluated.dataset),
        *("--maps_dir", tmp_path / "maps" / "probabilities", "--output_dir", tmp_path / "out"),
        *("--weights", evaluated.output / "model_classifier.pt"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for prediction in _read(tmp_path / "out" / "predictions.json")["predictions"]:
        assert prediction["models"]["segmenter"] is None
        assert any("not known which segmenter" in warning for warning in prediction["warnings"])


@pytest.mark.parametrize("config", [PIPELINE, CLASSIFY, "configs/inference.json"])
def test_results_among_the_images_are_a_users_mistake(config: str, segmented: Chain, run_bundle: Run) -> None:
    output = segmented.dataset / "out"
    done = run_bundle("--config_file", config, "--dataset_dir", segmented.dataset, "--output_dir", output)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "lies inside" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_pipeline_without_a_classifier_is_a_users_mistake(segmented: Chain, tmp_path: Path, run_bundle: Run) -> None:
    done = run_bundle(
        *("--config_file", PIPELINE, "--dataset_dir", segmented.dataset, "--output_dir", tmp_path / "out"),
        *("--weights", segmented.segmentation / "model.pt", "--classifier_weights", tmp_path / "none.pt"),
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert "none.pt: no such weights; name a file of weights" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_ground_truth_needs_a_folder_named_oracle(segmented: Chain, tmp_path: Path, run_bundle: Run) -> None:
    words = [*segmented.words(tmp_path / "run"), "--masks", "oracle", *SPLIT, *SMALL]
    done = run_bundle("training", "--config_file", TRAIN, *words)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "contains 'oracle'" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "datalist_classifier.json").exists()


def test_paper_recipe_trains_on_oracle_masks_in_a_folder_named_so(
    segmented: Chain, tmp_path: Path, run_bundle: Run
) -> None:
    files = f"['{TRAIN}', 'configs/paper_classifier.yaml']"
    words = [*segmented.words(tmp_path / "oracle"), "--masks", "oracle", *SPLIT, *SMALL]
    done = run_bundle("training", "--config_file", files, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ORACLE masks" in done.stderr
    card = _read(tmp_path / "oracle" / "model_classifier.json")
    assert (card["masks"], card["variant"], card["in_channels"]) == ("oracle", "masked", 1)
    assert (card["decoder"], card["batch_norm"], card["segmenter_sha256"]) == (True, False, [])
    assert (card["fusion"], card["kept"]) == (None, "best")
    assert card["validation"]["metric"] == "val_loss"


@pytest.mark.parametrize("row", [1, 2, 3])
def test_paper_rows_have_their_filters_and_rates(row: int, root: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_files([root / TRAIN, root / "configs/paper_classifier.yaml"]))
    parser["row"] = row
    filters = {1: [16, 32, 64, 64], 2: [16, 32, 64, 64], 3: [32, 64, 128, 256]}
    assert parser.get_parsed_content("filters") == filters[row]
    assert parser.get_parsed_content("learning_rate") == {1: 1e-4, 2: 1e-5, 3: 1e-5}[row]
    network = parser.get_parsed_content("network_def")
    assert network.dropout.p == 0.5
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert len(network.decoder) == 4
