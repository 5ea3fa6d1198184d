# SPDX-License-Identifier: Apache-2.0
"""Handler that scores a segmentation evaluation at native resolution and writes its results."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from bundle.errors import UserError
from bundle.evaluation.scores import segmentation_scores
from bundle.evaluation.segmentation import STRATA, gate, measure_case, summarise, summarise_doubt
from bundle.evaluation.uncertainty import confidence_of_map
from bundle.files import to_csv, write_atomically, write_json
from bundle.networks.weights import none_below, read_card
from bundle.provenance import describe_run
from bundle.readers import read_image
from bundle.reports.figures import EXAMPLES, plot_dice_histogram, plot_examples
from bundle.reports.html import write_report
from bundle.transforms.lesion import split_presence
from bundle.transforms.masks import merge_masks

logger = logging.getLogger(__name__)


class SegmentationEvaluation:
    """Compare each prediction with its ground truth at the image's own size; write metrics, table, figures, report.

    Ground truth is read here, not by the dataset, so that it can not reach the network and images of many sizes still
    batch.

    Args:
        output_dir: gets ``metrics.json``, ``per_image.csv``, ``examples.png``, ``dice_histogram.png``, ``report.html``.
        records: the evaluated records of the datalist: image, label, class, group.
        threshold: probability from which a pixel counts as lesion; chosen on validation, never here.
        weights: path of the evaluated weights, for the record.
        datalist: the datalist, for the record (name, split, seed, checksums, whether it is synthetic).
        unmarked: whether drawn strokes were removed from the images, for the record.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        records: Sequence[Mapping[str, Any]],
        threshold: float,
        weights: str | os.PathLike[str],
        datalist: Mapping[str, Any],
        unmarked: bool = False,
    ) -> None:
        self.folder = Path(output_dir)
        self.records = {os.fspath(record["image"]): record for record in records}
        self.threshold = float(threshold)
        self.weights = weights
        self.datalist, self.unmarked = datalist, bool(unmarked)
        card = read_card(weights)
        refuse_another_split(card, datalist, weights)
        self.none_below = none_below(card)
        self.told = tell_columns(records, ("dataset", *STRATA))
        self.rows: list[dict[str, Any]] = []
        self.examples: list[tuple[float, dict[str, Any], np.ndarray]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output ``pred`` is a probability map per image, inverted to native size."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
        # Not COMPLETED: tracking takes the metrics at the end of the epoch, the only one.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self.rows.clear()
        self.examples.clear()

    def _measure(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for item in output:
            path = str(item["image"].meta["filename_or_obj"])
            record = self.records[path]
            probability, presence = split_presence(item["pred"])
            scores = measure_case(probability, merge_masks(record["label"], path, probability.shape), self.threshold)
            told_none = presence is not None and presence < self.none_below
            row = {
                "image": name_row(record),
                "class": record["class"],
                "group": record["group"],
                **dataclasses.asdict(scores),
                "outline_confidence": None if told_none else confidence_of_map(probability, self.threshold),
                **({} if presence is None else {"presence": presence, "told_none": told_none}),
                **{key: record.get(key, record.get("details", {}).get(key, "")) for key in self.told},
            }
            self.rows.append(row)
            if scores.dice is not None:
                shown = np.zeros_like(probability) if told_none else probability
                self._keep_example(float(gate(row)["dice"]), record, shown)

    def _keep_example(self, dice: float, record: Mapping[str, Any], probability: np.ndarray) -> None:
        """Keep every n-th case for the figure, so that it shows good and bad ones and memory stays flat."""
        lesions = sum(entry["class"] != "normal" for entry in self.records.values())
        if len(self.rows) % max(1, lesions // EXAMPLES) == 0 and len(self.examples) < EXAMPLES:
            self.examples.append((dice, dict(record), probability.astype(np.float16)))

    def _write(self, engine: Engine) -> None:
        synthetic = bool(self.datalist.get("synthetic"))
        summary = summarise(self.rows)
        card = read_card(self.weights)
        if card.get("doubtful_below"):
            summary["doubt"] = summarise_doubt(self.rows, card["doubtful_below"])
        provenance = {
            **describe_run(),
            "dataset": self.datalist.get("name"),
            "dataset_sha256": self.datalist.get("dataset_sha256"),
            "split": self.datalist.get("split"),
            "split_seed": self.datalist.get("seed"),
            "weights_sha256": card.get("sha256"),
            **({"unmarked": True} if self.unmarked else {}),
        }
        metrics = {
            "synthetic": synthetic,
            "threshold": self.threshold,
            **summary,
            "weights": card,
            "provenance": provenance,
        }
        engine.state.metrics |= segmentation_scores(metrics)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "metrics.json", metrics)
        write_atomically(self.folder / "per_image.csv", to_csv(self.rows))
        figures = self._draw(synthetic)
        write_report(self.folder, metrics, [gate(row) for row in self.rows], figures, provenance, synthetic)
        # A part of normal images alone has no Dice, one group has no interval: the line then shows nan.
        dice, accuracy, background = (
            {key: math.nan if value is None else value for key, value in summary["lesions"][name].items()}
            for name in ("dice", "pixel_accuracy", "background_accuracy")
        )
        logger.info(
            "%sDice %.3f (95 %% %.3f to %.3f), pixel accuracy %.2f %% where predicting no lesion at all scores %.2f %%",
            "SYNTHETIC phantom: " if synthetic else "",
            *(dice["estimate"], dice["low"], dice["high"]),
            *(100 * accuracy["estimate"], 100 * background["estimate"]),
        )
        logger.info("Report: %s", self.folder / "report.html")

    def _draw(self, synthetic: bool) -> list[tuple[str, Path]]:
        figures: list[tuple[str, Path]] = []
        by_class: dict[str, list[float]] = defaultdict(list)
        for row in map(gate, self.rows):
            if row["dice"] is not None:
                by_class[row["class"]].append(row["dice"])
        if by_class:
            figures.append(("Distribution of Dice", self.folder / "dice_histogram.png"))
            plot_dice_histogram(by_class, figures[0][1], synthetic=synthetic)
        if self.examples:
            items = [
                (
                    read_image(record["image"]).pixels,
                    merge_masks(record["label"], record["image"], probability.shape),
                    probability.astype(np.float32),
                    f"{record['class']}, Dice {dice:.2f}",
                )
                for dice, record, probability in self.examples
            ]
            figures.insert(0, ("Image, ground truth and prediction", self.folder / "examples.png"))
            plot_examples(items, self.folder / "examples.png", threshold=self.threshold, synthetic=synthetic)
        return figures


def refuse_another_split(card: Mapping[str, Any], datalist: Mapping[str, Any], weights: str | os.PathLike[str]) -> None:
    """Refuse weights of the same dataset whose training drew the parts otherwise: tested images may be trained ones.

    Args:
        card: of the weights.
        datalist: whose part is to be tested.
        weights: named in the message.

    Raises:
        UserError: the checksums of the two splits differ.
    """
    splits = card.get("split_sha256"), datalist.get("split_sha256")
    same_data = card.get("dataset_sha256") == datalist.get("dataset_sha256")
    if same_data and None not in splits and splits[0] != splits[1]:
        raise UserError(
            f"{weights}: trained on another split of this dataset, so it may have seen the images it is tested on; "
            "evaluate on the prepared folder of its own training, or train anew"
        )


def name_row(record: Mapping[str, Any]) -> str:
    """Name an image in a table: the last folder and the file, after its dataset's name where there are several."""
    path = Path(record["image"])
    return "/".join([*filter(None, [record.get("dataset")]), path.relative_to(path.parents[1]).as_posix()])


def tell_columns(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Those of the names that some record tells, itself or in its details: further columns of a table."""
    return [name for name in names if any(record.get(name, record.get("details", {}).get(name)) for record in records)]
