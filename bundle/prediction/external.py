# SPDX-License-Identifier: Apache-2.0
"""Run the Predictor over a dataset that it was not trained on, and report. Finished images are not predicted again."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bundle.data.cases import DIGITS, Case, CaseList, checksum
from bundle.data.check import LEFT_OUT, check_dataset
from bundle.data.duplicates import group_near_duplicates
from bundle.data.names import output_name
from bundle.data.roots import dataset_folder
from bundle.data.training_sets import SAME_PIXELS, read_training_sets, refuse_training_set
from bundle.errors import InputError, UserError
from bundle.evaluation.external import summarise_external, tabulate_patients
from bundle.evaluation.intervals import DRAWS
from bundle.evaluation.segmentation import gate, measure_case
from bundle.files import lock_folder, read_json, to_csv, write_atomically, write_json
from bundle.finding import ABSENT, LESION_STATES, NOT_A_DEVICE, UNUSABLE
from bundle.networks.weights import CLASSIFIER, SEGMENTER, read_card, weights_file
from bundle.outputs.png import write_mask
from bundle.prediction.batch import weights_digest
from bundle.prediction.predictor import Predictor
from bundle.provenance import describe_run
from bundle.readers import read_image, read_mask
from bundle.reports.external import write_external_report
from bundle.reports.figures import plot_examples
from bundle.reports.segmentation_handler import EXAMPLES
from bundle.transforms.masks import merge_masks

VERSION = 3  # of the files in `images/`; raise it whenever a row for a given image and weights changes
PATIENT, DUPLICATES = "patient", "group of near duplicates"


def evaluate_external(
    dataset: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    models: str | os.PathLike[str],
    *,
    layout: str | None = None,
    leave_out: Collection[str] = (),
    trained_on: Sequence[str | os.PathLike[str]] = (),
    device: torch.device | str | None = None,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Evaluate the weights of a folder on a dataset; write metrics.json, per_image.csv, per_patient.csv, report.html.

    Args:
        dataset: a folder or a CSV manifest.
        output_dir: made if need be. `images/` keeps each image's scores and `masks/` its predicted lesion; where both
            networks and the image are the same they are taken from there.
        models: folder of both weights, or a set in it, see `weights_file`.
        layout: as `bundle.data.check.list_dataset` takes it; None to detect it.
        leave_out: flags of `bundle.data.cases.FLAGS`; images with one of them are not scored.
        trained_on: prepared folders of what the weights were trained on, where `trained_on.json` beside them does not
            know; images with the same pixels, of whatever part, are not scored.
        device: of the networks.
        draws: number of bootstrap samples.

    Returns:
        What metrics.json holds. `bad` lists the images that could not be used, `left_out` those left out by choice.

    Raises:
        UserError: the dataset is the one that the weights were trained on, or bears its name and `trained_on` does not
            tell which images those were; no image can be used; or the weights can not be loaded.
    """
    dataset, output = Path(dataset), Path(output_dir)
    folder = dataset_folder(dataset)
    if output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{output}: lies inside {folder}, whose images are read; give an output folder outside it")
    predictor = Predictor.from_folder(models, device)
    cards = {
        name: read_card(weights_file(models, file))
        for name, file in (("segmenter", SEGMENTER), ("classifier", CLASSIFIER))
    }
    checked = check_dataset(dataset, skip_bad=True, layout=layout)
    trained = read_training_sets(trained_on, weights_file(models, SEGMENTER).parent, cards)
    refuse_training_set(checked, cards, dataset, trained)
    cases, left_out = _choose(checked.cases, leave_out, set().union(*trained.values()))
    if not cases:
        raise UserError(
            f"{dataset}: no image is left to score; the first was left out because: {left_out[0]['reason']}"
        )
    lock_folder(output)
    unit, groups = _group(cases, folder)
    digest = weights_digest(Path(models))  # and cards: threshold and calibration change without the weights
    rows, failed, reused = _predict_all(predictor, cases, folder, output, digest, _threshold(cards), groups)
    if not rows:
        raise UserError(f"{dataset}: no image could be predicted; the first: {failed[0]['reason']}")
    metrics = {
        "task": "external",
        "notice": NOT_A_DEVICE,
        "synthetic": checked.synthetic or any(card.get("synthetic") for card in cards.values()),
        "dataset": _describe(checked, rows),
        "unit": unit,
        "threshold": _threshold(cards),
        **summarise_external(rows, cards["classifier"]["operating_points"], draws),
        "warnings": _warnings(cards, unit, trained),
        "bad": [*checked.skipped, *failed],
        "left_out": left_out,
        "reused_predictions": reused,
        "weights": cards,
        "provenance": {
            **describe_run(),
            "dataset": checked.name,
            "dataset_sha256": checked.dataset_sha256,
            **{f"{name}_sha256": card.get("sha256") for name, card in cards.items()},
        },
    }
    write_json(output / "metrics.json", metrics)
    write_atomically(output / "per_image.csv", to_csv(rows))
    write_atomically(output / "per_patient.csv", to_csv(tabulate_patients(rows)))
    shown = [gate(row) for row in rows]
    examples = _draw_examples(shown, {case.image: case for case in cases}, folder, output, bool(metrics["synthetic"]))
    write_external_report(output, metrics, shown, examples)
    return metrics


