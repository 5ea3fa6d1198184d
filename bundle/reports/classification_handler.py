# SPDX-License-Identifier: Apache-2.0
"""Handler that scores a classifier on its test part and writes its results."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from scipy.special import expit

from bundle.errors import UserError
from bundle.evaluation.classification import name_point, summarise_classification
from bundle.evaluation.conformal import summarise_conformal
from bundle.evaluation.fusion import calibrated_probability, check_fusion
from bundle.evaluation.scores import classification_scores
from bundle.evaluation.segmentation import STRATA
from bundle.evaluation.subgroups import summarise_subgroups
from bundle.files import to_csv, write_atomically, write_json
from bundle.networks.weights import read_card
from bundle.provenance import describe_run
from bundle.reports.figures import plot_confusion, plot_reliability, plot_roc
from bundle.reports.html import write_classification_report
from bundle.reports.segmentation_handler import name_row, refuse_another_split, tell_columns
from bundle.transforms.lesion import quantise

logger = logging.getLogger(__name__)
HALF = 0.5  # the threshold of "default", the operating point that needs no fitting


class ClassificationEvaluation:
    """Collect logits, calibrate them with the recorded temperature, score them at the recorded operating points.

    Temperature and operating points were fitted on validation; nothing is chosen here. An image with nothing outlined,
    or in which the segmenter tells of no lesion, is not classified, and stays in every figure: called benign, with
    score 0. What the scores are where the segmenter's word is passed over stands beside, as ``ungated``.

    Args:
        output_dir: gets ``metrics.json``, ``per_image.csv``, ``report.html``, ``roc.png`` (where there are both
            classes), ``reliability.png``, ``confusion.png``.
        records: the evaluated records of the datalist: image, label, class, group.
        weights: path of the evaluated weights, whose card is used and recorded.
        datalist: the datalist, for the record.
        part: of the datalist that the records are; only "test" was kept from the training.
        unmarked: whether drawn strokes were removed from the images, for the record.

    Raises:
        UserError: the weights were trained on another split of the same dataset, so on images that would be tested.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        records: Sequence[Mapping[str, Any]],
        weights: str | os.PathLike[str],
        datalist: Mapping[str, Any],
        part: str = "test",
        unmarked: bool = False,
    ) -> None:
        self.folder = Path(output_dir)
        self.records = {os.fspath(record["image"]): record for record in records}
        self.weights = weights
        self.card = read_card(weights)
        check_fusion(self.card)
        self.datalist, self.part, self.unmarked = datalist, part, bool(unmarked)
        _refuse_trained_images(self.card, datalist, weights)
        refuse_another_split(self.card, datalist, weights)
        self.told = tell_columns(records, ("dataset", "patient", *STRATA))
        self.rows: list[dict[str, Any]] = []
        self.wrong: list[tuple[dict[str, Any], np.ndarray]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output ``pred`` is one logit per image."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        # Not COMPLETED: tracking takes the metrics at the end of the epoch, the only one.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self.rows.clear()
        self.wrong.clear()

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        for item, given in zip(output, batch, strict=True):
            path = str(item["image"].meta["filename_or_obj"])
            record = self.records[path]
            logit = float(torch.as_tensor(item["pred"]).reshape(()))
            features = given["features"] if self.card.get("fusion") else ()
            outlined = bool(given.get("outlined", 1)) if isinstance(given, Mapping) else True
            ungated = calibrated_probability(self.card, [logit], [features]).item() if outlined else 0.0
            told_none = bool(record.get("told_none"))
            outlined = outlined and not told_none
            row = {
                "image": name_row(record),
                "class": record["class"],
                "group": record["group"],
                "label": int(record["label"]),
                **{key: record.get(key, record.get("details", {}).get(key, "")) for key in self.told},
                "outlined": outlined,
                "logit": logit if outlined else None,
                "probability_raw": float(expit(logit)) if outlined else 0.0,
                "probability": ungated if outlined else 0.0,
                "told_none": told_none,
                "probability_ungated": ungated,
            }
            self.rows.append(row)
            if (row["probability"] >= HALF) != bool(row["label"]):
                crop = torch.as_tensor(item["image"])[0].float().cpu().numpy()
                self.wrong.append((row, quantise(crop)))

    def _write(self, engine: Engine) -> None:
        synthetic, oracle = bool(self.datalist.get("synthetic")), self.datalist.get("masks") == "oracle"
        thresholds = {"default": HALF}
        for point in self.card.get("operating_points", []):
            thresholds[f"{name_point(point['sensitivity_wish'])} on validation"] = point["threshold"]
        summary = summarise_classification(self.rows, thresholds) | summarise_subgroups(self.rows, thresholds)
        metrics = {
            "task": "classification",
            "synthetic": synthetic,
            "masks": self.datalist.get("masks"),
            "part": self.part,
            **summary,
            "not_outlined": {
                name: sum(row["class"] == name and not row["outlined"] for row in self.rows)
                for name in ("benign", "malignant")
            },
            **summarise_ungated(self.rows, thresholds),
            **self._summarise_sets(),
            "weights": self.card,
            "provenance": {
                **describe_run(),
                "dataset": self.datalist.get("name"),
                **{key: self.datalist.get(key) for key in ("dataset_sha256", "segmenter_sha256", "split")},
                "split_seed": self.datalist.get("seed"),
                "weights_sha256": self.card.get("sha256"),
                **({"unmarked": True} if self.unmarked else {}),
            },
        }
        engine.state.metrics |= classification_scores(metrics)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "metrics.json", metrics)
        write_atomically(self.folder / "per_image.csv", to_csv(self.rows))
        figures = self._draw(summary, synthetic)
        report = write_classification_report(self.folder, metrics, self.wrong, figures)
        default = summary["operating_points"]["default"]
        auroc = summary["auroc"]["estimate"]
        logger.info(
            "%s%sAUROC %.3f, accuracy %.1f %% where the larger class alone scores %.1f %%; report: %s",
            "SYNTHETIC phantom: " if synthetic else "",
            "ORACLE masks: " if oracle else "",
            math.nan if auroc is None else auroc,
            100 * default["accuracy"]["estimate"],
            100 * summary["majority_accuracy"]["estimate"],
            report,
        )

    def _summarise_sets(self) -> dict[str, Any]:
        """The score of the card's prediction sets, where it has some."""
        limits = self.card.get("conformal")
        return {"conformal": summarise_conformal(self.rows, [limits] * len(self.rows))} if limits else {}

    def _draw(self, summary: Mapping[str, Any], synthetic: bool) -> list[tuple[str, Path]]:
        figures = [("Confusion matrix at probability 0.5", self.folder / "confusion.png")]
        plot_confusion(summary["operating_points"]["default"]["confusion"], figures[0][1], synthetic=synthetic)
        if 0 < summary["malignant"] < summary["cases"]:  # with one class there is no ROC curve
            figures.append(("ROC curve", self.folder / "roc.png"))
            plot_roc(self.rows, figures[-1][1], synthetic=synthetic)
        figures.append(
            ("Reliability: how often what is called so probable is malignant", self.folder / "reliability.png")
        )
        plot_reliability(self.rows, figures[-1][1], synthetic=synthetic)
        return figures


