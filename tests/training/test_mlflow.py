# SPDX-License-Identifier: Apache-2.0
"""Claims about ``--tracking mlflow``: the run is recorded, and nothing of an image or its header is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from PIL import Image, PngImagePlugin

from bundle.data.phantom import make_phantom

mlflow = pytest.importorskip("mlflow", reason="needs mlflow (requirements-tracking.txt)")

pytestmark = pytest.mark.slow

PATIENT = "Doe^Jane"
SMALL = {"max_epochs": 2, "filters": [4, 8], "spatial_size": [48, 64], "batch_size": 4, "split": "50:25:25"}


@pytest.fixture(scope="module")
def tracked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training and an evaluation that were tracked, on images whose header names a patient."""
    folder = tmp_path_factory.mktemp("tracked")
    counts = {"benign": 8, "malignant": 6, "normal": 2}
    make_phantom(folder / "data", counts=counts, size_range=((60, 80), (90, 120)))
    header = PngImagePlugin.PngInfo()
    header.add_text("PatientName", PATIENT)
    for path in (folder / "data").rglob("*.png"):
        Image.open(path).copy().save(path, pnginfo=header)
    given = {"dataset_dir": str(folder / "data"), "prepared_dir": str(folder / "prepared")}
    given |= {"output_dir": str(folder / "run"), "bundle_root": str(root), "logging_file": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, more in (("train", SMALL), ("evaluate", {})):
            config = str(root / "configs" / f"{name}.json")
            monai.bundle.run(config_file=config, tracking="mlflow", run_name=name, **given, **more)
    return folder


def _runs(folder: Path) -> dict[str, Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'run' / 'mlruns.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "monai_experiment"]
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def _texts(database: Path) -> Iterator[str]:
    """Every value of every table."""
    connection = sqlite3.connect(database)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        for row in connection.execute(f'SELECT * FROM "{table}"'):
            yield from map(str, row)
    connection.close()


def test_training_and_evaluation_are_recorded(tracked: Path) -> None:
    runs = _runs(tracked)
    assert {"train_loss", "lr_group_0", "val_mean_dice", "val_loss"} <= runs["train"].data.metrics.keys()
    assert runs["train"].data.params["max_epochs"] == "2"
    scores = runs["evaluate"].data.metrics
    assert {"mean_dice", "mean_dice_low", "mean_dice_high", "background_accuracy"} <= scores.keys()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_nothing_of_an_image_or_its_header_is_recorded(tracked: Path) -> None:
    runs = _runs(tracked)
    assert set(runs["train"].data.params) | set(runs["evaluate"].data.params) == {"max_epochs", "epoch_length"}
    assert all(not run.inputs.dataset_inputs for run in runs.values())
    texts = list(_texts(tracked / "run" / "mlruns.db"))
    assert "train" in texts  # the run's name: the search sees what is there
    assert not [text for text in texts if PATIENT in text or "PatientName" in text or ".png" in text]
    written = [path for path in (tracked / "run").rglob("*") if path.suffix in (".json", ".yaml", ".db")]
    assert not [path for path in written if PATIENT.encode() in path.read_bytes()]
