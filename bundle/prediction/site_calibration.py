# SPDX-License-Identifier: Apache-2.0
"""Fit the weights' answers to an institution's own labelled images, and write that as ``site.json``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.special import logit

from bundle.data.cases import DIGITS, CaseList
from bundle.data.duplicates import group_near_duplicates
from bundle.data.roots import dataset_folder
from bundle.errors import InputError, UserError
from bundle.evaluation.classification import name_point
from bundle.evaluation.intervals import DRAWS
from bundle.evaluation.recalibration import (
    DOUBT,
    PRESENCE,
    SETS,
    TEMPERATURE,
    Calibration,
    find_unsupported,
    recalibrate,
)
from bundle.files import lock_folder, write_json
from bundle.finding import NOT_A_DEVICE, UNUSABLE
from bundle.networks.site_file import SITE_VERSION, fusion_digest
from bundle.prediction.predictor import Predictor
from bundle.prediction.scoring import predict_cases
from bundle.prediction.unseen import find_unseen
from bundle.provenance import describe_run

_CLIP = 1e-15
"""Probabilities are kept this far from 0 and 1, whose logits are infinite; float64 tells no more of them."""


def recalibrate_site(
    dataset: str | os.PathLike[str],
    output: str | os.PathLike[str],
    models: str | os.PathLike[str],
    work_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    small: bool = False,
    layout: str | None = None,
    leave_out: Collection[str] = (),
    trained_on: Sequence[str | os.PathLike[str]] = (),
    device: torch.device | str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Predict a dataset's images, fit what they support, see `bundle.evaluation.recalibration`, and write it.

    Args:
        dataset: a folder or a CSV manifest, as `bundle.prediction.external.evaluate_external` takes it.
        output: the ``site.json``.
        models: folder of both weights.
        work_dir: keeps each image's scores, which a rerun takes up instead of predicting again.
        name: of the institution; by default the dataset's.
        small: of ``model_small.pt`` in place of ``model.pt``.
        layout, leave_out, trained_on: as `find_unseen` takes them.
        device: of the networks.
        draws, seed: of the bootstrap, the seed also of the folds.

    Returns:
        what is written; `images.left_out` and `images.bad` say which images had no part.

    Raises:
        TooFewImagesError: nothing can be fitted on so few images.
        UserError: the weights saw the dataset, or a file can not be read or written.
    """
    dataset, output, work = Path(dataset), Path(output), Path(work_dir)
    folder = dataset_folder(dataset)
    if work.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{work}: lies inside {folder}, whose images are read; give a working folder outside it")
    if output.is_dir():
        raise InputError(output, "is a folder", "give the name of a file, such as site.json")
    predictor = Predictor.from_folder(models, device, small=small)
    unseen = find_unseen(dataset, models, small, layout=layout, leave_out=leave_out, trained_on=trained_on)
    cards, checked, cases = unseen.cards, unseen.checked, unseen.cases
    lock_folder(work)
    # Which lesions a presence limit loses is only known of images that were classified without one.
    classifier = predictor.classifier
    classifier.segmenter_card = {**classifier.segmenter_card, "presence_points": {}}
    groups = group_near_duplicates(cases, folder)  # of one patient, too
    rows, failed, _ = predict_cases(predictor, cases, folder, work, groups)
    rows, unusable = _prepare(rows, cards["classifier"]["temperature"])
    if not rows:
        raise UserError(f"{dataset}: no image could be predicted; the first: {[*failed, *unusable][0]['reason']}")
    before = _of_cards(cards)
    refused = find_unsupported(rows, before)
    if all(part in refused for part in (TEMPERATURE, DOUBT, PRESENCE)):
        raise TooFewImagesError(dataset, refused)
    after, told = recalibrate(rows, before, draws, seed)
    used = {row["image"] for row in rows}
    site = {
        "schema_version": SITE_VERSION,
        "name": name or checked.name,
        "notice": NOT_A_DEVICE,
        "synthetic": checked.synthetic or any(card.get("synthetic") for card in cards.values()),
        "segmenter": {"sha256": cards["segmenter"].get("sha256"), **_of_segmenter(after, told)},
        "classifier": {
            "sha256": cards["classifier"].get("sha256"),
            "fusion_sha256": fusion_digest(cards["classifier"]),
            **_of_classifier(after, told),
        },
        **told,
        "images": {
            **_describe(checked, rows),
            "bad": [*checked.skipped, *failed, *unusable],
            "left_out": unseen.left_out,
            "pixels": " ".join(sorted(case.sha256[:DIGITS] for case in cases if case.image in used)),
        },
        "provenance": {**describe_run(), "dataset": checked.name, "dataset_sha256": checked.dataset_sha256},
    }
    write_json(output, site)
    return site


def _prepare(
    rows: Sequence[Mapping[str, Any]], temperature: float
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows as `bundle.evaluation.recalibration.recalibrate` takes them, and what shows nothing to be told of."""
    kept, unusable = [], []
    for row in rows:
        if row["lesion_state"] == UNUSABLE:
            unusable.append({"path": row["image"], "reason": str(row["reason"]), "mend": "leave it out"})
            continue
        outlined = row["outline_confidence"] is not None
        probability = min(max(row["probability"], _CLIP), 1 - _CLIP)
        score = float(logit(probability)) * temperature if outlined else None
        kept.append({**row, "presence": row.get("presence"), "logit": score})
    return kept, unusable


def _of_cards(cards: Mapping[str, Mapping[str, Any]]) -> Calibration:
    segmenter, classifier = cards["segmenter"], cards["classifier"]
    return Calibration(
        temperature=float(classifier.get("temperature", 1.0)),
        points=tuple(classifier["operating_points"]),
        conformal=classifier.get("conformal"),
        doubtful_below=segmenter.get("doubtful_below"),
        none_below=float(segmenter.get("presence_points", {}).get("none_below", 0.0)),
    )


class TooFewImagesError(UserError):
    """Nothing can be fitted; `refused` says of each number why not."""

    def __init__(self, dataset: Path, refused: Mapping[str, str]) -> None:
        super().__init__(f"{dataset}: too few images to fit anything on; nothing was written")
        self.refused = dict(refused)


def _of_segmenter(after: Calibration, told: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the segmenter's card that are replaced."""
    limit = {"none_below": after.none_below, "interval": told["intervals"].get(PRESENCE)}
    return {
        **({} if DOUBT in told["refused"] else {"doubtful_below": after.doubtful_below}),
        **({} if PRESENCE in told["refused"] else {"presence_points": limit}),
    }


def _of_classifier(after: Calibration, told: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the classifier's card; each operating point with what it reached in the cross-validation."""
    if TEMPERATURE in told["refused"]:
        return {}
    reached = told["cross_validation"]["after"]["classification"]["operating_points"]
    points = []
    for point in after.points:
        scores = reached[name_point(point["sensitivity_wish"])]
        points.append({**point, "cross_validated": {key: scores[key] for key in ("sensitivity", "specificity")}})
    sets = {} if SETS in told["refused"] else {"conformal": after.conformal}
    return {"temperature": after.temperature, "operating_points": points, **sets}


def _describe(checked: CaseList, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    classes = sorted({row["class"] for row in rows})
    return {
        "source": checked.source,
        "used": len(rows),
        "groups": len({row["group"] for row in rows}),
        "classes": dict(sorted(Counter(row["class"] for row in rows).items())),
        "not_outlined": {
            label: sum(row["class"] == label and row["logit"] is None for row in rows) for label in classes
        },
    }
