# SPDX-License-Identifier: Apache-2.0
"""Evaluate both networks on another hospital's dataset: per image and per patient, with intervals by patient.

Whether the operating points hold there, how far the probabilities have drifted, and what was found beside what a rule
that looks at no image would score. The same command goes on where an earlier one stopped. Research software only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.data.cases import FLAGS

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ("bus-bra", "breast", "bus-uclm", "stu", "busi", "manifest")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 2 for a user's mistake, 3 if some images could not be used and the others are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, metavar="DIR", help="the dataset's folder, or a CSV manifest")
    parser.add_argument("--dataset", choices=DATASETS, help="its layout, see docs/datasets.md; default: detect it")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/external_<dataset folder name>")
    parser.add_argument(
        "--models",
        type=Path,
        default=ROOT / "models",
        metavar="DIR",
        help="default: models; models/paper for paper_model.pt and its fellows there",
    )
    parser.add_argument("--small", action="store_true", help="segment with model_small.pt of that folder")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one")
    parser.add_argument(
        "--leave-out",
        nargs="+",
        choices=FLAGS,
        default=[],
        metavar="FLAG",
        help=f"do not score images that are flagged so: {', '.join(FLAGS)}",
    )
    parser.add_argument(
        "--trained-on",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="prepared folders of the weights' own training, where trained_on.json beside them does not know it; "
        "images with the same pixels are not scored",
    )
    parser.add_argument(
        "--site",
        type=Path,
        metavar="FILE",
        help="site.json of scripts/recalibrate.py; the images that it was fitted on are not scored",
    )
    parser.add_argument("--draws", type=int, default=2000, help="bootstrap samples; default: %(default)s")
    options = parser.parse_args(argv)
    if options.draws < 2:
        parser.error("--draws: give 2 or more")

    from bundle.data.folder import SOME_CASES_FAILED
    from bundle.data.roots import dataset_folder  # after the arguments: torch and MONAI take seconds to import
    from bundle.prediction.external import evaluate_external

    output = options.output or Path("runs") / f"external_{dataset_folder(options.dataset_dir).resolve().name}"
    metrics = evaluate_external(
        options.dataset_dir,
        output,
        options.models,
        small=options.small,
        layout=options.dataset,
        leave_out=options.leave_out,
        trained_on=options.trained_on,
        device=options.device,
        site=options.site,
        draws=options.draws,
    )
    _print(metrics)
    print(f"Report: {output / 'report.html'}")
    for bad in metrics["bad"]:
        print(f"skipped: {bad['path']}: {bad['reason']}; {bad['mend']}", file=sys.stderr)
    return SOME_CASES_FAILED if metrics["bad"] else 0


def _print(metrics: dict[str, Any]) -> None:
    data, segmentation = metrics["dataset"], metrics["segmentation"]["per_image"]["lesions"]
    if metrics["site"]:
        print(f"calibrated for {metrics['site']['name']} by {metrics['site']['sha256'][:12]}…")
    for warning in metrics["warnings"]:
        print(f"warning: {warning}")
    print(f"{data['name']} ({data['source']}): {data['images']} images, grouped by {metrics['unit']}: {data['groups']}")
    states = {state: sum(counts.values()) for state, counts in data["lesion_states"].items()}
    print("lesion: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    print(
        f"Dice {_tell(segmentation['dice'])}, pixel accuracy {_tell(segmentation['pixel_accuracy'])} where predicting "
        f"no lesion at all scores {_tell(segmentation['background_accuracy'])}"
    )
    for level, scores in metrics["classification"].items():
        print(
            f"{level.replace('_', ' ')}: AUROC {_tell(scores['auroc'])}, "
            f"accuracy {_tell(scores['operating_points']['default']['accuracy'])} where the larger class alone scores "
            f"{_tell(scores['majority_accuracy'])}, calibration slope {_tell(metrics['calibration'][level]['slope'])}"
        )
    for point in metrics["transfer"]:
        for level, reached in point["reached"].items():
            print(
                f"{level.replace('_', ' ')}, sensitivity wanted {point['sensitivity_wish']:.2f}: "
                f"reached {_tell(reached['sensitivity'])}, specificity {_tell(reached['specificity'])}"
            )
    print("Research software, not a medical device.")


def _tell(score: dict[str, float | None]) -> str:
    estimate, low, high = ("–" if score[key] is None else f"{score[key]:.3f}" for key in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
