# SPDX-License-Identifier: Apache-2.0
"""How fast a config trains beside the same recipe made of MONAI's dictionary transforms, as its tutorials have it."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai import transforms as mt
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from bundle.benchmarks.training import alternate
from bundle.benchmarks.training_config import opened_config, plainly, settings_line, settings_of_run
from bundle.errors import UserError
from bundle.provenance import describe_run
from bundle.training import PrepareBatch
from bundle.transforms import RandomApply

OURS, THEIRS = "ours", "dictionary transforms"
BOTH = ("image", "label")


def measure_dictionary(
    config: Sequence[str | os.PathLike[str]],
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    workers: int = 2,
    rounds: int = 6,
    iterations: int = 12,
) -> dict[str, Any]:
    """Time epochs of a segmenter's config and of its counterpart in turns.

    The counterpart is MONAI's `SupervisedTrainer` with the same network, loss, optimizer, precision, batch size and
    images, which lie in memory, decoded and resized, for both. It augments image by image in the processes of a
    `DataLoader`, which stay from epoch to epoch. It has no handlers: unlike ours, it records, averages, checks and
    saves nothing.

    Args:
        config: config files, merged in this order.
        dataset_dir: images to train on; a small synthetic phantom by default.
        overrides: config id -> value.
        workers: processes that augment.
        rounds: of each that count; a first one does not.
        iterations: per round.

    Returns:
        ready for JSON: `settings`, with the counterpart's `transforms`; `runs` (`name` and `images_per_second`, a
        median); `ratio`, ours to theirs; `ratio_range` (lowest and highest round); `rounds`; `provenance`.

    Raises:
        UserError: a file is missing, the config or the dataset can not be used, or something in its augmentation has no
            counterpart.
    """
    with opened_config(config, dataset_dir, overrides or {}, rounds, iterations) as parser:
        changes = counterpart(parser)
        trainer = plainly(lambda: parser.get_parsed_content("train#trainer"))
        other = _trainer(parser, trainer, changes, workers)

        def run() -> None:
            other.state.max_epochs = other.state.epoch + 1
            other.run()

        timings = [
            {OURS: entry["loop"], THEIRS: entry[THEIRS]}
            for entry in alternate(parser, trainer, {THEIRS: run}, rounds, iterations)
        ]
        speeds = {name: statistics.median(entry[name] for entry in timings) for name in (OURS, THEIRS)}
        ratios = [entry[OURS] / entry[THEIRS] for entry in timings]
        return {
            "settings": {
                **settings_of_run(parser, config, dataset_dir, overrides or {}, iterations),
                **{"workers": workers, "transforms": [type(change).__name__ for change in changes]},
            },
            "runs": [{"name": name, "images_per_second": speed} for name, speed in speeds.items()],
            "ratio": speeds[OURS] / speeds[THEIRS],
            "ratio_range": [min(ratios), max(ratios)],
            "rounds": timings,
            "provenance": describe_run(),
        }


def dictionary_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_dictionary`."""
    lowest, highest = result["ratio_range"]
    return [
        settings_line(result),
        *(f"{run['name']:<24}{run['images_per_second']:>8.1f} images/s" for run in result["runs"]),
        f"ratio {result['ratio']:.2f}; single rounds: {lowest:.2f} to {highest:.2f}",
    ]


