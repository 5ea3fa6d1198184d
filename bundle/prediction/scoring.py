# SPDX-License-Identifier: Apache-2.0
"""Predict the labelled images of a dataset, score each beside its truth, and keep that, so that a rerun goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from bundle.data.cases import Case, checksum
from bundle.data.names import output_name
from bundle.errors import InputError
from bundle.evaluation.segmentation import STRATA, measure_case
from bundle.files import read_json, to_json, write_json
from bundle.finding import ABSENT, UNUSABLE, Finding
from bundle.outputs.png import write_mask
from bundle.prediction.ahead import at_once, read_ahead
from bundle.prediction.predictor import Predictor
from bundle.readers import UltrasoundImage, read_image
from bundle.transforms.masks import merge_masks

VERSION = 6  # of the files in `images/`; raise it whenever a row for a given image and weights changes

_Step: TypeAlias = tuple[Case, dict[str, Any] | None, tuple[UltrasoundImage, np.ndarray] | None]
"""A case; its scores of an earlier run, or its error; what was read of it where there are none."""


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
    work = _Scoring(predictor, folder, output, cards)

    rows, failed, reused = [], [], 0
    # To read, to score and to flush files hide behind the networks.
    done = read_ahead(work.score, at_once(predictor, work.predict, read_ahead(work.load, cases)))
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


@dataclass(frozen=True)
class _Scoring:
    """The steps from a case to its scores, each of which may run in a thread of its own.

    Args:
        predictor, folder, output: as `predict_cases` takes them.
        cards: of both networks, as text.
    """

    predictor: Predictor
    folder: Path
    output: Path
    cards: str

    def load(self, case: Case) -> _Step:
        """What an earlier run left, or the image and its truth, or the error of a file that is bad."""
        if (scores := _recall(self._file(case), self._key(case))) is not None:
            return case, scores, None
        try:
            return case, None, (read_image(self.folder / case.image), read_truth(case, self.folder))
        except InputError as error:
            return case, {"error": {**error.as_dict(), "path": case.image}}, None

    def predict(self, step: _Step) -> tuple[_Step, Finding | None, Finding | None]:
        """The finding of an image, and what it would be if the presence head were not asked."""
        case, _, loaded = step
        if loaded is None:
            return step, None, None
        image, _ = loaded
        finding = ungated = self.predictor.predict(image)
        if finding.reason == ABSENT:
            probability = finding.probability_map / np.float32(255)
            ungated = self.predictor.classifier.classify(case.image, image, probability)
        return step, finding, ungated

    def score(self, predicted: tuple[_Step, Finding | None, Finding | None]) -> tuple[Case, dict[str, Any], bool]:
        """The scores of a case, or its error, and whether an earlier run left them; they and the mask are kept."""
        (case, scores, loaded), finding, ungated = predicted
        if finding is None or ungated is None or loaded is None:
            return case, scores or {}, "error" not in (scores or {})
        threshold = threshold_of(self.predictor.classifier.segmenter_card)
        # What is not outlined is not found, whatever the map says: it stays in every figure, as Dice 0 and score 0.
        # Where the presence head said so, what it would have been stands beside.
        outlined, absent = finding.probability is not None, finding.reason == ABSENT
        probability = finding.probability_map / np.float32(255) * (outlined or absent)
        write_mask((probability >= threshold) & outlined, self.output / "masks" / self._name(case))
        told = {"presence": finding.lesion_probability or 0.0, "told_none": absent or finding.lesion_state == UNUSABLE}
        scores = {
            "probability": finding.probability or 0.0,
            "probability_raw": finding.probability_raw or 0.0,
            **(told if self.predictor.classifier.segmenter_card.get("presence") else {}),
            "probability_ungated": ungated.probability or 0.0,
            "lesion_state": finding.lesion_state,
            "reason": finding.reason,
            "outline_confidence": finding.outline_confidence,
            **dataclasses.asdict(measure_case(probability, loaded[1], threshold)),
            "warnings": "; ".join(finding.warnings),
        }
        write_json(self._file(case), {"key": self._key(case), "scores": scores})
        return case, scores, False

    def _name(self, case: Case) -> Path:
        return output_name(self.folder / case.image, self.folder)

    def _file(self, case: Case) -> Path:
        return self.output / "images" / f"{self._name(case)}.json"

    def _key(self, case: Case) -> str:
        return checksum([[VERSION, case.sha256, case.mask_sha256, self.cards]])


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


def read_truth(case: Case, folder: Path) -> np.ndarray:
    """The lesion of a case, (H, W) bool; empty where it has no mask."""
    if not case.masks:
        return np.zeros(case.size, dtype=bool)
    return merge_masks([folder / mask for mask in case.masks], folder / case.image, case.size)


def threshold_of(card: Mapping[str, Any]) -> float:
    """The probability from which a pixel counts as lesion, of a segmenter's card."""
    return float(card.get("threshold", 0.5))
