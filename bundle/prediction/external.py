# SPDX-License-Identifier: Apache-2.0
"""Run the Predictor over a dataset that it was not trained on, and report. Finished images are not predicted again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.data.cases import DIGITS, Case, CaseList
from bundle.data.duplicates import group_near_duplicates
from bundle.data.names import output_name
from bundle.data.roots import dataset_folder
from bundle.errors import UserError
from bundle.evaluation.external import summarise_external, tabulate_patients
from bundle.evaluation.intervals import DRAWS
from bundle.evaluation.segmentation import gate
from bundle.files import lock_folder, sha256_of, to_csv, write_atomically, write_json
from bundle.finding import LESION_STATES, NOT_A_DEVICE
from bundle.networks.site_file import read_site
from bundle.prediction.backends import AUTO
from bundle.prediction.predictor import Predictor
from bundle.prediction.scoring import predict_cases, read_truth, threshold_of
from bundle.prediction.unseen import find_unseen
from bundle.provenance import describe_run
from bundle.readers import read_image, read_mask
from bundle.reports.external import write_external_report
from bundle.reports.figures import EXAMPLES, plot_examples

FITTED_ON = "the site file was fitted on this image, so it is not unseen"
FITTED_NEAR = "the site file was fitted on another image of this patient, or on a near duplicate"
PATIENT, DUPLICATES = "patient", "group of near duplicates"


def evaluate_external(
    dataset: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    models: str | os.PathLike[str],
    *,
    small: bool = False,
    layout: str | None = None,
    leave_out: Collection[str] = (),
    trained_on: Sequence[str | os.PathLike[str]] = (),
    device: torch.device | str | None = None,
    site: str | os.PathLike[str] | None = None,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Evaluate the weights of a folder on a dataset; write metrics.json, per_image.csv, per_patient.csv, report.html.

    Args:
        dataset: a folder or a CSV manifest.
        output_dir: made if need be. `images/` keeps each image's scores and `masks/` its predicted lesion; where both
            networks and the image are the same they are taken from there.
        models: folder of both weights, or a set in it, see `bundle.networks.weights.weights_file`.
        small: of ``model_small.pt`` in place of ``model.pt``.
        layout, leave_out, trained_on: as `find_unseen` takes them.
        device: of the networks.
        site: a ``site.json`` that replaces what the cards say; the images that it was fitted on are not scored.
        draws: number of bootstrap samples.

    Returns:
        What metrics.json holds. `bad` lists the images that could not be used, `left_out` those left out by choice.

    Raises:
        UserError: the dataset is the one that the weights were trained on, or bears its name and `trained_on` does not
            tell which images those were; no image can be used; the weights can not be loaded; or the site file is of
            other ones, or was fitted on these very images.
    """
    dataset, output = Path(dataset), Path(output_dir)
    folder = dataset_folder(dataset)
    if output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{output}: lies inside {folder}, whose images are read; give an output folder outside it")
    predictor = Predictor.from_folder(models, device, backend=AUTO, small=small, site=site)
    fitted_on = frozenset() if site is None else read_site(site).pixels
    unseen = find_unseen(
        dataset,
        models,
        small,
        layout=layout,
        leave_out=leave_out,
        trained_on=trained_on,
        seen={FITTED_ON: fitted_on},
    )
    cards, checked = unseen.cards, unseen.checked
    lock_folder(output)
    fitted = [case for case in checked.cases if case.sha256[:DIGITS] in fitted_on]
    unit, groups = _group([*unseen.cases, *fitted], folder)
    cases, relatives = _without_groups(unseen.cases, groups, {groups[case.image] for case in fitted})
    if not cases:
        raise UserError(f"{dataset}: no image is left to score: {relatives[0]['reason']}")
    left_out = [*unseen.left_out, *relatives]
    rows, failed, reused = predict_cases(predictor, cases, folder, output, groups)
    if not rows:
        raise UserError(f"{dataset}: no image could be predicted; the first: {failed[0]['reason']}")
    metrics = {
        "task": "external",
        "notice": NOT_A_DEVICE,
        "synthetic": checked.synthetic or any(card.get("synthetic") for card in cards.values()),
        "dataset": _describe(checked, rows),
        "unit": unit,
        "site": None if site is None else {"name": predictor.classifier.site, "sha256": sha256_of(site)},
        "threshold": threshold_of(cards["segmenter"]),
        **summarise_external(rows, predictor.classifier.card["operating_points"], draws),
        "warnings": [*_warnings(cards, unit, unseen.trained), *_warn_of_site(left_out)],
        "bad": [*checked.skipped, *failed],
        "left_out": left_out,
        "reused_predictions": reused,
        "weights": cards,
        "provenance": {
            **describe_run(),
            "dataset": checked.name,
            "dataset_sha256": checked.dataset_sha256,
            **{f"{name}_sha256": card.get("sha256") for name, card in cards.items()},
            "computed_by": predictor.computed_by,
        },
    }
    write_json(output / "metrics.json", metrics)
    write_atomically(output / "per_image.csv", to_csv(rows))
    write_atomically(output / "per_patient.csv", to_csv(tabulate_patients(rows)))
    shown = [gate(row) for row in rows]
    examples = _draw_examples(shown, {case.image: case for case in cases}, folder, output, bool(metrics["synthetic"]))
    write_external_report(output, metrics, shown, examples)
    return metrics


