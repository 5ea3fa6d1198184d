# SPDX-License-Identifier: Apache-2.0
"""Check a dataset, group near duplicates and split it: what training and evaluation read.

With --classifier, split what a trained segmenter never saw, with the masks that it predicted: what the classifier's
training and evaluation read. They do so themselves where it was not done before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import print_any_text
from bundle.data.cases import FLAGS
from bundle.data.class_counts import count_table
from bundle.data.prepare import default_folder, prepare, split_again
from bundle.errors import UserError

ROOT = Path(__file__).resolve().parents[1]

SPLITS = {"segmentation": "15:5:80", "classification": "60:10:30"}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "dataset",
        type=Path,
        nargs="+",
        help="folder with benign/ malignant/ (normal/), or with manifest.csv, or a CSV manifest, or BUS-BRA, BrEaST, "
        "BUS-UCLM or STU as published; see docs/datasets.md. Several are used together: each in its own layout, and "
        "near duplicates across them stay in one part",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder to write to; default: data/prepared/<dataset>_<split>_seed<n>, where the configs look for it",
    )
    parser.add_argument(
        "--split",
        help=f"training:validation:test; default: {SPLITS['segmentation']}, with --classifier "
        f"{SPLITS['classification']}, as in the paper; or a fold, such as 'fold 0 of 5', or "
        "'own fold 0 of 5' of a dataset that comes with folds; or '65:5:30 by image', which lets near "
        "duplicates cross, to compare with published tables that do; or, of several datasets, 'leave out NAME', which "
        "tests that one, or 'NAME 15:5:80', which splits that one and trains on the others as well",
    )
    parser.add_argument(
        "--folds",
        type=int,
        help="also write a datalist per fold of a cross-validation; with --classifier: the masks are cross-fitted by "
        "so many segmenters, whose folders are named <segmentation_dir>_fold0, …",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="PREPARED",
        help="split the cases of this prepared folder anew: nothing is read, checked and grouped again",
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="CSV",
        help="groups.csv of an earlier call, perhaps corrected by hand: its groups are taken, nothing is searched for; "
        "docs/results/groups_busi_busbra.csv gives the splits of the recorded runs on every machine",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws another split; default: %(default)s")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad files out and list them in cases.json")
    parser.add_argument(
        "--leave-out",
        nargs="+",
        choices=FLAGS,
        default=[],
        metavar="FLAG",
        help=f"leave out images that the dataset, or its check, flags so: {', '.join(FLAGS)}",
    )
    parser.add_argument(
        "--conflicts",
        choices=["keep", "drop"],
        default="keep",
        help="groups of near duplicates that stand in several classes: keep them, each in one part, or leave them out; "
        "default: %(default)s",
    )
    classifier = parser.add_argument_group("for the classifier")
    classifier.add_argument("--classifier", action="store_true", help="write datalist_classifier.json")
    classifier.add_argument("--segmentation_dir", type=Path, help="the segmenter's run, with its predictions")
    classifier.add_argument("--prepared_dir", type=Path, help="what the segmenter was trained on")
    classifier.add_argument(
        "--masks", choices=["predicted", "oracle"], default="predicted", help="oracle: ground truth, for comparison"
    )
    options = parser.parse_args(argv)
    if options.like and options.groups:
        parser.error("--like keeps the groups of that folder: give it or --groups")
    print_any_text()
    try:
        return _prepare_classifier(parser, options) if options.classifier else _prepare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)  # in its own lines: it may list many bad files
        return 2


def _prepare(options: argparse.Namespace) -> int:
    split = options.split or SPLITS["segmentation"]
    output = options.output or default_folder(options.dataset, split, options.seed, ROOT)
    if options.like:
        split_again(options.like, output, split, options.seed)
    else:
        prepare(
            options.dataset,
            output,
            split=split,
            folds=options.folds,
            seed=options.seed,
            skip_bad=options.skip_bad,
            conflicts=options.conflicts,
            leave_out=options.leave_out,
            groups=options.groups,
        )
    print(count_table(output))
    print(f"Written to {output}")
    return 0


def _prepare_classifier(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.output is None or options.segmentation_dir is None or options.prepared_dir is None:
        parser.error("--classifier needs --output, --segmentation_dir and --prepared_dir")
    from bundle.data.classifier import ensure_classifier_prepared, name_sources

    datalist = ensure_classifier_prepared(
        options.dataset,
        name_sources(options.segmentation_dir, options.prepared_dir, options.folds),
        options.output,
        options.split or SPLITS["classification"],
        options.seed,
        options.masks,
    )
    for part in ("training", "validation", "test"):
        malignant = sum(record["class"] == "malignant" for record in datalist[part])
        print(f"{part:>12}: {len(datalist[part]) - malignant} benign, {malignant} malignant")
    print(f"Written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
