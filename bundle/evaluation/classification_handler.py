# SPDX-License-Identifier: Apache-2.0
"""Handler that scores a classifier on its test part and writes its results."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from scipy.special import expit

from bundle.errors import UserError
from bundle.evaluation.classification import summarise_classification
from bundle.evaluation.figures import plot_confusion, plot_reliability, plot_roc
from bundle.evaluation.handler import to_csv
from bundle.files import write_atomically, write_json
from bundle.provenance import describe_run
from bundle.weights import read_card

logger = logging.getLogger(__name__)


class ClassificationEvaluation:
    """Collect logits, calibrate them with the recorded temperature, score them at the recorded operating points.

    Temperature and operating points were fitted on validation; nothing is chosen here.

    Args:
        output_dir: gets ``metrics.json``, ``per_image.csv``, ``roc.png``, ``reliability.png``, ``confusion.png``.
        records: the evaluated records of the datalist: image, label, class, group.
        weights: path of the evaluated weights, whose card is used and recorded.
        datalist: the datalist, for the record.

    Raises:
        UserError: the weights were trained on another split of the same dataset, so on images that would be tested.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        records: Sequence[Mapping[str, Any]],
        weights: str | os.PathLike[str],
        datalist: Mapping[str, Any],
    ) -> None:
        self.folder = Path(output_dir)
        self.records = {os.fspath(record["image"]): record for record in records}
        self.weights = weights
        self.card = read_card(weights)
        self.datalist = datalist
        _refuse_trained_images(self.card, datalist, weights)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output ``pred`` is one logit per image."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for item in output:
            path = str(item["image"].meta["filename_or_obj"])
            record = self.records[path]
            logit = float(torch.as_tensor(item["pred"]).reshape(()))
            self.rows.append(
                {
                    "image": Path(path).relative_to(Path(path).parents[1]).as_posix(),
                    "class": record["class"],
                    "group": record["group"],
                    "label": int(record["label"]),
                    "logit": logit,
                    "probability_raw": float(expit(logit)),
                    "probability": float(expit(logit / self.card.get("temperature", 1.0))),
                }
            )

    def _write(self, _: Engine) -> None:
        synthetic, oracle = bool(self.datalist.get("synthetic")), self.datalist.get("masks") == "oracle"
        thresholds = {"default": 0.5}
        for point in self.card.get("operating_points", []):
            thresholds[f"sensitivity {point['sensitivity_wish']:.2f} on validation"] = point["threshold"]
        summary = summarise_classification(self.rows, thresholds)
        metrics = {
            "task": "classification",
            "synthetic": synthetic,
            "masks": self.datalist.get("masks"),
            **summary,
            "weights": self.card,
            "provenance": {
                **describe_run(),
                "dataset": self.datalist.get("name"),
                **{key: self.datalist.get(key) for key in ("dataset_sha256", "segmenter_sha256", "split")},
                "split_seed": self.datalist.get("seed"),
                "weights_sha256": self.card.get("sha256"),
            },
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "metrics.json", metrics)
        write_atomically(self.folder / "per_image.csv", to_csv(self.rows))
        plot_roc(self.rows, self.folder / "roc.png", synthetic=synthetic)
        plot_reliability(self.rows, self.folder / "reliability.png", synthetic=synthetic)
        default = summary["operating_points"]["default"]
        plot_confusion(default["confusion"], self.folder / "confusion.png", synthetic=synthetic)
        logger.info(
            "%s%sAUROC %.3f, accuracy %.1f %% where the larger class alone scores %.1f %%; results: %s",
            "SYNTHETIC phantom: " if synthetic else "",
            "ORACLE masks: " if oracle else "",
            summary["auroc"]["estimate"] or float("nan"),
            100 * default["accuracy"]["estimate"],
            100 * summary["majority_accuracy"]["estimate"],
            self.folder,
        )


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
