# SPDX-License-Identifier: Apache-2.0
"""Measure what a score on a dataset can be made of besides the ultrasound.

Always: the score of predicting no lesion at all, how well silhouettes alone tell the class, how many test images have
a twin in training under each way of splitting, and what one classifier scores under each. With --factorial: a SegNet
under every combination of masks, split, oversampling and input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder or CSV manifest of a dataset with masks and classes")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets leaks.json, factorial.json")
    parser.add_argument("--seeds", type=int, help="splits per protocol; default: 5, with --factorial 3")
    predicted = parser.add_argument_group("predicted masks, as scripts/prepare_data.py --classifier takes them")
    predicted.add_argument("--segmentation_dir", type=Path, help="the segmenter's run, with its predictions")
    predicted.add_argument("--prepared_dir", type=Path, help="what the segmenter was trained on")
    predicted.add_argument("--folds", type=int, help="so many segmenters, whose folders end in _fold0, _fold1 …")
    parser.add_argument("--factorial", action="store_true", help="train 16 small networks per seed; needs predictions")
    options = parser.parse_args(argv)
    if (options.segmentation_dir is None) != (options.prepared_dir is None):
        parser.error("--segmentation_dir and --prepared_dir go together")
    if options.factorial and options.segmentation_dir is None:
        parser.error("--factorial compares predicted masks with ground truth: give --segmentation_dir, --prepared_dir")

    # After the arguments: they load torch, which takes seconds.
    from bundle.audit.factorial import run_factorial
    from bundle.audit.leaks import audit_leaks, read_records

    records, about = read_records(
        options.dataset, options.output, options.segmentation_dir, options.prepared_dir, options.folds
    )
    if options.factorial:
        result = run_factorial(records, options.output, options.seeds or 3, about)
        for cell in result["cells"]:
            name = ", ".join(cell[key] for key in ("masks", "split", "oversampled", "input"))
            print(f"{name:>44}: AUROC {_tell(cell['auroc'])}, accuracy {_tell(cell['accuracy'])}")
        return 0
    result = audit_leaks(records, options.output, options.seeds or 5, about)
    background = result["background"]["pixel_accuracy"]
    print(f"pixel accuracy of predicting no lesion at all: {_tell(background)}, Dice 0")
    for source, answers in result["silhouettes"].items():
        for name, scores in answers.items():
            print(f"class from {name}, {source} masks: AUROC {_tell(scores['auroc'])}")
    for name, scores in result["protocols"].items():
        twins = scores["test_images_with_a_twin_in_training"]
        print(f"{name}: {twins:.1%} of test images have a twin in training, AUROC {_tell(scores['auroc'])}")
    print(f"Written: {options.output / 'leaks.json'}")
    return 0


def _tell(score: dict[str, Any]) -> str:
    return " ".join("–" if score[key] is None else f"{score[key]:.3f}" for key in ("estimate", "low", "high"))


if __name__ == "__main__":
    sys.exit(main())
