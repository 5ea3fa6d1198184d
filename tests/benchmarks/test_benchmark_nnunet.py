# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.benchmarks.nnunet, with a stand-in for nnU-Net, and with the one of NNUNET_PYTHON if set."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bundle.benchmarks.nnunet import measure_nnunet, nnunet_lines, sizes_of
from bundle.errors import UserError
from scripts.benchmark import main

SMALL: Any = {"overrides": {"spatial_size": [16, 16], "filters": [2, 4], "batch_size": 2}, "steps": 1, "images": 1}
PLAN = {"patch_size": [64, 96], "batch_size": 10, "parameters": 5}


def _stand_in(folder: Path, body: str) -> Path:
    """An executable that speaks as nnU-Net's side does, whatever script it is given."""
    (folder / "side.py").write_text(f"import json, sys\nrequest = json.loads(sys.stdin.readline())\n{body}\n")
    file = folder / "python"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/side.py"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def config(root: Path) -> list[Path]:
    return [root / "configs" / "train.json"]


def test_what_each_side_takes_is_told_per_image(config: list[Path], tiny_models: Path, tmp_path: Path) -> None:
    python = _stand_in(
        tmp_path,
        f"print({json.dumps(json.dumps(PLAN))}, flush=True)\n"
        "for line in sys.stdin:\n"
        "    took = {'step': 30.0, 'image': 7.0 + len(request['sizes'])}[line.strip()]\n"
        "    print(json.dumps({'seconds': took / 2, 'cpu_seconds': took}), flush=True)",
    )
    result = measure_nnunet(python, tiny_models, config, sizes=[(50, 60), (70, 80), (52, 64)], **SMALL)
    ours, theirs = result["runs"]
    assert theirs["step_cpu_seconds_per_image"] == 3.0  # 30 for its batch of 10
    assert (theirs["seconds_per_image"], theirs["cpu_seconds_per_image"]) == (5.0, 10.0)
    assert (theirs["parameters"], theirs["input"], theirs["batch_size"]) == (5, [64, 96], 10)
    assert 0 < ours["step_cpu_seconds_per_image"] < 3
    assert (ours["batch_size"], ours["input"]) == (2, [48, 64])
    assert result["ratios"]["cpu_seconds_per_image"] == pytest.approx(10 / ours["cpu_seconds_per_image"])
    assert result["settings"]["image"] == [52, 64]
    assert result["settings"]["computed_by"]["precision"] == "float32"
    assert "nnU-Net" in nnunet_lines(result)[2]


def test_a_side_that_fails_is_told_in_its_own_words(config: list[Path], tiny_models: Path, tmp_path: Path) -> None:
    python = _stand_in(tmp_path, "sys.exit('ModuleNotFoundError: no nnunetv2')")
    with pytest.raises(UserError, match="side ended, and said: ModuleNotFoundError: no nnunetv2"):
        measure_nnunet(python, tiny_models, config, **SMALL)


def test_a_missing_environment_is_told_with_how_to_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nnunet", "--nnunet_python", "/nowhere/python"]) == 2
    assert "pip install -r requirements-nnunet.txt" in capsys.readouterr().err


def test_sizes_are_those_of_the_images_and_not_of_the_masks(small_phantom: Path) -> None:
    sizes = sizes_of(small_phantom)
    assert len(sizes) == 26
    assert all(60 <= height <= 80 and 90 <= width <= 120 for height, width in sizes)


@pytest.mark.slow
@pytest.mark.skipif("NNUNET_PYTHON" not in os.environ, reason="NNUNET_PYTHON names no environment with nnunetv2")
def test_nnunet_plans_and_trains_and_predicts(config: list[Path], tiny_models: Path) -> None:
    result = measure_nnunet(os.environ["NNUNET_PYTHON"], tiny_models, config, sizes=[(64, 96)] * 40, **SMALL)
    assert result["settings"]["plan"]["patch_size"] == [64, 96]
    assert result["ratios"]["cpu_seconds_per_image"] > 1
