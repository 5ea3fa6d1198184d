# SPDX-License-Identifier: Apache-2.0
"""What benchmarks of a training config share: the config opened on data, and what is told of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.data.phantom import make_phantom
from bundle.errors import InputError, UserError

NEVER = 10**6  # epochs between validations: the timed part holds none
PHANTOM = {"benign": 12, "malignant": 8, "normal": 4}  # files are read once, before the clock starts


@contextlib.contextmanager
def opened_config(
    config: Sequence[str | os.PathLike[str]],
    dataset_dir: str | os.PathLike[str] | None,
    overrides: Mapping[str, Any],
    rounds: int,
    iterations: int,
) -> Iterator[ConfigParser]:
    """The config by `open_config`, on the dataset or a phantom; what its run writes is gone when left."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        data = Path(dataset_dir or Path(folder) / "data")
        if dataset_dir is None:
            make_phantom(data, counts=PHANTOM, size_range=((96, 128), (96, 128)))
        yield open_config(config, data, Path(folder), overrides, rounds, iterations)


def open_config(
    config: Sequence[str | os.PathLike[str]],
    data: Path,
    folder: Path,
    overrides: Mapping[str, Any],
    rounds: int,
    iterations: int,
) -> ConfigParser:
    """Read the config as ``monai.bundle run`` does, with outputs in a temporary folder and the epoch's length fixed.

    Args:
        config, overrides, rounds, iterations: as `measure_training` takes them.
        data: images to train on.
        folder: gets what the run writes.
    """
    for file in config:
        if not Path(file).is_file():
            raise InputError(file, "no such config", "name one of configs/train*.json")
    fixed = {
        "dataset_dir": str(data),
        "output_dir": str(folder / "run"),
        "prepared_dir": str(folder / "prepared"),
        "val_interval": NEVER,
        "patience": None,
        "max_epochs": rounds + 1,
        "training_records": f"$(@datalist['training'] * (@batch_size * {iterations}))[:@batch_size * {iterations}]",
    }
    workflow = ConfigWorkflow(
        workflow_type="train",
        config_file=[os.fspath(file) for file in config],
        logging_file=False,
        meta_file=None,
        **{**overrides, **fixed},
    )
    plainly(workflow.initialize)
    return workflow.parser


def settings_of(parser: ConfigParser) -> dict[str, Any]:
    """What of a config decides its speed, ready for JSON."""
    network = parser.get_parsed_content("network")
    inferer, trainer = (parser.get_parsed_content(f"train#{name}") for name in ("inferer", "trainer"))
    architecture = parser.get_parsed_content("architecture")
    return {
        **{name: parser.get_parsed_content(name) for name in ("spatial_size", "batch_size")},
        **{
            "architecture": architecture,
            "filters": parser.get_parsed_content("filters") if architecture == "UNet" else None,
        },
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "precision": "bfloat16" if inferer.amp else "float16" if trainer.amp else "float32",
        "threads": torch.get_num_threads(),
    }


def settings_of_run(
    parser: ConfigParser,
    config: Sequence[str | os.PathLike[str]],
    dataset_dir: str | os.PathLike[str] | None,
    overrides: Mapping[str, Any],
    iterations: int,
) -> dict[str, Any]:
    """What a result says of what was measured, ready for JSON; arguments as `opened_config` takes them."""
    return {
        "config": [Path(file).name for file in config],
        "overrides": dict(overrides),
        **settings_of(parser),
        "data": "synthetic phantom" if dataset_dir is None else Path(dataset_dir).name,
        "iterations_per_round": iterations,
    }


def settings_line(result: Mapping[str, Any]) -> str:
    """What a terminal shows of the settings of a result."""
    settings = result["settings"]
    size = "×".join(str(length) for length in settings["spatial_size"])
    workers = f", {settings['workers']} workers" if "workers" in settings else ""
    return (
        f"batch {settings['batch_size']} of {size}, {settings['parameters'] / 1e6:.2f} M parameters, "
        f"{settings['precision']}{workers}, {result['provenance']['device']}"
    )


def plainly(action: Callable[[], Any]) -> Any:
    """Call something that MONAI evaluates from a config; a UserError that it wrapped comes out as itself."""
    try:
        return action()
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise
