# SPDX-License-Identifier: Apache-2.0
"""Run the whole chain: prepare, split, train, segment, classify, evaluate, report. Finished steps are skipped."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.config.typed import resolve_paths
from bundle.training.chain import CLASSIFICATION_ROWS, SEGMENTATION_ROWS, absolute, plan_chain
from bundle.training.steps import Step

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 2 when a step failed, 130 for Ctrl-C; the same command goes on after the last finished step."""
    options = _parse(argv)

    from bundle.data.roots import dataset_name
    from bundle.reports.chain import write_chain_report  # after the arguments, which are quick to look at
    from bundle.training.chain import require_data_unchanged
    from bundle.training.steps import run_steps

    dataset = [absolute(path) for path in options.dataset_dir or [ROOT / "data" / "phantom"]]
    output = absolute(options.output_dir or ROOT / "runs" / f"reproduce_{dataset_name(dataset)}")
    steps = _plan(options, dataset, output)
    require_data_unchanged(dataset, output)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no step is left running
    try:
        run_steps(steps, output / "logs", options.jobs, {*map(str, dataset), str([str(path) for path in dataset])})
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it was", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"Report: {write_chain_report(output)}")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dataset_dir",
        type=Path,
        nargs="+",
        help="one dataset, or several that are used together; default: the SYNTHETIC phantom, made on first use",
    )
    parser.add_argument("--output_dir", type=Path, help="default: runs/reproduce_<dataset>")
    parser.add_argument("--ours", action="store_true", help="our recipe (default if --paper is not given)")
    parser.add_argument("--lite", action="store_true", help="our recipe on pretrained encoders")
    parser.add_argument("--paper", action="store_true", help="the paper's recipe")
    for option, rows, default, help_ in (
        ("--rows", SEGMENTATION_ROWS, 1, "with --paper: rows of its Table 1; default: 1"),
        ("--classifier_rows", CLASSIFICATION_ROWS, 2, "with --paper: rows of its Table 2; default: 2"),
    ):
        parser.add_argument(option, type=int, nargs="+", choices=rows, default=[default], metavar="ROW", help=help_)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of split and training; default: 0")
    parser.add_argument("--oracle", action="store_true", help="also classify from ground-truth masks, named so")
    parser.add_argument(
        "--folds",
        type=_several,
        help="also our recipes cross-validated: every image tested by networks that never saw it",
    )
    parser.add_argument(
        "--members", type=int, default=3, help="with --folds: classifiers per fold, averaged; default: %(default)s"
    )
    parser.add_argument(
        "--small", action="store_true", help="CPU-size networks and 128×128 in place of the paper's sizes"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="steps that run at once, such as trainings that share a GPU; default: a training alone, two others",
    )
    parser.add_argument("--max_epochs", type=int, help="fewer epochs, for a quick look")
    for stage in ("segmentation", "classification"):
        parser.add_argument(
            f"--{stage}",
            nargs="+",
            default=[],
            metavar="KEY=VALUE",
            help=f"overrides of the {stage}'s training config, such as spatial_size=[256,256] seed=1",
        )
    options = parser.parse_args(argv)
    for stage in ("segmentation", "classification"):
        setattr(options, stage, _overrides(parser, getattr(options, stage)))
    return options


def _plan(options: argparse.Namespace, dataset: list[Path], output: Path) -> list[Step]:
    epochs = ["--max_epochs", str(options.max_epochs)] if options.max_epochs else []
    small = ["--spatial_size", "[128,128]"] if options.small else []
    masks = ("predicted", "oracle") if options.oracle else ("predicted",)
    steps: list[Step] = []
    for seed in options.seeds:
        # The plain chain unless only the paper's was asked for, and the cross-fitted one on request.
        plain = options.ours or not (options.paper or options.lite)
        recipes = [*(["ours"] if plain else []), *(["lite"] if options.lite else [])]
        for recipe, folds in (
            *((recipe, None) for recipe in recipes),
            *((recipe, options.folds) for recipe in recipes or ["ours"] if options.folds),
        ):
            steps += plan_chain(
                *(dataset, output, recipe, seed),
                masks=masks,
                folds=folds,
                members=options.members,
                segmentation_overrides=[*epochs, *options.segmentation],
                classification_overrides=[*epochs, *options.classification],
            )
        for row in options.rows if options.paper else []:
            steps += plan_chain(
                *(dataset, output, "paper", seed, row),
                # One segmenter serves all classifiers, as in the paper.
                classifier_rows=options.classifier_rows if row == options.rows[0] else (),
                masks=masks,
                segmentation_overrides=[
                    *(*epochs, *small, *(["--filters", "[16,32,64,128]"] if small else [])),
                    *options.segmentation,
                ],
                classification_overrides=[*epochs, *small, *options.classification],
            )
    return steps


def _several(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text}: give 2 or more")
    return number


def _overrides(parser: argparse.ArgumentParser, pairs: list[str]) -> list[str]:
    """Turn KEY=VALUE into the words of a command line, which runs in the bundle's folder."""
    words = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            parser.error(f"'{pair}': give KEY=VALUE, such as spatial_size=[256,256]")
        words += [f"--{key}", value]
    return resolve_paths(words, Path.cwd())


if __name__ == "__main__":
    sys.exit(main())
