# SPDX-License-Identifier: Apache-2.0
"""nnU-Net's side of `bundle.benchmarks.nnunet`: a script for a Python that has nnunetv2, and nothing of this bundle.

Its first line of input is JSON: the sizes of the images. nnU-Net's own planner makes the 2-D plan of such a dataset,
its own trainer the network, loss and optimizer; the plan is the first answer. Then each line asks for a ``step`` of
training or for an ``image`` to be predicted, and is answered by a line of JSON: what it took.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "Dataset001_Ultrasound"
SPACING = [999.0, 1.0, 1.0]  # as nnU-Net reads a natural image of two dimensions
_Task = Callable[[], object]


def main() -> None:
    """Answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nnU-Net prints
    request = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory(prefix="nnunet-") as folder:
        for part in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{part}"] = str(Path(folder) / part)
        import torch

        torch.set_num_threads(request["threads"])
        plan, step, image = _open(Path(folder), request["sizes"])
        print(json.dumps(plan), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(_time({"step": step, "image": image}[line.strip()])), file=answers, flush=True)


def _open(folder: Path, sizes: list[list[int]]) -> tuple[dict[str, Any], _Task, _Task]:
    """The plan, and what a training step and a prediction are."""
    _write_dataset(folder, sizes)
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = ExperimentPlanner(1).plan_experiment()
    dataset = json.loads((folder / "raw" / NAME / "dataset.json").read_text())
    prepared = folder / "preprocessed" / NAME / plans["configurations"]["2d"]["data_identifier"]
    prepared.mkdir()
    (prepared / "case.npz").touch()  # by its suffix nnU-Net tells how its data are stored
    trainer = nnUNetTrainer({**plans, "continue_training": False}, "2d", 0, dataset, device=torch.device("cpu"))
    trainer.initialize()
    size, count = plans["configurations"]["2d"]["patch_size"], trainer.batch_size
    scales = trainer._get_deep_supervision_scales()
    parts = [[round(length * factor) for length, factor in zip(size, scale, strict=True)] for scale in scales]
    batch = {
        "data": torch.rand(count, 1, *size),
        "target": [(torch.rand(count, 1, *part) > 0.9).to(torch.int16) for part in parts],
    }
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    plan = {"patch_size": [int(length) for length in size], "batch_size": int(count), "parameters": parameters}

    def train() -> None:
        trainer.network.train()
        trainer.set_deep_supervision_enabled(True)
        trainer.train_step(batch)

    return plan, train, _predict(trainer, sizes)


def _predict(trainer: Any, sizes: list[list[int]]) -> _Task:
    import numpy as np
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    image = np.random.default_rng(0).integers(0, 255, (1, 1, *_middle(sizes))).astype(np.float32)
    predictor = nnUNetPredictor(device=trainer.device, perform_everything_on_device=False, allow_tqdm=False)
    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    predictor.manual_initialization(
        trainer.network,
        plans,
        configuration,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        "nnUNetTrainer",
        (0, 1),
    )

    def predict() -> None:
        trainer.set_deep_supervision_enabled(False)
        predictor.predict_single_npy_array(image, {"spacing": SPACING})

    return predict


def _middle(sizes: list[list[int]]) -> list[int]:
    return [sorted(lengths)[len(lengths) // 2] for lengths in zip(*sizes, strict=True)]


def _write_dataset(folder: Path, sizes: list[list[int]]) -> None:
    """What the planner reads: the description, one file for its reader, and the fingerprint, which is of the sizes."""
    from PIL import Image

    raw, prepared = folder / "raw" / NAME, folder / "preprocessed" / NAME
    for part in (raw / "imagesTr", raw / "labelsTr", prepared, folder / "results"):
        part.mkdir(parents=True)
    Image.new("L", (8, 8)).save(raw / "imagesTr" / "case_0000.png")
    Image.new("L", (8, 8)).save(raw / "labelsTr" / "case.png")
    dataset = {
        **{"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "lesion": 1}},
        **{"numTraining": len(sizes), "file_ending": ".png", "overwrite_image_reader_writer": "NaturalImage2DIO"},
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    grey = {"max": 255.0, "min": 0.0, "mean": 80.0, "median": 75.0, "std": 50.0}
    fingerprint = {
        **{"spacings": [SPACING] * len(sizes), "shapes_after_crop": [[1, *size] for size in sizes]},
        "foreground_intensity_properties_per_channel": {
            "0": {**grey, "percentile_00_5": 0.0, "percentile_99_5": 255.0}
        },
        "median_relative_size_after_cropping": 1.0,
    }
    (prepared / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))


def _time(task: _Task) -> dict[str, float]:
    start, cpu_start = time.monotonic(), time.process_time()
    task()
    return {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu_start}


if __name__ == "__main__":
    main()
