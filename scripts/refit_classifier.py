# SPDX-License-Identifier: Apache-2.0
"""Fit a classifier's card anew, its weights unchanged: fusion, temperature, operating points, prediction sets.

    python scripts/prepare_data.py DATASET --output runs/prepared
    python -m monai.bundle run --config_file configs/inference.json --dataset_dir DATASET --output_dir runs/masks
    python scripts/refit_classifier.py DATASET --prepared_dir runs/prepared --segmenter models/model.pt \\
        --maps_dir runs/masks/probabilities --output runs/refit --publish

Its images are those of its own training and validation; others are refused by the checksums on the card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, metavar="DIR", help="the dataset of the classifier's training")
    parser.add_argument(
        "--weights",
        type=Path,
        default=ROOT / "models" / "model_classifier.pt",
        metavar="FILE",
        help="of the classifier, its card beside it; default: models/model_classifier.pt",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets the weights and the new card")
    parser.add_argument("--prepared_dir", type=Path, metavar="DIR", help="what the segmenter was trained on")
    parser.add_argument("--segmentation_dir", type=Path, metavar="DIR", help="the segmenter's run, with predictions")
    parser.add_argument("--segmenter", type=Path, metavar="FILE", help="its weights, where they lie elsewhere")
    parser.add_argument("--maps_dir", type=Path, metavar="DIR", help="its probability maps, where they lie elsewhere")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--publish", action="store_true", help="also put the card beside the weights it was made from")
    options = parser.parse_args(argv)

    from bundle.networks.weights import publish  # after the arguments: torch and MONAI take seconds to import
    from bundle.training.refit import refit_classifier

    names = ("dataset_dir", "prepared_dir", "segmentation_dir", "segmenter", "maps_dir")
    folders = {name: getattr(options, name) for name in names}
    card = refit_classifier(options.weights, options.output, folders, options.device)
    validation = card["validation"]
    print(
        f"AUROC {validation['auroc']:.3f} on {validation['images']} validation images (the network alone "
        f"{validation['auroc_network']:.3f}), temperature {card['temperature']:.2f}"
    )
    target = options.output / "model_classifier.pt"
    print(f"Written: {target}, {target.with_suffix('.json')}")
    if options.publish:
        publish(target, options.weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
