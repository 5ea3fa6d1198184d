# SPDX-License-Identifier: Apache-2.0
"""Distillation: a small network learns from a large one of the same split, and from no other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bundle.networks import UNet

Run = Callable[..., subprocess.CompletedProcess[str]]
TRAIN = "configs/train.json"
OVERLAY = "['configs/train.json', 'configs/distill.yaml']"
SMALL = ["--max_epochs", "1", "--spatial_size", "[48, 64]", "--batch_size", "4"]


@pytest.fixture(scope="module")
def data(small_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prepared = tmp_path_factory.mktemp("prepared")
    return ["--dataset_dir", str(small_phantom), "--prepared_dir", str(prepared), "--split", "40:20:40"]


@pytest.fixture(scope="module")
def teacher(data: list[str], tmp_path_factory: pytest.TempPathFactory, run_bundle: Run) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    words = [*data, *SMALL, "--architecture", "UNet", "--filters", "[4, 8]", "--output_dir", str(folder)]
    done = run_bundle("training", "--config_file", TRAIN, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "model.pt"


def test_a_small_network_learns_from_a_large_one(
    data: list[str], teacher: Path, tmp_path: Path, run_bundle: Run
) -> None:
    small = ["--architecture", "UNet", "--filters", "[2, 4]"]
    words = [*data, *SMALL, *small, "--teacher_weights", str(teacher), "--output_dir", str(tmp_path)]
    done = run_bundle("training", "--config_file", OVERLAY, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["filters"] == [2, 4]
    assert card["teacher_sha256"] == json.loads(teacher.with_suffix(".json").read_text())["sha256"]
    UNet(filters=[2, 4], instance_norm=True).load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))


def test_a_small_lite_network_learns_the_map_and_the_lesions_presence_from_a_large_one(
    data: list[str], tmp_path: Path, run_bundle: Run
) -> None:
    lite = ["--architecture", "LiteUNet", "--presence", "true", "--pretrained", "false", "--normals", "true"]
    lite += ["--decoder_channels", "[8,8,8,8,4]"]
    large = [*data, *SMALL, *lite, "--width", "0.35", "--output_dir", str(tmp_path / "large")]
    done = run_bundle("training", "--config_file", TRAIN, *large)
    assert done.returncode == 0, done.stderr[-3000:]
    teacher = ["--teacher_weights", str(tmp_path / "large/model.pt")]
    small = [*data, *SMALL, *lite, "--width", "0.25", *teacher, "--output_dir", str(tmp_path / "small")]
    done = run_bundle("training", "--config_file", OVERLAY, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((tmp_path / "small/model.json").read_text())
    assert (card["architecture"], card["width"], card["presence"]) == ("LiteUNet", 0.25, True)
    assert 0 <= card["presence_points"]["none_below"] <= 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--split_seed", "1"], "another split"),
        (["--spatial_size", "[64, 64]"], "--spatial_size [48, 64]"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    change: list[str], told: str, data: list[str], teacher: Path, tmp_path: Path, run_bundle: Run
) -> None:
    words = [*data, *SMALL, "--architecture", "UNet", "--filters", "[2, 4]", "--teacher_weights", str(teacher), *change]
    if "--split_seed" in change:
        words[words.index("--prepared_dir") + 1] = str(tmp_path / "prepared")
    done = run_bundle("training", "--config_file", OVERLAY, *words, "--output_dir", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr[-3000:]
    assert told in done.stderr.splitlines()[-1]