def summarise_ungated(rows: Sequence[Mapping[str, Any]], thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """What a classifier scores where the segmenter's word that there is no lesion is passed over, as ``ungated``.

    Args:
        rows: of `summarise_classification`, with ``probability_ungated`` and ``told_none``.
        thresholds: as `summarise_classification` takes them.
    """
    if not any(row["told_none"] for row in rows):
        return {}
    ungated = [{**row, "probability": row["probability_ungated"]} for row in rows]
    told = {name: sum(row["class"] == name and row["told_none"] for row in rows) for name in ("benign", "malignant")}
    return {"ungated": {"told_none": told, **summarise_classification(ungated, thresholds)}}


def _refuse_trained_images(
    card: Mapping[str, Any], datalist: Mapping[str, Any], weights: str | os.PathLike[str]
) -> None:
    if card.get("dataset_sha256") is None or card["dataset_sha256"] != datalist.get("dataset_sha256"):
        return
    names = {"segmentation_seed": "segmentation_split_seed", "seed": "split_seed"}
    for ours in ("segmentation_split", "segmentation_seed", "split", "seed"):
        theirs = names.get(ours, ours)
        if card.get(theirs) != datalist.get(ours):
            raise UserError(
                f"{weights}: trained with {theirs} {card.get(theirs)}, but the datalist has {datalist.get(ours)}; "
                "evaluate on the datalist of its own training, or it may have seen the images it is tested on"
            )
