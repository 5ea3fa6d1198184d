# SPDX-License-Identifier: Apache-2.0
"""The page of an external evaluation: both networks on another hospital's images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.evaluation.external import RULES, SEGMENTATION_SCORES, Row, levels_of
from bundle.files import write_atomically
from bundle.reports.figures import plot_dice_histogram, plot_reliability, plot_roc
from bundle.reports.html import WORST, embed_png, render_html


def write_external_report(output_dir: Path, metrics: Mapping[str, Any], rows: Sequence[Row], examples: bool) -> Path:
    """Write the figures and `report.html`: all scores side by side, the operating points' transfer, the worst cases.

    Args:
        output_dir: the report's folder.
        metrics: of `summarise_external`, with `dataset`, `unit`, `threshold`, `bad`, `left_out`, `warnings`,
            `synthetic` and `provenance`.
        rows: one per image.
        examples: whether `examples.png` is there.
    """
    synthetic, figures = bool(metrics["synthetic"]), []
    if examples:
        figures.append(("Image, ground truth and prediction, from the worst Dice to the best", "examples.png"))
    dice: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["dice"] is not None:
            dice[row["class"]].append(row["dice"])
    if dice:
        figures.append(("Distribution of Dice", "dice_histogram.png"))
        plot_dice_histogram(dice, output_dir / "dice_histogram.png", synthetic=synthetic)
    classed = levels_of(rows).get("per_image", [])
    if classed:
        if len({row["label"] for row in classed}) == 2:
            figures.append(("ROC curve, per image", "roc.png"))
            plot_roc(classed, output_dir / "roc.png", synthetic=synthetic)
        title = "Reliability, per image: how often what is called so probable is malignant"
        figures.append((title, "reliability.png"))
        plot_reliability(classed, output_dir / "reliability.png", synthetic=synthetic)
    wrong = [row for row in classed if (row["probability"] >= 0.5) != bool(row["label"])]
    lesions = [row for row in rows if row["dice"] is not None]
    page = render_html(
        "external.html",
        metrics=metrics,
        scores=SEGMENTATION_SCORES,
        levels={
            "per_image": "per image",
            **{f"per_patient_{rule}": f"per {metrics['unit']}, {rule}" for rule in RULES},
        },
        worst=sorted(lesions, key=lambda row: (row["dice"], str(row["image"])))[:WORST],
        wrong=sorted(wrong, key=lambda row: (-abs(row["probability"] - 0.5), str(row["image"])))[:WORST],
        figures=[(title, embed_png(output_dir / name)) for title, name in figures],
        synthetic=synthetic,
    )
    write_atomically(output_dir / "report.html", page)
    return output_dir / "report.html"
