# SPDX-License-Identifier: Apache-2.0
"""Measure speed. `training`: the whole training loop of a config beside its bare network, in turns, in one run.
`duplicates`: the search for near duplicates among more and more synthetic images. `archive`: what predicting more and
more synthetic images costs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]
_QUICK = {"rounds": 2, "iterations": 3}


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("training", help="images per second of the training loop and of the bare network")
    training.add_argument(
        "--config",
        nargs="+",
        type=Path,
        default=[ROOT / "configs" / "train.json"],
        help="config and overlays; default: configs/train.json",
    )
    training.add_argument("--dataset_dir", type=Path, help="default: a small synthetic phantom, made for the run")
    training.add_argument("--spatial_size", type=_positive, nargs=2, metavar=("H", "W"), help="default: the config's")
    training.add_argument("--filters", type=_positive, nargs="+", help="per level; default: the config's")
    training.add_argument("--batch_size", type=_positive, help="default: the config's")
    training.add_argument("--threads", type=_positive, help="CPU threads of torch; default: as many as there are cores")
    training.add_argument("--quick", action="store_true", help="a few iterations only: to see that it works")
    training.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")
    duplicates = commands.add_parser("duplicates", help="seconds of the search for near duplicates")
    duplicates.add_argument(
        "--images", type=_positive, nargs="+", default=[1250, 10000], help="counts; default: 1250 10000, half an hour"
    )
    duplicates.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")
    archive = commands.add_parser("archive", help="seconds, CPU seconds, memory and bytes of scripts/predict.py")
    archive.add_argument("--images", type=_positive, nargs="+", default=[100, 1000], help="counts; default: 100 1000")
    archive.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    archive.add_argument("--write", nargs="+", default=["png", "json"], metavar="OUTPUT", help="default: png json")
    archive.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")
    options = parser.parse_args(argv)
    if options.command == "archive":
        return _measure_archive(options)
    if options.command == "duplicates":
        return _measure_duplicates(options)

    import torch  # after the arguments: torch and MONAI take seconds to import

    from bundle.benchmark import measure_training
    from bundle.files import write_json

    if options.threads:
        torch.set_num_threads(options.threads)
    names = ("spatial_size", "filters", "batch_size")
    overrides = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    counts = _QUICK if options.quick else {}
    result = measure_training(options.config, dataset_dir=options.dataset_dir, overrides=overrides, **counts)
    print(_table(result))
    if options.output:
        write_json(options.output, result)
        print(f"Written to {options.output}")
    return 0


def _measure_duplicates(options: argparse.Namespace) -> int:
    from bundle.benchmark import measure_duplicates
    from bundle.files import write_json

    result = measure_duplicates(options.images)
    for run in result["runs"]:
        print(
            f"{run['images']:>7} images: {run['seconds']:.1f} s, {1000 * run['seconds'] / run['images']:.0f} ms each; "
            f"{run['found']} of {run['planted']} planted copies found, {run['wrong']} wrong pairs; "
            f"{run['peak_memory_gib']} GiB"
        )
    if options.output:
        write_json(options.output, result)
        print(f"Written to {options.output}")
    return 0


def _measure_archive(options: argparse.Namespace) -> int:
    from bundle.benchmark_archive import archive_lines, measure_archive
    from bundle.files import write_json

    result = measure_archive(options.images, options.models, options.write)
    for line in archive_lines(result):
        print(line)
    if options.output:
        write_json(options.output, result)
        print(f"Written to {options.output}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number


def _table(result: dict[str, Any]) -> str:
    settings = result["settings"]
    lowest, highest = result["ratio_range"]
    size = "×".join(str(length) for length in settings["spatial_size"])
    return "\n".join(
        [
            f"batch {settings['batch_size']} of {size}, {settings['parameters'] / 1e6:.2f} M parameters, "
            f"{settings['precision']}, {result['provenance']['device']}",
            f"{'images/s':>24}{'of the bare network':>22}",
            f"{'bare network':<14}{result['bare_images_per_second']:>10.1f}{1:>22.0%}",
            f"{'training loop':<14}{result['loop_images_per_second']:>10.1f}{result['ratio']:>22.0%}",
            f"medians of {len(result['rounds'])} rounds; single rounds: {lowest:.0%} to {highest:.0%}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