def _group(cases: Sequence[Case], folder: Path) -> tuple[str, dict[str, str]]:
    """What intervals are drawn by, and each image's: its patient, or, where one is not known, its near duplicates."""
    if all(case.patient for case in cases):
        return PATIENT, {case.image: str(case.patient) for case in cases}
    return DUPLICATES, group_near_duplicates(cases, folder)


def _without_groups(
    cases: Sequence[Case], groups: Mapping[str, str], seen: Collection[str]
) -> tuple[list[Case], list[dict[str, str]]]:
    """The cases of no seen group, and the others with the reason."""
    others = [{"path": case.image, "reason": FITTED_NEAR} for case in cases if groups[case.image] in seen]
    return [case for case in cases if groups[case.image] not in seen], others


def _describe(checked: CaseList, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "name": checked.name,
        "source": checked.source,
        "dataset_sha256": checked.dataset_sha256,
        "images": len(rows),
        "groups": len({row["group"] for row in rows}),
        "classes": dict(sorted(Counter(row["class"] for row in rows).items())),
        "lesion_states": {
            state: dict(sorted(Counter(row["class"] for row in rows if row["lesion_state"] == state).items()))
            for state in LESION_STATES
        },
        "flags": dict(sorted(Counter(flag for row in rows for flag in row["flags"].split()).items())),
    }


def _warnings(cards: Mapping[str, Mapping[str, Any]], unit: str, trained: Collection[str]) -> list[str]:
    found = []
    if unit == DUPLICATES:
        found.append("the dataset does not name every patient: groups of near duplicates stand in for patients")
    for name, card in cards.items():
        if card.get("synthetic"):
            found.append(f"SYNTHETIC: the {name} was trained on a phantom and says nothing about patients")
        if not card.get("dataset_sha256"):
            found.append(f"the card of the {name} does not say what it was trained on: it may have seen these images")
        elif card["dataset_sha256"] not in trained:
            found.append(
                f"it is not recorded which images the {name} was trained on, so copies of them here are not found; "
                "name the training's prepared folder with --trained-on"
            )
    return found


def _warn_of_site(left_out: Sequence[Mapping[str, str]]) -> list[str]:
    number = sum(entry["reason"] in (FITTED_ON, FITTED_NEAR) for entry in left_out)
    told = "images were left out: the site file was fitted on them, on others of their patients, or on near duplicates"
    return [f"{number} {told}"] if number else []


def _draw_examples(
    rows: Sequence[Mapping[str, Any]], cases: Mapping[str, Case], folder: Path, output: Path, synthetic: bool
) -> bool:
    """Draw lesions evenly from the worst Dice to the best; False where there is none."""
    lesions = sorted((row for row in rows if row["dice"] is not None), key=lambda row: (row["dice"], row["image"]))
    places = np.linspace(0, len(lesions) - 1, min(EXAMPLES, len(lesions))).round().astype(int)
    items = []
    for row in (lesions[place] for place in places):
        case = cases[row["image"]]
        predicted = read_mask(output / "masks" / output_name(folder / case.image, folder)).astype(np.float32)
        title = f"{case.label}, Dice {row['dice']:.2f}, P(malignant) {row['probability']:.2f}"
        items.append((read_image(folder / case.image).pixels, read_truth(case, folder), predicted, title))
    if items:
        plot_examples(items, output / "examples.png", threshold=0.5, synthetic=synthetic)
    return bool(items)
