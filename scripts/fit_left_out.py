# SPDX-License-Identifier: Apache-2.0
"""Give a card what its recipe needed in left-out hospitals: a classifier's temperature, operating points, prediction
sets; a segmenter's limit of "no lesion".

    python scripts/fit_left_out.py runs/classifier_without_A runs/classifier_without_B \\
        --weights models/model_classifier.pt --output runs/left_out --publish
    python scripts/fit_left_out.py runs/without_A runs/without_B runs/out_of_fold \\
        --weights models/model.pt --output runs/left_out --publish

The runs are evaluated trainings of the same recipe with --split "leave out NAME", one for each hospital of the weights'
training; of a segmenter also pooled folds. Each threshold reaches its sensitivity in every one of them; the card, and
with it the model card, also says what it reached in each with the thresholds that the others ask for. The weights do
not change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, each with its evaluation")
    parser.add_argument(
        "--weights",
        type=Path,
        default=ROOT / "models" / "model_classifier.pt",
        metavar="FILE",
        help="of the network trained on all of them, its card beside it; default: models/model_classifier.pt",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets the weights and the new card")
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap samples; default: %(default)s")
    parser.add_argument("--publish", action="store_true", help="also put the card beside the weights it was made from")
    options = parser.parse_args(argv)
    if options.draws < 2:
        parser.error("--draws: give 2 or more")

    from bundle.networks.weights import publish, require_card  # after the arguments: torch takes seconds

    fit = _fit_classifier if "operating_points" in require_card(options.weights) else _fit_segmenter
    target = fit(options)
    print(f"Written: {target}, {target.with_suffix('.json')}")
    if options.publish:
        publish(target, options.weights)
    return 0


def _fit_segmenter(options: argparse.Namespace) -> Path:
    from bundle.training.left_out_presence import fit_presence_left_out

    points = fit_presence_left_out(options.weights, options.runs, options.output, options.draws)["presence_points"]
    print(f"no lesion below {points['none_below']:.3f}, on validation {points['on_validation']['none_below']:.3f}")
    for name, hospital in points["hospitals"].items():
        print(f"{name}: {hospital['lesions']} lesions, {hospital['without']} without; needs {hospital['needed']:.3f}")
        ways = (("common limit", "common"), ("by the others", "from_others"), ("by the run's own card", "from_card"))
        for title, key in ways:
            told = hospital[key]
            if told is not None:
                passed = "" if told["passed"] is None else f", normals passed {_tell(told['passed'])}"
                print(f"    {title}: lesions lost {_tell(told['lost'])}{passed}")
    target: Path = options.output / options.weights.name
    return target


def _fit_classifier(options: argparse.Namespace) -> Path:
    from bundle.training.left_out import fit_left_out

    card = fit_left_out(options.weights, options.runs, options.output, options.draws)
    before = card["left_out"]["on_validation"]["temperature"]
    print(f"temperature {card['temperature']:.2f}, on validation {before:.2f}")
    for place, point in enumerate(card["operating_points"]):
        print(f"sensitivity {point['sensitivity_wish']:.2f}: malignant from {point['threshold']:.3f}")
        for name, hospital in card["left_out"]["hospitals"].items():
            for title, key in (("by the others", "from_others"), ("by validation", "from_validation")):
                reached = hospital[key]["operating_points"][place]
                scores = ", ".join(f"{score} {_tell(reached[score])}" for score in ("sensitivity", "specificity"))
                print(f"    {name}, {title}: {scores}")
    target: Path = options.output / "model_classifier.pt"
    return target


def _tell(score: Mapping[str, float | None]) -> str:
    estimate, low, high = ("–" if score[key] is None else f"{score[key]:.3f}" for key in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
