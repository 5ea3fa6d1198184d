# SPDX-License-Identifier: Apache-2.0
"""Measure speed; what is compared runs in turns in one run. `training`: the whole training loop of a config beside its
bare network. `dictionary`: the same loop beside MONAI's dictionary transforms. `inference`: the whole pipeline and its
bare networks, by each installed backend. `peers`: our U-Net beside networks of MONAI. `duplicates`: the search for near
duplicates among more and more synthetic images. `archive`: what predicting more and more synthetic images costs. `all`:
one after the other, in under 15 minutes on two cores.

By name alone: `builds`: what a user waits for, in another build of this bundle and in this one. `nnunet`: this bundle
beside nnU-Net. `prices`: what each option of scripts/predict.py costs in Dice and AUROC, and brings. `profile`: where
the time of long commands goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.benchmarks.arguments import parse
from bundle.config import one_line_errors
from bundle.errors import UserError

_Measured = tuple[dict[str, Any], Sequence[str]]
"""A result, ready for JSON, and what a terminal shows of it."""


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    options = parse(argv, __doc__)
    if getattr(options, "threads", None):
        import torch  # after the arguments: it takes seconds to import

        torch.set_num_threads(options.threads)
    if options.command == "all":
        for name, (words, quick) in _ALL.items():
            print(f"== {name}", flush=True)
            file = str(options.output / f"benchmark_{name}.json")
            _measure(parse([name, *(quick if options.quick else words), "--output", file], __doc__))
        return 0
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    from bundle.files import write_json

    result, lines = _COMMANDS[options.command](options)
    print(*lines, sep="\n")
    if options.output:
        write_json(options.output, result)
        print(f"Written to {options.output}", flush=True)


def _training(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.training import measure_training, training_lines

    result = measure_training(options.config, **_of_loop(options))
    return result, training_lines(result)


def _dictionary(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.dictionary import dictionary_lines, measure_dictionary

    result = measure_dictionary(options.config, workers=options.workers, **_of_loop(options))
    return result, dictionary_lines(result)


def _of_loop(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of what runs a config's training loop."""
    overrides = _overrides(options)
    if options.precision:
        overrides["train#inferer#amp"] = options.precision == "bfloat16"
    counts = {"rounds": 2, "iterations": 3} if options.quick else {}
    if options.iterations:
        counts["iterations"] = options.iterations
    return {"dataset_dir": options.dataset_dir, "overrides": overrides, **counts}


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    names = ("spatial_size", "filters", "batch_size", "architecture")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return {"architecture": "UNet", **given} if options.filters else given


def _inference(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.inference import inference_lines, measure_inference

    chosen: dict[str, Any] = {"rounds": 1, "images": 2} if options.quick else {}
    if options.backends:
        chosen["backends"] = options.backends
    result = measure_inference(options.models, **chosen)
    return result, inference_lines(result)


def _peers(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.peers import measure_peers, peers_lines

    if any(length % 16 for length in options.spatial_size):
        raise UserError(f"--spatial_size {' '.join(map(str, options.spatial_size))}: give multiples of 16")
    counts: dict[str, Any] = {"rounds": 1, "iterations": 1} if options.quick else {}
    result = measure_peers(spatial_size=options.spatial_size, batch_size=options.batch_size, **counts)
    return result, peers_lines(result)


def _nnunet(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.nnunet import measure_nnunet, nnunet_lines, sizes_of

    sizes = sizes_of(options.images_of) if options.images_of else None
    files = (options.nnunet_python, options.models, options.config)
    result = measure_nnunet(*files, sizes=sizes, overrides=_overrides(options), steps=options.steps)
    return result, nnunet_lines(result)


def _prices(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.prices import measure_prices, prices_lines

    files = (options.segmenter, options.classifier, options.prepared, options.dataset_dir, options.predictions)
    counts: dict[str, Any] = {"rounds": 1} if options.quick else {}
    result = measure_prices(*files, small=options.small, images=options.images, **counts)
    return result, prices_lines(result)


def _duplicates(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.duplicates import duplicates_lines, measure_duplicates

    result = measure_duplicates(options.images)
    return result, duplicates_lines(result)


def _archive(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.archive import archive_lines, measure_archive

    result = measure_archive(options.images, options.models, options.write)
    return result, archive_lines(result)


def _builds(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.builds import builds_lines, measure_builds

    result = measure_builds(options.former, options.only, options.rounds)
    return result, builds_lines(result)


def _profile(options: argparse.Namespace) -> _Measured:
    from bundle.benchmarks.profile import measure_profile, profile_lines

    result = measure_profile(options.only, options.stacks)
    return result, profile_lines(result)


_COMMANDS: dict[str, Callable[[argparse.Namespace], _Measured]] = {
    "training": _training,
    "dictionary": _dictionary,
    "inference": _inference,
    "peers": _peers,
    "nnunet": _nnunet,
    "prices": _prices,
    "duplicates": _duplicates,
    "archive": _archive,
    "builds": _builds,
    "profile": _profile,
}
"""What measures."""

_ALL = {
    "training": ([], ["--quick"]),
    "dictionary": ([], ["--quick"]),
    "inference": ([], ["--quick"]),
    "peers": ([], ["--quick"]),
    "archive": (["--images", "100", "1000"], ["--images", "2", "4"]),
    "duplicates": (["--images", "1250"], ["--images", "20"]),
}
"""What `all` measures: the arguments of each, and those of a quick look."""


if __name__ == "__main__":
    sys.exit(main())
