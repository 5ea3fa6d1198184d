# SPDX-License-Identifier: Apache-2.0
"""A training run of a second, put together as configs/train.json does it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanDice, ValidationHandler, from_engine
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import AsDiscreted, Compose, RandGaussianNoised

from bundle import training
from bundle.files import write_atomically
from bundle.networks import UNet
from bundle.transforms import RandomSpeckle, RandomWarp
from bundle.transforms.augment import BatchAugmentation


@dataclass
class Run:
    """The parts of one run that tests look at."""

    trainer: SupervisedTrainer
    evaluator: SupervisedEvaluator
    network: torch.nn.Module
    checkpoint: training.Checkpoint
    history: training.History
    loader: DataLoader


class RunMaker:
    """Make runs that start alike; called with a folder and what shall differ."""

    def __init__(self) -> None:
        noise = torch.Generator().manual_seed(0)
        self.items: list[dict[str, Any]] = []
        for number in range(6):
            image = torch.rand(1, 8, 12, generator=noise)
            meta = {"filename_or_obj": f"case{number}.png"}
            self.items.append({"image": MetaTensor(image, meta=meta), "label": (image > 0.5).float()})

    def __call__(
        self,
        folder: Path,
        max_epochs: int = 4,
        scores: Sequence[float] | None = None,
        val_interval: int = 1,
        patience: int | None = None,
        fingerprint: dict[str, Any] | None = None,
        higher_is_better: bool = True,
        progress_bar: bool = False,
        num_workers: int = 0,
        time_share: float = math.inf,
        continue_rate: float | None = None,
    ) -> Run:
        """Build a run whose output is in the folder; ``scores`` replace the validation metric of epochs 1, 2 …"""
        torch.manual_seed(0)
        network = UNet(filters=(2, 4))
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
        scheduler: Any = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.9)
        if continue_rate is not None:
            scheduler = WarmupCosineSchedule(optimizer, warmup_steps=1, t_total=max_epochs * 3)
            fingerprint = {**(fingerprint or {}), "max_epochs": max_epochs}
        ema = training.MovingAverage(
            network, momentum=0.05, momentum_warmup=0.5, warmup_iters=20, handle_buffers="update"
        )
        # A random transform of MONAI's has a random state of its own.
        dataset = Dataset(self.items, Compose([RandGaussianNoised("image", prob=0.5)]))
        loader = DataLoader(dataset, batch_size=2, shuffle=True, num_workers=num_workers)
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(self.items[:3]), batch_size=2),
            network=ema.ema_model,
            prepare_batch=training.PrepareBatch(),
            postprocessing=AsDiscreted("pred", threshold=0.0),
            key_val_metric={"val_mean_dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        )
        if scores is not None:

            @evaluator.on(Events.COMPLETED)
            def replace_score(engine: Any) -> None:
                # The validator runs up to the trainer's epoch.
                engine.state.metrics["val_mean_dice"] = scores[engine.state.epoch - 1]

        history = training.History(folder, evaluator, synthetic=True)
        state = {"network": network, "ema": ema, "optimizer": optimizer, "lr_scheduler": scheduler, "history": history}
        checkpoint = training.Checkpoint(
            *(folder, evaluator, ema.ema_model, state, "val_mean_dice", higher_is_better, fingerprint),
            time_share=time_share,
            continue_rate=continue_rate,
        )
        handlers: list[Any] = [
            training.Reseed(seed=3),
            training.StopOnNonFinite(),
            ema,
            LrScheduleHandler(scheduler, epoch_level=False, print_lr=False),  # type: ignore[arg-type]
            ValidationHandler(val_interval, evaluator),
            history,
            checkpoint,
            training.StopEarly(checkpoint, patience),
        ]
        if progress_bar:
            handlers.append(training.ProgressBar(history))
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=max_epochs,
            train_data_loader=loader,
            network=network,
            optimizer=optimizer,
            loss_function=torch.nn.BCEWithLogitsLoss(),
            prepare_batch=training.PrepareBatch(augment=BatchAugmentation(RandomWarp(), [RandomSpeckle()])),
            train_handlers=handlers,
            decollate=False,
        )
        return Run(trainer, evaluator, network, checkpoint, history, loader)


@pytest.fixture
def make_run(monkeypatch: pytest.MonkeyPatch) -> RunMaker:
    """A maker of runs over the same six random images of 8×12 pixels, whose curves are no drawing but a file."""

    def write(_: Any, path: Path, **__: Any) -> None:
        write_atomically(path, "curves")

    monkeypatch.setattr("bundle.training.handlers.plot_curves", write)
    return RunMaker()
