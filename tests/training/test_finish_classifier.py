# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.finish_classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from scipy.special import expit

from bundle.errors import UserError
from bundle.evaluation.classification import choose_operating_points, fit_temperature
from bundle.evaluation.conformal import fit_conformal
from bundle.networks.inferers import AutocastInferer
from bundle.networks.weights import load_tensors, save_atomically
from bundle.training import Checkpoint, PrepareBatch, finish_classification
from bundle.training.checkpoint import BEST
from bundle.transforms import FEATURES

LOGITS = (-6.0, -2.0, 1.0, -1.0, 3.0, 8.0)
LABELS = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
SETTINGS = {"filters": [2, 4], "variant": "crop", "masks": "predicted"}
DATALIST = {"name": "noise", "training": [1, 2, 3, 4], "dataset_sha256": "ab" * 32, "synthetic": False}


class Mean(torch.nn.Module):
    """A network of one weight: the logit is the image's mean times it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image.mean(dim=(1, 2, 3)) * self.weight)[:, None]


def _features(label: float) -> torch.Tensor:
    """Features of which the first is the class."""
    return torch.tensor([label, *[0.0] * (len(FEATURES) - 1)])


@dataclass
class Run:
    """A finished run: a folder with its best epoch, and its validation batches."""

    folder: Path
    labels: Sequence[float] = LABELS
    outlined: Sequence[int] = (1,) * 6
    best: float | None = 1.0
    network: Mean = field(default_factory=Mean)

    def finish(
        self, publish_to: Path | None = None, keep: str = "best", described: Any = None, **datalist: Any
    ) -> dict[str, Any]:
        """Call the last step and return the card."""
        self.network.weight.data[:] = 5.0  # what the last epoch left
        self.folder.mkdir(exist_ok=True)
        if self.best is not None:
            save_atomically({"weight": torch.tensor([self.best])}, self.folder / BEST)
        checkpoint = Checkpoint(self.folder, Engine(lambda *_: None), self.network, {}, metric="val_auroc")
        checkpoint.best_score, checkpoint.best_epoch = 0.875, 12
        images = [torch.full((1, 4, 4), logit) for logit in LOGITS]
        items = list(zip(images, self.labels, self.outlined, strict=True))
        batches = [
            {
                "image": torch.stack([image for image, _, _ in part]),
                "label": torch.tensor([label for _, label, _ in part]),
                "features": torch.stack([_features(label) for _, label, _ in part]),
                "outlined": torch.tensor([outlined for _, _, outlined in part]),
            }
            for part in (items[:4], items[4:])
        ]
        finish_classification(
            checkpoint=checkpoint,
            dataloader=batches,
            prepare_batch=PrepareBatch(),
            inferer=AutocastInferer(amp=False),
            device="cpu",
            settings=SETTINGS,
            datalist={**DATALIST, **datalist},
            publish_to=publish_to,
            keep=keep,
            described=described,
        )
        return json.loads((self.folder / "model_classifier.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def test_the_best_epoch_is_shipped(run: Run) -> None:
    card = run.finish()
    assert load_tensors(run.folder / "model_classifier.pt")["weight"].item() == 1.0
    assert (card["best_epoch"], card["validation"]["best"]) == (12, 0.875)


def test_a_run_that_was_never_validated_ships_its_last_weights(run: Run) -> None:
    run.best = None
    run.finish()
    assert load_tensors(run.folder / "model_classifier.pt")["weight"].item() == 5.0


def test_the_last_epoch_is_shipped_on_request(run: Run) -> None:
    card = run.finish(keep="last")
    assert load_tensors(run.folder / "model_classifier.pt")["weight"].item() == 5.0
    assert card["kept"] == "last"
    with pytest.raises(ValueError, match="best or last"):
        run.finish(keep="first")


def test_features_of_the_training_images_are_fused_and_mend_what_the_network_got_wrong(run: Run) -> None:
    alone = run.finish()
    described = [{"features": _features(label), "label": torch.tensor(label)} for label in (0.0, 1.0) * 5]
    card = run.finish(described=described)
    assert alone["fusion"] is None
    assert card["fusion"]["features"] == list(FEATURES)
    assert card["validation"]["auroc"] == 1.0
    assert alone["validation"]["auroc"] == card["validation"]["auroc_network"] < 1.0


def test_nothing_is_fitted_on_images_that_have_no_outline(run: Run) -> None:
    described = [{"features": _features(label), "label": torch.tensor(label)} for label in (0.0, 1.0) * 5]
    plain = run.finish(described=described)
    astray = {"features": _features(9.0), "label": torch.tensor(0.0), "outlined": 0}
    run.outlined = (1, 1, 1, 1, 1, 0)
    card = run.finish(described=[*described, astray])
    assert card["fusion"]["coefficients"] == plain["fusion"]["coefficients"]
    assert (card["validation"]["images"], card["validation"]["not_outlined"]) == (5, 1)
    assert card["temperature"] != plain["temperature"]


def test_temperature_and_operating_points_come_from_the_validation_images(run: Run) -> None:
    card = run.finish()
    assert card["temperature"] == pytest.approx(fit_temperature(LOGITS, LABELS))
    calibrated = expit(np.array(LOGITS) / card["temperature"])
    points = choose_operating_points(calibrated, LABELS, (0.9, 0.95))
    assert [point["threshold"] for point in card["operating_points"]] == [p["threshold"] for p in points]
    assert card["operating_points"][0]["threshold"] == pytest.approx(expit(-1 / card["temperature"]))
    assert card["conformal"] == fit_conformal(calibrated, LABELS)
    assert card["validation"]["images"] == 6


def test_the_card_holds_what_evaluation_must_repeat_and_where_it_comes_from(run: Run) -> None:
    card = run.finish()
    assert {key: card[key] for key in SETTINGS} == SETTINGS
    assert (card["name"], card["dataset_sha256"], card["training_images"]) == ("noise", "ab" * 32, 4)
    assert "command" in card["provenance"]
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert {**metrics, "sha256": card["sha256"]} == card


def test_weights_are_published_on_request_only(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "models" / "model_classifier.pt"
    run.finish()
    assert not target.parent.exists()
    run.finish(publish_to=target)
    assert target.read_bytes() == (run.folder / "model_classifier.pt").read_bytes()
    assert target.with_suffix(".json").exists()


@pytest.mark.parametrize("datalist", [{"synthetic": True}, {"masks": "oracle"}])
def test_synthetic_and_oracle_weights_are_never_published(
    run: Run, datalist: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.finish(publish_to=tmp_path / "models" / "model_classifier.pt", **datalist)
    assert not (tmp_path / "models").exists()
    assert "not published" in caplog.text


def test_validation_without_malignant_cases_is_a_users_mistake(run: Run) -> None:
    run.labels = [0.0] * 6
    with pytest.raises(UserError, match="no validation case is malignant"):
        run.finish()
