# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.benchmarks.dictionary and scripts/benchmark.py dictionary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from bundle.benchmarks import training
from bundle.benchmarks.dictionary import OURS, THEIRS, counterpart, measure_dictionary
from bundle.errors import UserError
from bundle.transforms import BatchAugmentation
from scripts.benchmark import main

SMALL = ["--quick", "--spatial_size", "32", "48", "--filters", "4", "8", "--batch_size", "2"]


def _parser(root: Path, **overrides: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(root / "configs" / "train.json")
    parser.update({"spatial_size": [64, 96], **overrides})
    return parser


def test_both_train_the_same_network_and_the_ratio_is_that_of_the_medians(tmp_path: Path) -> None:
    words = ["dictionary", *SMALL, "--precision", "float32", "--workers", "1", "--output", str(tmp_path / "out.json")]
    assert main(words) == 0
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    ours, theirs = (run["images_per_second"] for run in content["runs"])
    assert content["ratio"] == pytest.approx(ours / theirs)
    assert len(content["rounds"]) == 2
    assert ours == pytest.approx(sum(entry[OURS] for entry in content["rounds"]) / 2)
    settings = content["settings"]
    assert (settings["precision"], settings["batch_size"], settings["workers"]) == ("float32", 2, 1)
    assert settings["transforms"][:2] == ["Rand2DElasticd", "RandFlipd"]


def test_a_slow_handler_of_ours_slows_ours_alone(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    now = [0.0]  # a clock that a checkpoint advances by 100 s, and a look at it by 1 s

    def tick(_: torch.device) -> float:
        now[0] += 1
        return now[0]

    def save(*_: Any) -> None:
        now[0] += 100

    monkeypatch.setattr(training, "_clock", tick)
    monkeypatch.setattr("bundle.training.checkpoint.Checkpoint.save", save)
    small = {"spatial_size": [16, 16], "filters": [2, 4], "batch_size": 2}
    result = measure_dictionary([root / "configs/train.json"], overrides=small, workers=0, rounds=2, iterations=2)
    assert result["rounds"] == [{OURS: pytest.approx(4 / 101), THEIRS: 4.0}] * 2


def test_every_change_of_the_recipe_has_a_counterpart_that_moves_pixels_and_keeps_the_mask(root: Path) -> None:
    parser = _parser(root)
    changes = counterpart(parser)
    augment = parser.get_parsed_content("augment")
    assert isinstance(augment, BatchAugmentation)
    assert len(changes) == 2 + len(augment.intensity)
    image = torch.rand(1, 64, 96)
    label = torch.zeros(1, 64, 96)
    label[:, 20:40, 30:60] = 1
    for change in changes:
        change.prob = 1.0  # type: ignore[attr-defined]
        out = change({"image": image.clone(), "label": label.clone()})
        name = type(change).__name__
        assert out["image"].shape == image.shape, name
        assert not torch.equal(torch.as_tensor(out["image"]), image), name
        assert set(torch.as_tensor(out["label"]).unique().tolist()) == {0.0, 1.0}, name


def test_a_change_that_has_no_counterpart_is_told_in_one_line(root: Path) -> None:
    unknown = {"_target_": "kornia.augmentation.RandomJPEG"}
    parser = _parser(root)
    parser["augment"]["intensity"].append(unknown)
    with pytest.raises(UserError, match="'RandomJPEG' has no counterpart"):
        counterpart(parser)