def counterpart(parser: ConfigParser) -> list[mt.Transform]:
    """MONAI's dictionary transforms that come nearest to the augmentation of a config, with its numbers.

    The warp is one resampling, as ours. What differs: zoom and stretch are one scale per side; speckle is Gaussian
    noise; the slope of the illumination is a bias field of degree 1.

    Raises:
        UserError: a change of intensity has no counterpart here, or the config draws marks or cuts windows.
    """
    augment = plainly(lambda: parser.get_parsed_content("augment"))
    height, width = (int(length) for length in parser.get_parsed_content("spatial_size"))
    warp = augment.warp
    scale = (min(warp.zoom[0], warp.stretch[0]) - 1, max(warp.zoom[1], warp.stretch[1]) - 1)
    changes: list[mt.Transform] = [
        mt.Rand2DElasticd(
            BOTH,
            spacing=(height / (warp.elastic_nodes - 1), width / (warp.elastic_nodes - 1)),
            magnitude_range=(0, warp.elastic * height),
            prob=warp.probability,
            rotate_range=math.radians(warp.degrees),
            translate_range=(warp.translate * height, warp.translate * width),
            scale_range=(scale, scale),
            mode=("bilinear", "nearest"),
            padding_mode="reflection",
        ),
        mt.RandFlipd(BOTH, prob=warp.flip, spatial_axis=1),
    ]
    for number, described in enumerate(parser.get("augment")["intensity"]):
        path, change = f"augment#intensity#{number}", augment.intensity[number]
        chance = {}
        if isinstance(change, RandomApply):
            path, described, chance = f"{path}#change", described["change"], {"p": change.probability}
        name = described["_target_"].rsplit(".", 1)[-1]
        if name not in _INTENSITY:
            raise UserError(f"augment: '{name}' has no counterpart among MONAI's transforms here; leave it out")
        settings = {key: parser.get_parsed_content(f"{path}#{key}") for key in described if key[0] != "_"}
        changes.append(_INTENSITY[name](change, settings | chance, (height, width)))
    return changes


def _erase(_: Any, settings: Mapping[str, Any], size: tuple[int, int]) -> mt.Transform:
    low, high = ([round(length * math.sqrt(share)) for length in size] for share in settings["scale"])
    return mt.RandCoarseDropoutd(
        "image", holes=1, spatial_size=low, max_spatial_size=high, fill_value=0, prob=settings["p"]
    )


_Maker = Callable[[Any, Mapping[str, Any], tuple[int, int]], mt.Transform]
_INTENSITY: dict[str, _Maker] = {
    "RandomGamma": lambda _, told, size: mt.RandAdjustContrastd("image", prob=told["p"], gamma=told["gamma"]),
    "RandomContrast": lambda _, told, size: mt.RandScaleIntensityFixedMeand(
        "image", factors=tuple(factor - 1 for factor in told["contrast"]), prob=told["p"]
    ),
    "RandomLinearIllumination": lambda _, told, size: mt.RandBiasFieldd(
        "image", degree=1, coeff_range=told["gain"], prob=told["p"]
    ),
    "RandomSpeckle": lambda change, told, size: mt.RandGaussianNoised(
        "image", prob=change.probability, std=max(change.strength)
    ),
    "RandomGaussianBlur": lambda _, told, size: mt.RandGaussianSmoothd(
        "image", sigma_x=told["sigma"], sigma_y=told["sigma"], prob=told["p"]
    ),
    "RandomErasing": _erase,
}
"""What stands for each change of intensity: of the change itself, its settings in the config, and the images' size."""


def _trainer(
    parser: ConfigParser, trainer: SupervisedTrainer, changes: Sequence[mt.Transform], workers: int
) -> SupervisedTrainer:
    # A second parser of the same config, so that the loop's own weights and schedule stay untouched.
    own = ConfigParser(parser.get())
    network, loss, optimizer, inferer = (
        own.get_parsed_content(name) for name in ("network", "loss", "optimizer", "train#inferer")
    )
    read: Any = parser.get_parsed_content("train#dataset")
    dataset = Dataset([read[number] for number in range(len(read))], mt.Compose(changes))
    loader = DataLoader(
        dataset,
        batch_size=int(parser.get_parsed_content("batch_size")),
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return SupervisedTrainer(
        device=torch.device(parser.get_parsed_content("device")),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        inferer=inferer,
        prepare_batch=PrepareBatch(),
        amp=trainer.amp,
        decollate=False,
    )
