# SPDX-License-Identifier: Apache-2.0
"""The command line of scripts/benchmark.py; nothing that takes seconds to import."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROFILED = ("plain", "predict", "external", "training")
BUILD_ITEMS = ("cold", "help", "predict", "small", "plain", "shipped", "external", "demo", "test", "duplicates")
PRECISIONS = ("float32", "bfloat16")
BACKENDS = ("torch", "onnxruntime", "openvino")  # of bundle.prediction.backends, which takes seconds to import
_Commands = Any  # argparse tells no name of what add_subparsers returns


def parse(argv: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Read the command line; its `command` names what is measured."""
    parser = argparse.ArgumentParser(description=description)
    commands = parser.add_subparsers(dest="command", required=True, help="what is measured; each has --help")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=_positive, help="CPU threads of torch; default: as many as there are cores")
    common.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")
    quick = argparse.ArgumentParser(add_help=False)
    quick.add_argument("--quick", action="store_true", help="a few iterations only: to see that it works")
    _add_training(commands, common, quick)
    _add_inference(commands, common, quick)
    _add_prices(commands, common, quick)
    _add_many(commands, common)
    _add_builds(commands)
    _add_profile(commands)
    everything = commands.add_parser("all", parents=[quick], help="one after the other, but what runs by name alone")
    everything.add_argument(
        "--threads", type=_positive, help="CPU threads of torch; default: as many as there are cores"
    )
    everything.add_argument(
        "--output", type=Path, default=Path("runs") / "benchmark", metavar="DIR", help="default: runs/benchmark"
    )
    return parser.parse_args(argv)


def _add_training(commands: _Commands, common: argparse.ArgumentParser, quick: argparse.ArgumentParser) -> None:
    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument(
        "--config",
        nargs="+",
        type=Path,
        default=[ROOT / "configs" / "train.json"],
        help="config and overlays; default: configs/train.json",
    )
    recipe.add_argument("--spatial_size", type=_positive, nargs=2, metavar=("H", "W"), help="default: the config's")
    recipe.add_argument("--filters", type=_positive, nargs="+", help="per level, of a U-Net; default: the config's")
    recipe.add_argument("--batch_size", type=_positive, help="default: the config's")
    recipe.add_argument("--architecture", help="such as LiteUNet; default: the config's")
    loop = argparse.ArgumentParser(add_help=False)
    loop.add_argument("--dataset_dir", type=Path, help="default: a small synthetic phantom, made for the run")
    loop.add_argument("--precision", choices=PRECISIONS, help="default: bfloat16 where the machine is fast in it")
    loop.add_argument(
        "--iterations",
        type=_positive,
        help="of an epoch, whose end saves a checkpoint; default: 12, as BUSI's 15 %% has; BUSI and BUS-BRA have 153",
    )
    parents = [common, quick, recipe, loop]
    commands.add_parser(
        "training", parents=parents, help="images per second of the training loop and of the bare network"
    )
    dictionary = commands.add_parser(
        "dictionary", parents=parents, help="the training loop beside MONAI's dictionary transforms"
    )
    dictionary.add_argument("--workers", type=_positive, default=2, help="processes of its DataLoader; default: 2")
    nnunet = commands.add_parser(
        "nnunet", parents=[common, recipe], help="this bundle beside nnU-Net's plan for such images, on the CPU"
    )
    nnunet.add_argument(
        "--nnunet_python",
        type=Path,
        default=ROOT / ".venv-nnunet" / "bin" / "python",
        metavar="FILE",
        help="of an environment with requirements-nnunet.txt; default: .venv-nnunet/bin/python",
    )
    _add_models(nnunet)
    nnunet.add_argument("--images_of", type=Path, metavar="DIR", help="images to plan for; default: about BUSI's sizes")
    nnunet.add_argument("--steps", type=_positive, default=2, help="of nnU-Net's training, minutes each; default: 2")


def _add_inference(commands: _Commands, common: argparse.ArgumentParser, quick: argparse.ArgumentParser) -> None:
    inference = commands.add_parser(
        "inference", parents=[common, quick], help="images per second by each backend, on the CPU"
    )
    _add_models(inference)
    inference.add_argument("--backends", nargs="+", choices=BACKENDS, help="default: all that are installed")
    peers = commands.add_parser("peers", parents=[common, quick], help="our U-Net beside networks of MONAI, on the CPU")
    peers.add_argument(
        "--spatial_size", type=_positive, nargs=2, default=[128, 128], metavar=("H", "W"), help="default: 128 128"
    )
    peers.add_argument("--batch_size", type=_positive, default=8, help="of the training steps; default: 8")


def _add_prices(commands: _Commands, common: argparse.ArgumentParser, quick: argparse.ArgumentParser) -> None:
    prices = commands.add_parser(
        "prices", parents=[common, quick], help="what each option of scripts/predict.py costs and brings"
    )
    for name in ("segmenter", "classifier"):
        prices.add_argument(f"--{name}", type=Path, required=True, metavar="FILE", help="weights of a run on a split")
    prices.add_argument("--small", type=Path, metavar="FILE", help="those of the small segmenter, of the same split")
    prices.add_argument(
        "--prepared", type=Path, required=True, metavar="DIR", help="the split; its test part is scored"
    )
    prices.add_argument("--dataset_dir", type=Path, nargs="+", required=True, metavar="DIR", help="what was prepared")
    prices.add_argument("--images", type=_positive, metavar="N", help="of the test part, evenly chosen; default: all")
    prices.add_argument(
        "--predictions", type=Path, default=Path("runs") / "prices", metavar="DIR", help="default: runs/prices"
    )


def _add_many(commands: _Commands, common: argparse.ArgumentParser) -> None:
    duplicates = commands.add_parser("duplicates", parents=[common], help="seconds of the search for near duplicates")
    duplicates.add_argument(
        "--images", type=_positive, nargs="+", default=[1250, 10000], help="counts; default: 1250 10000, half an hour"
    )
    archive = commands.add_parser(
        "archive", parents=[common], help="seconds, CPU seconds, memory and bytes of scripts/predict.py"
    )
    archive.add_argument("--images", type=_positive, nargs="+", default=[100, 1000], help="counts; default: 100 1000")
    _add_models(archive)
    archive.add_argument("--write", nargs="+", default=["png", "json"], metavar="OUTPUT", help="default: png json")


def _add_builds(commands: _Commands) -> None:
    builds = commands.add_parser("builds", help="seconds of commands in another build and in this one, in turns")
    builds.add_argument("--former", type=Path, required=True, metavar="DIR", help="a checkout of the other build")
    builds.add_argument("--only", nargs="+", choices=BUILD_ITEMS, default=(), help="default: all but duplicates")
    builds.add_argument(
        "--rounds", type=_positive, default=5, help="of the short commands; default: 5. The long ones run once"
    )
    builds.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")


def _add_profile(commands: _Commands) -> None:
    profile = commands.add_parser("profile", help="where the time of long commands goes, by py-spy, in minutes")
    profile.add_argument("--only", nargs="+", choices=PROFILED, default=(), help="default: all")
    profile.add_argument("--stacks", type=Path, metavar="DIR", help="keep what was seen, for tools of flame graphs")
    profile.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number
