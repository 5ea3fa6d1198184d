# SPDX-License-Identifier: Apache-2.0
"""Predict the labelled images of a dataset, score each beside its truth, and keep that, so that a rerun goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bundle.data.cases import DIGITS, Case, checksum
from bundle.data.check import LEFT_OUT
from bundle.data.names import output_name
from bundle.errors import InputError
from bundle.evaluation.segmentation import STRATA, measure_case
from bundle.files import read_json, to_json, write_json
from bundle.finding import ABSENT, UNUSABLE
from bundle.outputs.png import write_mask
from bundle.prediction.batch import at_once
from bundle.prediction.predictor import Predictor
from bundle.readers import read_image
from bundle.transforms.masks import merge_masks

VERSION = 5  # of the files in `images/`; raise it whenever a row for a given image and weights changes


def choose_cases(
    cases: Sequence[Case], leave_out: Collection[str], seen: Mapping[str, Collection[str]]
) -> tuple[list[Case], list[dict[str, str]]]:
    """Return the cases to score, and the others with the reason.

    Args:
        cases: of the dataset.
        leave_out: flags that are not wanted.
        seen: why an image is not unseen -> the first digits of the checksums of the pixels of those that are not.
    """
    kept, left_out = [], []
    for case in cases:
        reasons = [f"{LEFT_OUT} {flag}" for flag in case.flags if flag in leave_out]
        reasons += [reason for reason, pixels in seen.items() if case.sha256[:DIGITS] in pixels]
        if reasons:
            left_out.append({"path": case.image, "reason": reasons[0]})
        else:
            kept.append(case)
    return kept, left_out


def predict_cases(
    predictor: Predictor, cases: Sequence[Case], folder: Path, output: Path, groups: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, str]], int]:
    """Return the rows of all images, what could not be predicted, and how many rows an earlier run left.

    Args:
        predictor: makes the findings.
        cases: of one dataset.
        folder: of it.
        output: gets `images/`, each image's scores, and `masks/`, its predicted lesion.
        groups: image -> what it is drawn with.
    """
    classifier = predictor.classifier
    cards = to_json([classifier.segmenter_card, classifier.card])  # as they are in use: weights, limits, temperature

    def score(case: Case) -> tuple[Case, dict[str, Any], bool]:
        """The scores of a case, or its error, and whether an earlier run left them."""
        name = output_name(folder / case.image, folder)
        file = output / "images" / f"{name}.json"
        key = checksum([[VERSION, case.sha256, case.mask_sha256, cards]])
        if (scores := _recall(file, key)) is not None:
            return case, scores, True
        try:
            scores = _predict(predictor, case, folder, output / "masks" / name)
        except InputError as error:
            return case, {"error": {**error.as_dict(), "path": case.image}}, False
        write_json(file, {"key": key, "scores": scores})
        return case, scores, False

    rows, failed, reused = [], [], 0
    done = at_once(predictor, score, cases)
    for case, scores, was_there in tqdm(done, total=len(cases), desc="predicting", unit="image", disable=None):
        if "error" in scores:
            failed.append(scores["error"])
            continue
        reused += was_there
        rows.append(
            {
                **{"image": case.image, "group": groups[case.image], "patient": case.patient, "class": case.label},
                **{"flags": " ".join(case.flags), **{key: case.details.get(key, "") for key in STRATA}, **scores},
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


def _predict(predictor: Predictor, case: Case, folder: Path, mask_file: Path) -> dict[str, Any]:
    threshold = threshold_of(predictor.classifier.segmenter_card)
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
        **dataclasses.asdict(measure_case(probability, read_truth(case, folder), threshold)),
        "warnings": "; ".join(finding.warnings),
    }


def read_truth(case: Case, folder: Path) -> np.ndarray:
    """The lesion of a case, (H, W) bool; empty where it has no mask."""
    if not case.masks:
        return np.zeros(case.size, dtype=bool)
    return merge_masks([folder / mask for mask in case.masks], folder / case.image, case.size)


def threshold_of(card: Mapping[str, Any]) -> float:
    """The probability from which a pixel counts as lesion, of a segmenter's card."""
    return float(card.get("threshold", 0.5))
