# SPDX-License-Identifier: Apache-2.0
"""Measure speed; what is compared runs in turns in one run. `training`: the whole training loop of a config beside its
bare network. `inference`: the whole pipeline and its bare networks, by each installed backend. `peers`: our U-Net
beside networks of MONAI. `duplicates`: the search for near duplicates among more and more synthetic images. `archive`:
what predicting more and more synthetic images costs. `all`: one after the other, in under 15 minutes on two cores.
`builds`: what a user waits for, in another build of this bundle and in this one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
BUILD_ITEMS = ("cold", "help", "predict", "small", "plain", "external", "demo", "test", "duplicates")
BACKENDS = ("torch", "onnxruntime", "openvino")  # of bundle.prediction.backends, which takes seconds to import


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    options = _parse(argv)
    if getattr(options, "threads", None):
        import torch  # after the arguments: it takes seconds to import

        torch.set_num_threads(options.threads)
    if options.command == "all":
        for name, (words, quick) in _ALL.items():
            print(f"== {name}", flush=True)
            file = str(options.output / f"benchmark_{name}.json")
            _measure(_parse([name, *(quick if options.quick else words), "--output", file]))
        return 0
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    from bundle.files import write_json

    measure, show = _COMMANDS[options.command]
    result = measure(options)
    print(show(result))
    if options.output:
        write_json(options.output, result)
        print(f"Written to {options.output}", flush=True)


def _training(options: argparse.Namespace) -> dict[str, Any]:
    from bundle.benchmarks.training import measure_training

    names = ("spatial_size", "filters", "batch_size")
    overrides = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    counts = {"rounds": 2, "iterations": 3} if options.quick else {}
    return measure_training(options.config, dataset_dir=options.dataset_dir, overrides=overrides, **counts)


def _inference(options: argparse.Namespace) -> dict[str, Any]:
    from bundle.benchmarks.inference import measure_inference

    chosen: dict[str, Any] = {"rounds": 1, "images": 2} if options.quick else {}
    if options.backends:
        chosen["backends"] = options.backends
    return measure_inference(options.models, **chosen)


def _peers(options: argparse.Namespace) -> dict[str, Any]:
    from bundle.benchmarks.peers import measure_peers

    if any(length % 16 for length in options.spatial_size):
        raise UserError(f"--spatial_size {' '.join(map(str, options.spatial_size))}: give multiples of 16")
    counts: dict[str, Any] = {"rounds": 1, "iterations": 1} if options.quick else {}
    return measure_peers(spatial_size=options.spatial_size, batch_size=options.batch_size, **counts)


def _duplicates(options: argparse.Namespace) -> dict[str, Any]:
    from bundle.benchmarks.duplicates import measure_duplicates

    return measure_duplicates(options.images)


def _archive(options: argparse.Namespace) -> dict[str, Any]:
    from bundle.benchmarks.archive import measure_archive

    return measure_archive(options.images, options.models, options.write)


def _builds(options: argparse.Namespace) -> dict[str, Any]:
    from bundle.benchmarks.builds import measure_builds

    return measure_builds(options.former, options.only, options.rounds)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=_positive, help="CPU threads of torch; default: as many as there are cores")
    common.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")
    quick = argparse.ArgumentParser(add_help=False)
    quick.add_argument("--quick", action="store_true", help="a few iterations only: to see that it works")
    training = commands.add_parser(
        "training", parents=[common, quick], help="images per second of the training loop and of the bare network"
    )
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
    inference = commands.add_parser(
        "inference", parents=[common, quick], help="images per second by each backend, on the CPU"
    )
    inference.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    inference.add_argument("--backends", nargs="+", choices=BACKENDS, help="default: all that are installed")
    peers = commands.add_parser("peers", parents=[common, quick], help="our U-Net beside networks of MONAI, on the CPU")
    peers.add_argument("--spatial_size", type=_positive, nargs=2, default=[128, 128], metavar=("H", "W"))
    peers.add_argument("--batch_size", type=_positive, default=8, help="of the training steps; default: 8")
    duplicates = commands.add_parser("duplicates", parents=[common], help="seconds of the search for near duplicates")
    duplicates.add_argument(
        "--images", type=_positive, nargs="+", default=[1250, 10000], help="counts; default: 1250 10000, half an hour"
    )
    archive = commands.add_parser(
        "archive", parents=[common], help="seconds, CPU seconds, memory and bytes of scripts/predict.py"
    )
    archive.add_argument("--images", type=_positive, nargs="+", default=[100, 1000], help="counts; default: 100 1000")
    archive.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    archive.add_argument("--write", nargs="+", default=["png", "json"], metavar="OUTPUT", help="default: png json")
    builds = commands.add_parser("builds", help="seconds of commands in another build and in this one, in turns")
    builds.add_argument("--former", type=Path, required=True, metavar="DIR", help="a checkout of the other build")
    builds.add_argument("--only", nargs="+", choices=BUILD_ITEMS, default=(), help="default: all but duplicates")
    builds.add_argument(
        "--rounds", type=_positive, default=5, help="of the short commands; default: 5. The long ones run once"
    )
    builds.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")
    everything = commands.add_parser("all", parents=[quick], help="all of them, one after the other")
    everything.add_argument(
        "--threads", type=_positive, help="CPU threads of torch; default: as many as there are cores"
    )
    everything.add_argument(
        "--output", type=Path, default=Path("runs") / "benchmark", metavar="DIR", help="default: runs/benchmark"
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number


def _show_training(result: dict[str, Any]) -> str:
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


def _show_inference(result: dict[str, Any]) -> str:
    shares = f"{'share':>7}{'of those at once':>18}{'CPU ms outside':>16}"
    lines = [f"{'images/s':<24}{'networks':>10}{'×':>7}{'at once':>10}{'pipeline':>10}{'×':>7}{shares}"]
    lines += [
        f"{run['name']:<24}{run['bare_images_per_second']:>10.1f}{run['bare_ratio']:>7.2f}"
        f"{run['at_once_images_per_second']:>10.1f}{run['pipeline_images_per_second']:>10.1f}"
        f"{run['pipeline_ratio']:>7.2f}{run['share']:>7.0%}{run['share_at_once']:>18.0%}"
        f"{run['outside_cpu_ms']:>16.1f}"
        for run in result["runs"]
    ]
    lines += [f"not installed: {name}" for name in result["settings"]["left_out"]]
    return "\n".join([*lines, f"{result['settings']['threads']} threads, medians of {len(result['rounds'])} rounds"])


def _show_peers(result: dict[str, Any]) -> str:
    lines = [f"{'':<14}{'M param.':>9}{'GMAC':>7}{'ms/step':>9}{'MiB':>7}{'ms/image':>10}{'MiB':>7}"]
    lines += [
        f"{run['name']:<14}{run['parameters'] / 1e6:>9.2f}{run['macs'] / 1e9:>7.2f}"
        f"{run['seconds_per_step'] * 1e3:>9.0f}{run['step_memory_mib']:>7.0f}"
        f"{run['seconds_per_image'] * 1e3:>10.1f}{run['image_memory_mib']:>7.1f}"
        for run in result["runs"]
    ]
    return "\n".join(lines)


def _show_duplicates(result: dict[str, Any]) -> str:
    return "\n".join(
        f"{run['images']:>7} images: {run['seconds']:.1f} s, {1000 * run['seconds'] / run['images']:.0f} ms each; "
        f"{run['found']} of {run['planted']} planted copies found, {run['wrong']} wrong pairs; "
        f"{run['peak_memory_gib']} GiB"
        for run in result["runs"]
    )


def _show_archive(result: dict[str, Any]) -> str:
    from bundle.benchmarks.archive import archive_lines

    return "\n".join(archive_lines(result))


def _show_builds(result: dict[str, Any]) -> str:
    from bundle.benchmarks.builds import builds_lines

    return "\n".join(builds_lines(result))


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
    "training": (_training, _show_training),
    "inference": (_inference, _show_inference),
    "peers": (_peers, _show_peers),
    "duplicates": (_duplicates, _show_duplicates),
    "archive": (_archive, _show_archive),
    "builds": (_builds, _show_builds),
}
"""What measures, and what a terminal shows of it."""

_ALL = {
    "training": ([], ["--quick"]),
    "inference": ([], ["--quick"]),
    "peers": ([], ["--quick"]),
    "archive": (["--images", "100", "1000"], ["--images", "2", "4"]),
    "duplicates": (["--images", "1250"], ["--images", "20"]),
}
"""What `all` measures: the arguments of each, and those of a quick look."""


if __name__ == "__main__":
    sys.exit(main())