def _choose(
    cases: Sequence[Case], leave_out: Collection[str], trained: Collection[str]
) -> tuple[list[Case], list[dict[str, str]]]:
    """The cases to score, and the others with the reason; `trained` is the first digits of the training's pixels."""
    kept, left_out = [], []
    for case in cases:
        unwanted = [flag for flag in case.flags if flag in leave_out]
        if unwanted or case.sha256[:DIGITS] in trained:
            reason = f"{LEFT_OUT} {unwanted[0]}" if unwanted else SAME_PIXELS
            left_out.append({"path": case.image, "reason": reason})
        else:
            kept.append(case)
    return kept, left_out


def _group(cases: Sequence[Case], folder: Path) -> tuple[str, dict[str, str]]:
    """What intervals are drawn by, and each image's: its patient, or, where one is not known, its near duplicates."""
    if all(case.patient for case in cases):
        return PATIENT, {case.image: str(case.patient) for case in cases}
    return DUPLICATES, group_near_duplicates(cases, folder)


def _predict_all(
    predictor: Predictor,
    cases: Sequence[Case],
    folder: Path,
    output: Path,
    weights: str,
    threshold: float,
    groups: Mapping[str, str],
) -> tuple[list[dict[str, Any]], list[dict[str, str]], int]:
    """The rows of all images, what could not be predicted, and how many rows an earlier run left."""
    rows, failed, reused = [], [], 0
    for case in tqdm(cases, desc="predicting", unit="image", disable=None):
        name = output_name(folder / case.image, folder)
        file = output / "images" / f"{name}.json"
        key = checksum([[VERSION, case.sha256, case.mask_sha256, weights]])
        scores = _recall(file, key)
        if scores is None:
            try:
                scores = _predict(predictor, case, folder, output / "masks" / name, threshold)
            except InputError as error:
                failed.append({**error.as_dict(), "path": case.image})
                continue
            write_json(file, {"key": key, "scores": scores})
        else:
            reused += 1
        rows.append(
            {
                **{"image": case.image, "group": groups[case.image], "patient": case.patient, "class": case.label},
                **{"flags": " ".join(case.flags), **scores},
            }
        )
    return rows, failed, reused


def _recall(file: Path, key: str) -> dict[str, Any] | None:
    """The scores that an earlier run left for the same image and weights; None where there are none of use."""
    if not file.is_file():
        return None
    try:
        content = read_json(file)
    except InputError:
        return None
    scores = content.get("scores")
    return scores if content.get("key") == key and isinstance(scores, dict) else None


def _predict(predictor: Predictor, case: Case, folder: Path, mask_file: Path, threshold: float) -> dict[str, Any]:
    image = read_image(folder / case.image)
    finding = predictor.predict(image)
    # What is not outlined is not found, whatever the map says: it stays in every figure, as Dice 0 and score 0. Where
    # the presence head said so, what it would have been stands beside.
    outlined, absent = finding.probability is not None, finding.reason == ABSENT
    probability = finding.probability_map / np.float32(255) * (outlined or absent)
    ungated = predictor.classifier.classify(case.image, image, probability) if absent else finding
    write_mask((probability >= threshold) & outlined, mask_file)
    told = {"presence": finding.lesion_probability or 0.0, "told_none": absent or finding.lesion_state == UNUSABLE}
    return {
        "probability": finding.probability or 0.0,
        "probability_raw": finding.probability_raw or 0.0,
        **(told if predictor.classifier.segmenter_card.get("presence") else {}),
        "probability_ungated": ungated.probability or 0.0,
        "lesion_state": finding.lesion_state,
        "reason": finding.reason,
        "outline_confidence": finding.outline_confidence,
        **dataclasses.asdict(measure_case(probability, _truth(case, folder), threshold)),
        "warnings": "; ".join(finding.warnings),
    }


def _truth(case: Case, folder: Path) -> np.ndarray:
    if not case.masks:
        return np.zeros(case.size, dtype=bool)
    return merge_masks([folder / mask for mask in case.masks], folder / case.image, case.size)


def _threshold(cards: Mapping[str, Mapping[str, Any]]) -> float:
    return float(cards["segmenter"].get("threshold", 0.5))


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
        items.append((read_image(folder / case.image).pixels, _truth(case, folder), predicted, title))
    if items:
        plot_examples(items, output / "examples.png", threshold=0.5, synthetic=synthetic)
    return bool(items)
