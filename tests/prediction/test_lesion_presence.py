# SPDX-License-Identifier: Apache-2.0
"""A segmenter that tells whether there is a lesion: its word reaches every way of using it."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from bundle.prediction import Predictor
from bundle.prediction.backends import _ENGINES
from bundle.release.export import export_networks
from bundle.transforms.lesion import split_presence
from scripts.evaluate_external import main as evaluate_main
from scripts.predict import main as predict_main
from tests.readers.fabricate import save, ultrasound

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def absent(write_lite_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose map outlines much, and whose head tells of no lesion."""
    return write_lite_models(tmp_path_factory.mktemp("absent"), presence_bias=-4.0)


@pytest.fixture(scope="module")
def present(write_lite_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but told that there is one."""
    return write_lite_models(tmp_path_factory.mktemp("present"), presence_bias=4.0)


@pytest.fixture(scope="module")
def image(small_phantom: Path) -> Path:
    return small_phantom / "benign" / "benign (1).png"


def test_the_head_is_asked_with_the_mirror_image_as_the_map_is(present: Path, image: Path) -> None:
    predictor = Predictor.from_folder(present, "cpu", amp=False)
    finding = predictor.predict(image)
    pixels = np.asarray(Image.open(image).convert("L"), np.float32)
    mirrored = predictor.examine(pixels[:, ::-1].copy())[1]
    assert finding.lesion_state in ("found", "doubtful")
    assert finding.lesion_probability is not None
    assert finding.lesion_probability > 0.9
    assert mirrored == pytest.approx(finding.lesion_probability, abs=1e-5)


def test_the_limit_of_the_card_decides_and_nothing_else(
    present: Path, image: Path, write_lite_models: Callable[..., Path], tmp_path: Path
) -> None:
    told = Predictor.from_folder(present, "cpu").predict(image).lesion_probability
    assert told is not None
    strict = write_lite_models(tmp_path / "strict", presence_bias=4.0, none_below=told + 1e-4)
    finding = Predictor.from_folder(strict, "cpu").predict(image)
    assert (finding.lesion_state, finding.lesion_probability) == ("none found", pytest.approx(told))
    assert (finding.probability, finding.box, finding.mask.any()) == (None, None, False)


@pytest.mark.slow  # the conversion
@pytest.mark.parametrize("backend", list(_ENGINES))
def test_every_backend_gives_the_heads_word(backend: str, present: Path, image: Path) -> None:
    for package in _ENGINES[backend][1]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (requirements-backends.txt)")
    expected = Predictor.from_folder(present, "cpu", amp=False).predict(image)
    finding = Predictor.from_folder(present, "cpu", amp=False, backend=backend).predict(image)
    assert finding.lesion_probability == pytest.approx(expected.lesion_probability, abs=1e-4)


def test_exports_hold_the_head_as_the_last_channel(present: Path, tmp_path: Path) -> None:
    entries = export_networks(present, tmp_path, ["torchscript", "safetensors"])
    assert all(entry["ok"] for entry in entries)
    with torch.no_grad():
        said = torch.jit.load(tmp_path / "model.ts")(torch.rand(1, 1, 48, 64)).sigmoid()[0]
    assert said.shape == (2, 48, 64)
    told = split_presence(said)[1]
    assert told is not None
    assert told > 0.9


def test_every_file_says_that_no_lesion_was_found(absent: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120), np.uint8)
    source, output = save(ultrasound(pixels, Manufacturer="ACME"), tmp_path / "a.dcm"), tmp_path / "out"
    kinds = ["json", "csv", "html", "png", "overlay", "nifti", "seg", "sr", "pr", "sc"]
    words = ["--models", str(absent), "--output", str(output), "--device", "cpu", "--write", *kinds]
    assert predict_main([str(source), *words]) == 0
    (finding,) = json.loads((output / "findings.json").read_text())["findings"]
    assert finding["lesion_state"] == "none found"
    assert 0 < finding["lesion_probability"] < 0.1
    assert (finding["probability"], finding["box"], finding["call"]) == (None, None, None)
    with open(output / "findings.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["lesion_state"], row["probability"]) == ("none found", "")
    assert not list(output.rglob("*.seg.dcm"))
    assert not np.asarray(Image.open(next((output / "masks").rglob("*.png")))).any()
    report, state = (_texts(next(output.rglob(f"*.{kind}.dcm"))) for kind in ("sr", "pr"))
    assert "No lesion found" in report
    assert any("less probable than the segmenter's limit" in text for text in report)
    assert not {"Malignant", "Benign"} & set(report)
    assert any("no lesion found" in text.lower() for text in state)
    assert not any("P(malignant)" in text for text in state)
    page = (output / "report.html").read_text()
    assert "<td>none found</td>" in page
    assert "P(lesion)" in page
    assert "P(malignant) 0" not in page


def _texts(file: Path) -> list[str]:
    """What stands anywhere in a DICOM object."""
    return [str(element.value) for element in pydicom.dcmread(file).iterall() if element.VR != "SQ"]


def test_the_configs_say_what_the_predictor_says(
    absent: Path, small_phantom: Path, image: Path, run_bundle: Run, tmp_path: Path
) -> None:
    expected = Predictor.from_folder(absent, "cpu", amp=False).predict(image)
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(image, folder / "a.png")
    common = ["--dataset_dir", folder, "--amp", "false", "--device", "cpu"]
    weights = ["--weights", absent / "model.pt"]
    classifier = absent / "model_classifier.pt"
    maps = ["--config_file", "configs/inference.json", *common, *weights, "--output_dir", tmp_path / "maps"]
    steps = [
        maps,
        [
            *("--config_file", "configs/inference_classifier.json", *common, "--weights", classifier),
            *("--maps_dir", tmp_path / "maps/probabilities", "--output_dir", tmp_path / "two"),
        ],
        [
            *("--config_file", "configs/inference_pipeline.json", *common, *weights),
            *("--classifier_weights", classifier, "--output_dir", tmp_path / "one"),
        ],
    ]
    for words in steps:
        done = run_bundle(*words)
        assert done.returncode == 0, done.stderr[-3000:]
    assert not np.asarray(Image.open(tmp_path / "maps/masks/a.png")).any()
    assert np.asarray(Image.open(tmp_path / "maps/probabilities/a.png")).any()
    for folder, name in ((tmp_path / "two", "predictions"), (tmp_path / "one", "findings")):
        (finding,) = json.loads((folder / f"{name}.json").read_text())[name]
        assert finding["lesion_state"] == "none found"
        assert finding["lesion_probability"] == pytest.approx(expected.lesion_probability, abs=1e-5)
        assert finding["probability"] is None


@pytest.mark.parametrize("lost", [True, False])
def test_an_external_evaluation_scores_a_lost_lesion_as_0_and_tells_what_it_would_have_been(
    lost: bool, absent: Path, present: Path, small_phantom: Path, tmp_path: Path
) -> None:
    models = absent if lost else present
    words = ["--models", str(models), "--device", "cpu", "--output", str(tmp_path), "--draws", "20"]
    assert evaluate_main([str(small_phantom), *words]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    images = metrics["segmentation"]["per_image"]
    free = images["ungated"]["lesions"]["dice"]["estimate"]
    assert free > 0
    assert images["lesions"]["dice"]["estimate"] == (0 if lost else free)
    assert images["presence"]["lost"]["estimate"] == int(lost)
    assert metrics["segmentation"]["per_patient"]["dice"]["estimate"] == pytest.approx(0 if lost else free, abs=0.1)
    rows = [row for row in csv.DictReader((tmp_path / "per_image.csv").read_text().splitlines())]
    assert all(float(row["probability_ungated"]) > 0 for row in rows)
    assert all((float(row["probability"]) == 0) is lost for row in rows)
    if lost:
        assert metrics["classification"]["per_image"]["auroc"]["estimate"] == 0.5
        assert metrics["ungated"]["per_image"]["auroc"]["estimate"] != 0.5
    assert ("ungated" in metrics) is lost
