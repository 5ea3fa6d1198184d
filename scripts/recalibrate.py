# SPDX-License-Identifier: Apache-2.0
"""Fit the weights' answers to an institution's own labelled images: DIR -> site.json. Research software only.

    python scripts/recalibrate.py DIR --output site.json
    python scripts/predict.py IMAGES --output OUT --site site.json

Temperature, operating points, prediction sets, the limit of doubtful outlines and, where there are normal images, that
of "no lesion": from 30 images of a class on, of 10 patients. What the images cannot support is named and stays as it
is on the weights' cards. Every figure before and after comes with its 95 % interval; those after are of a
cross-validation whose folds hold whole patients and groups of near duplicates. The weights do not change.

The images are labelled as for an evaluation: docs/datasets.md. The same command goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.data.cases import FLAGS
from scripts.evaluate_external import DATASETS

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 2 for a user's mistake, 3 if some images could not be used and the file is written without them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset_dir", type=Path, metavar="DIR", help="folder of the labelled images, or a CSV manifest")
    add("--output", type=Path, required=True, metavar="FILE", help="the site file to write, such as site.json")
    add("--name", help="of the institution, which every finding will name; default: the folder's name")
    add("--dataset", choices=DATASETS, help="layout of the images, see docs/datasets.md; default: detect it")
    add("--models", type=Path, default=ROOT / "models", metavar="DIR", help="weights to fit; default: models")
    add("--small", action="store_true", help="fit model_small.pt of that folder, for predict.py --small")
    add("--work", type=Path, metavar="DIR", help="keeps finished images; default: runs/recalibrate_<folder name>")
    add("--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one")
    add(
        "--leave-out",
        nargs="+",
        choices=FLAGS,
        default=[],
        metavar="FLAG",
        help=f"do not use images that are flagged so: {', '.join(FLAGS)}",
    )
    add(
        "--trained-on",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="prepared folders of the weights' own training, where trained_on.json beside them does not know it; "
        "images with the same pixels are refused as unseen",
    )
    add("--draws", type=int, default=2000, help="bootstrap samples; default: %(default)s")
    add("--seed", type=int, default=0, help="of the folds and the bootstrap; default: %(default)s")
    options = parser.parse_args(argv)
    if options.draws < 2:
        parser.error("--draws: give 2 or more")

    from bundle.data.folder import SOME_CASES_FAILED
    from bundle.data.roots import dataset_folder  # after the arguments: torch and MONAI take seconds to import
    from bundle.prediction.site_calibration import TooFewImagesError, recalibrate_site

    work = options.work or Path("runs") / f"recalibrate_{dataset_folder(options.dataset_dir).resolve().name}"
    how = {
        name: getattr(options, name) for name in ("name", "small", "leave_out", "trained_on", "device", "draws", "seed")
    }
    try:
        site = recalibrate_site(
            options.dataset_dir, options.output, options.models, work, layout=options.dataset, **how
        )
    except TooFewImagesError as error:
        for name, reason in error.refused.items():
            print(f"not fitted: {name}: {reason}", file=sys.stderr)
        raise
    _print(site)
    print(f"Written: {options.output}")
    print("Research software, not a medical device.")
    for bad in site["images"]["bad"]:
        print(f"skipped: {bad['path']}: {bad['reason']}; {bad['mend']}", file=sys.stderr)
    return SOME_CASES_FAILED if site["images"]["bad"] else 0


def _print(site: Mapping[str, Any]) -> None:
    images = site["images"]
    classes = ", ".join(f"{count} {name}" for name, count in images["classes"].items())
    print(f"{site['name']}: {images['used']} images ({classes}) of {images['groups']} patients or groups")
    if images["left_out"]:
        print(f"{len(images['left_out'])} left out; the first: {images['left_out'][0]['reason']}")
    for name, reason in site["refused"].items():
        print(f"not fitted: {name}: {reason}")
    for name, value in _fitted(site).items():
        print(f"fitted: {name} {value:.3f} {_range(site['intervals'][name])}")
    before, after = site["cross_validation"]["before"], site["cross_validation"]["after"]
    print(f"{'':34}{'with the cards':24}{'with this file, out of fold':24}")
    for title, path in _SHOWN.items():
        old, new = _look_up(before, path), _look_up(after, path)
        if new is not None:
            print(f"{title:34}{_tell(old):24}{_tell(new):24}")
    for name in after.get("classification", {}).get("operating_points", {}):
        for score in ("sensitivity", "specificity"):
            path = ("classification", "operating_points", name, score)
            print(f"{f'{score} at {name}':34}{_tell(_look_up(before, path)):24}{_tell(_look_up(after, path)):24}")


_SHOWN = {
    "Brier score": ("classification", "brier"),
    "calibration error": ("classification", "ece"),
    "calibration slope": ("calibration", "slope"),
    "calibration in the large": ("calibration", "in_the_large"),
    "benign in the prediction set": ("prediction_sets", "coverage_benign"),
    "malignant in the prediction set": ("prediction_sets", "coverage_malignant"),
    "unsure": ("prediction_sets", "unsure"),
    "good outlines called doubtful": ("doubt", "well_outlined", "doubtful"),
    "bad outlines called doubtful": ("doubt", "badly_outlined", "doubtful"),
    "lesions told to be none": ("presence", "lesions_lost"),
    "normal images outlined": ("presence", "normals_outlined"),
}


def _fitted(site: Mapping[str, Any]) -> dict[str, float]:
    segmenter, classifier = site["segmenter"], site["classifier"]
    values = {"temperature": classifier.get("temperature"), "doubt limit": segmenter.get("doubtful_below")}
    values["presence limit"] = segmenter.get("presence_points", {}).get("none_below")
    points = classifier.get("operating_points", [])
    values |= {f"sensitivity {point['sensitivity_wish']:.2f}": point["threshold"] for point in points}
    return {name: value for name, value in values.items() if value is not None and name in site["intervals"]}


def _look_up(scores: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        scores = scores.get(key) if scores else None
    return scores


def _tell(score: dict[str, float | None] | None) -> str:
    if score is None or score["estimate"] is None:
        return "–"
    return f"{score['estimate']:.3f} {_range(score)}"


def _range(score: Mapping[str, float | None]) -> str:
    low, high = ("–" if score[key] is None else f"{score[key]:.3f}" for key in ("low", "high"))
    return f"[{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
