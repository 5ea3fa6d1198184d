# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.finish."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from PIL import Image

from bundle.errors import UserError
from bundle.evaluation.segmentation import THRESHOLDS
from bundle.networks import UNet
from bundle.networks.inferers import AutocastInferer
from bundle.networks.weights import load_tensors, load_weights
from bundle.training import PrepareBatch, finish_segmentation
from bundle.training.checkpoint import BEST, LAST

SETTINGS = {"filters": [2, 4], "spatial_size": [8, 12]}
DATALIST = {"name": "noise", "training": [1, 2, 3], "dataset_sha256": "ab" * 32, "synthetic": False}


def _finish(run: Any, publish_to: Path | None = None, **datalist: Any) -> None:
    finish_segmentation(
        checkpoint=run.checkpoint,
        dataloader=run.evaluator.data_loader,
        prepare_batch=PrepareBatch(),
        inferer=AutocastInferer(amp=False),
        device="cpu",
        settings=SETTINGS,
        datalist={**DATALIST, **datalist},
        publish_to=publish_to,
    )


@pytest.fixture
def run(make_run: Callable[..., Any], tmp_path: Path) -> Any:
    made = make_run(tmp_path / "run", max_epochs=3, scores=[0.1, 0.6, 0.3])
    made.trainer.run()
    return made


def test_the_best_epoch_is_restored_and_shipped(run: Any, tmp_path: Path) -> None:
    _finish(run)
    folder, network = tmp_path / "run", UNet(filters=(2, 4))
    card = load_weights(network, folder / "model.pt")
    best, last = load_tensors(folder / BEST), load_tensors(folder / LAST)["state"]["ema"]["network"]
    shipped = network.state_dict()
    assert all(torch.equal(shipped[key], best[key]) for key in best)
    assert not all(torch.equal(shipped[key], last[key]) for key in best)
    assert card["best_epoch"] == 2


def test_the_card_holds_what_evaluation_must_repeat_and_where_it_comes_from(run: Any, tmp_path: Path) -> None:
    _finish(run)
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert {key: card[key] for key in SETTINGS} == SETTINGS
    assert any(np.isclose(card["threshold"], THRESHOLDS))
    assert (card["name"], card["dataset_sha256"], card["training_images"]) == ("noise", "ab" * 32, 3)
    assert (card["validation"]["metric"], card["validation"]["best"]) == ("val_mean_dice", 0.6)
    assert card["validation"]["images"] == 3
    assert 0 < card["validation"]["mean_dice_at_threshold"] <= 1
    assert "command" in card["provenance"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {**metrics, "sha256": card["sha256"]} == card


def test_the_card_says_below_which_confidence_an_outline_is_doubtful(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _finish(run)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["doubtful_below"] is None  # of three images
    monkeypatch.setattr("bundle.evaluation.uncertainty.FEWEST", 1)
    _finish(run)
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["threshold"] <= card["doubtful_below"] <= 1


def test_the_limit_of_no_lesion_spares_the_lesions_of_the_smaller_dataset(tmp_path: Path) -> None:
    class Told(torch.nn.Module):
        """The grey level is the logit of the map, and the highest one that of the head."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image, image.amax(dim=(2, 3), keepdim=True).expand_as(image)], dim=1)

    def record(logit: float, dataset: str) -> dict[str, Any]:
        return {"image": torch.full((1, 4, 4), logit), "label": torch.ones(1, 4, 4), "dataset": dataset}

    records = [record(2 + number / 100, "many") for number in range(40)] + [record(1.0, "few"), record(1.5, "few")]
    finish_segmentation(
        checkpoint=SimpleNamespace(
            **{"folder": tmp_path, "network": Told(), "best_epoch": 1, "best_score": 0.5, "metric": "dice"},
            continued=None,
        ),
        dataloader=DataLoader(CacheDataset(records, lambda item: item, progress=False), batch_size=8),
        prepare_batch=lambda batch, device: (batch["image"], batch["label"]),
        inferer=AutocastInferer(amp=False),
        device="cpu",
        settings={},
        datalist=DATALIST,
    )
    points = json.loads((tmp_path / "model.json").read_text())["presence_points"]
    assert points["none_below"] == pytest.approx(1 / (1 + math.exp(-1.0)))


def test_examples_are_drawn(run: Any, tmp_path: Path) -> None:
    _finish(run)
    with Image.open(tmp_path / "run" / "examples.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 5


def test_weights_are_published_on_request_only(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "models" / "model.pt"
    _finish(run)
    assert not target.parent.exists()
    _finish(run, publish_to=target)
    assert target.read_bytes() == (tmp_path / "run" / "model.pt").read_bytes()
    assert target.with_suffix(".json").exists()


def test_weights_of_the_phantom_are_never_published(run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _finish(run, publish_to=tmp_path / "models" / "model.pt", synthetic=True)
    assert not (tmp_path / "models").exists()
    assert "SYNTHETIC" in caplog.text
    assert json.loads((tmp_path / "run" / "model.json").read_text())["synthetic"] is True


def test_a_run_that_was_never_validated_ships_its_last_weights(make_run: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=1, val_interval=5)
    run.trainer.run()
    assert not (tmp_path / BEST).exists()
    _finish(run)
    shipped, last = load_tensors(tmp_path / "model.pt"), load_tensors(tmp_path / LAST)["state"]["ema"]["network"]
    assert all(torch.equal(shipped[key], last[key]) for key in last)


def test_validation_without_any_lesion_is_a_users_mistake(run: Any) -> None:
    for item in run.evaluator.data_loader.dataset.data:
        item["label"][:] = 0
    with pytest.raises(UserError, match="lesion"):
        _finish(run)
