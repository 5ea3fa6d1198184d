# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: curves and examples (the paper's figures 4 to 6), Dice, ROC, reliability and confusion."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bundle.errors import UserError
from bundle.evaluation.classification import (
    BINS,
    area_under_roc,
    as_arrays,
    bin_reliability,
    calibration_error,
    roc_points,
)
from bundle.evaluation.segmentation import MISSED_BELOW
from bundle.files import write_atomically

# Okabe-Ito colours: told apart by colour-blind readers and in grey print.
TRUTH, PREDICTION = "#56B4E9", "#E69F00"
CYCLE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
STAMP = "SYNTHETIC"
EXAMPLES = 6
"""Images that a report shows, from the worst Dice to the best."""

_DPI = 110


def plot_curves(
    history: Mapping[str, Sequence[tuple[int, float]]], path: str | os.PathLike[str], synthetic: bool = False
) -> None:
    """Draw training and validation curves per epoch: losses left, scores right.

    Args:
        history: a curve's name, such as `train_loss`, `val_loss` or `val_mean_dice`, and its (epoch, value) points.
            Names with "loss" go left, the others, in [0, 1], right; names with "train" are dashed.
        path: the PNG file.
        synthetic: stamp the picture as made from synthetic data.

    Raises:
        UserError: there is no point to draw.
    """
    curves = {name: points for name, points in history.items() if points}
    if not curves:
        raise UserError("no training history to draw; train for at least one epoch first")
    losses = {name: points for name, points in curves.items() if "loss" in name}
    scores = {name: points for name, points in curves.items() if "loss" not in name}
    panels = [(title, part) for title, part in (("Loss", losses), ("Score", scores)) if part]
    figure = Figure(figsize=(4.8 * len(panels), 3.6), dpi=_DPI, layout="constrained")
    for axes, (title, part) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for number, (name, points) in enumerate(part.items()):
            epochs, values = zip(*points, strict=True)
            style = "--" if "train" in name else "-"
            marker = "o" if len(points) == 1 else None
            axes.plot(epochs, values, style, color=CYCLE[number % len(CYCLE)], marker=marker, label=name)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if title == "Score":
            axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    _save(figure, path, synthetic)


def plot_examples(
    items: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, str]],
    path: str | os.PathLike[str],
    threshold: float,
    synthetic: bool = False,
) -> None:
    """Draw one row per case: image, ground truth, prediction with both contours.

    Args:
        items: (image (H, W) float in [0, 255], lesion (H, W) bool, probability (H, W) float in [0, 1], title).
        path: the PNG file.
        threshold: a pixel whose probability reaches it is predicted as lesion.
        synthetic: stamp the picture as made from synthetic data.

    Raises:
        UserError: there is no case to draw.
    """
    if not items:
        raise UserError("no example to draw; name at least one case")
    figure = Figure(figsize=(8.4, 2.7 * len(items) + 0.3), dpi=_DPI, layout="constrained")
    grid = figure.subplots(len(items), 3, squeeze=False)
    for row, (image, lesion, probability, title) in zip(grid, items, strict=True):
        predicted = probability >= threshold
        row[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        row[0].set_title(title, fontsize="small")
        row[1].imshow(lesion, cmap="gray", vmin=0, vmax=1)
        row[1].set_title("ground truth", fontsize="small")
        row[2].imshow(image, cmap="gray", vmin=0, vmax=255)
        row[2].set_title("prediction" if predicted.any() else "prediction: no lesion found", fontsize="small")
        _draw_contour(row[2], lesion, TRUTH)
        _draw_contour(row[2], predicted, PREDICTION)
        for axes in row:
            axes.set_axis_off()
    handles = [Line2D([], [], color=TRUTH, label="ground truth"), Line2D([], [], color=PREDICTION, label="prediction")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    _save(figure, path, synthetic)


def plot_dice_histogram(
    dice: Mapping[str, Sequence[float]], path: str | os.PathLike[str], synthetic: bool = False
) -> None:
    """Draw how the cases' Dice is spread, stacked by class, with the border under which a lesion counts as missed.

    Args:
        dice: a class's name and its cases' Dice in [0, 1].
        path: the PNG file.
        synthetic: stamp the picture as made from synthetic data.

    Raises:
        UserError: there is no case to draw.
    """
    classes = {name: values for name, values in dice.items() if len(values)}
    if not classes:
        raise UserError("no Dice to draw; no case has a lesion")
    figure = Figure(figsize=(6, 3.4), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.hist(
        list(classes.values()),
        bins=np.linspace(0, 1, 21).tolist(),
        stacked=True,
        color=[CYCLE[number % len(CYCLE)] for number in range(len(classes))],
        label=[f"{name} ({len(values)})" for name, values in classes.items()],
    )
    axes.axvline(MISSED_BELOW, color="black", linestyle=":", label=f"missed below {MISSED_BELOW}")
    axes.set(xlabel="Dice", ylabel="images", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small")
    _save(figure, path, synthetic)


def plot_roc(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], synthetic: bool = False) -> None:
    """Draw sensitivity against 1 - specificity over all thresholds, with the area under the curve.

    Args:
        rows: as in `summarise_classification`.
        path: the PNG file.
        synthetic: stamp the picture as made from synthetic data.

    Raises:
        UserError: there is no case, or cases of one class only.
    """
    labels, probabilities = as_arrays(rows)
    if labels.all() or not labels.any():
        raise UserError("no ROC curve without both benign and malignant cases; score more cases")
    false_positive, true_positive = roc_points(labels, probabilities)
    figure, axes = _unit_square("1 - specificity", "sensitivity")
    area = area_under_roc(labels, probabilities)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    axes.plot(false_positive, true_positive, color=CYCLE[0], label=f"AUROC {area:.3f}, n = {len(rows)}")
    axes.legend(fontsize="small", loc="lower right")
    _save(figure, path, synthetic)


def plot_reliability(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], synthetic: bool = False) -> None:
    """Draw how often cases are malignant against how probable they were called; a dot's area is its bin's cases.

    Args:
        rows: as in `summarise_classification`.
        path: the PNG file.
        synthetic: stamp the picture as made from synthetic data.

    Raises:
        UserError: there is no case.
    """
    labels, probabilities = as_arrays(rows)
    count, probability, malignant = bin_reliability(labels, probabilities)
    filled = count > 0
    count, probability, malignant = count[filled], probability[filled], malignant[filled]
    figure, axes = _unit_square("mean predicted probability of malignancy", "share of malignant cases")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="calibrated")
    axes.plot(probability / count, malignant / count, color=CYCLE[0], alpha=0.5)
    error = calibration_error(labels, probabilities)
    label = f"{BINS} bins, ECE {error:.3f}, n = {len(rows)}"
    axes.scatter(probability / count, malignant / count, s=20 + 300 * count / len(rows), color=CYCLE[0], label=label)
    axes.legend(fontsize="small", loc="upper left", markerscale=0.5)
    _save(figure, path, synthetic)


def plot_confusion(matrix: Sequence[Sequence[int]], path: str | os.PathLike[str], synthetic: bool = False) -> None:
    """Draw a confusion matrix with counts and the shares of each true class.

    Args:
        matrix: [[tn, fp], [fn, tp]]; rows are the truth.
        path: the PNG file.
        synthetic: stamp the picture as made from synthetic data.

    Raises:
        UserError: there is no case to draw.
    """
    counts = np.asarray(matrix)
    if counts.sum() == 0:
        raise UserError("no case in the confusion matrix; score at least one")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4, 3.6), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]}\n{share:.0%}", ha="center", va="center", color=color)
    axes.set(xticks=[0, 1], yticks=[0, 1], xlabel="predicted", ylabel="truth")
    axes.set_xticklabels(["benign", "malignant"])
    axes.set_yticklabels(["benign", "malignant"], rotation=90, va="center")
    _save(figure, path, synthetic)


def draw_cine(curve: Sequence[Mapping[str, Any]], probability: float | None, synthetic: bool = False) -> bytes:
    """Draw P(malignant) and the outline's area over the frames of a cine, as PNG.

    Outlines that jump or creep are crosses; the areas that are smoothed over a track are the line.

    Args:
        curve: per frame that was looked at, as `bundle.prediction.cines.CineSummary` gives it.
        probability: of the cine; None where there is none.
        synthetic: stamp the picture as made from synthetic data.

    Raises:
        UserError: there is no frame to draw.
    """
    if not curve:
        raise UserError("no frame of the cine to draw; look at one at least")
    outlined = [look for look in curve if look["area_px"] is not None]
    in_mm = bool(outlined) and all(look["area_mm2"] is not None for look in outlined)
    unit, key = ("mm²", "area_mm2") if in_mm else ("px", "area_px")
    figure = Figure(figsize=(7.2, 3.6), dpi=_DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name, color in ((upper, "probability", CYCLE[1]), (lower, key, CYCLE[0])):
        for lost, marker in ((False, "o"), (True, "x")):
            looks = [look for look in outlined if (look["smooth_area_px"] is None) == lost]
            points = ([look["frame"] for look in looks], [look[name] for look in looks])
            axes.plot(*points, marker, color=color, markersize=4, label="jumps or creeps" if lost and looks else None)
        axes.grid(alpha=0.3)
    smooth = [look for look in outlined if look["smooth_area_px"] is not None]
    areas = [look["smooth_area_px"] * (look[key] / look["area_px"]) for look in smooth]
    lower.plot([look["frame"] for look in smooth], areas, color=CYCLE[0], linewidth=1)
    if probability is not None:
        upper.axhline(probability, color="0.4", linestyle="--", linewidth=1, label="the cine")
    if upper.get_legend_handles_labels()[1]:
        upper.legend(fontsize="small", loc="best")
    frames = [look["frame"] for look in curve]
    upper.set(ylabel="P(malignant)", ylim=(-0.02, 1.02), xlim=(frames[0] - 0.5, frames[-1] + 0.5))
    lower.set(ylabel=f"area, {unit}", xlabel="frame", ylim=(0, None))
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _encode(figure, synthetic)


def _unit_square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.grid(alpha=0.3)
    return figure, axes


def _draw_contour(axes: Axes, mask: np.ndarray, color: str) -> None:
    """Draw a mask's outline; an empty mask has none."""
    # A frame of background closes the outline of a lesion that leaves the image.
    framed = np.pad(mask.astype(np.float32), 1)
    if mask.any():
        columns, rows = np.arange(framed.shape[1]) - 1, np.arange(framed.shape[0]) - 1
        axes.contour(columns, rows, framed, levels=[0.5], colors=[color], linewidths=1.3)
    axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def _save(figure: Figure, path: str | os.PathLike[str], synthetic: bool) -> None:
    """Write the figure as PNG, atomically."""
    write_atomically(path, _encode(figure, synthetic))


def _encode(figure: Figure, synthetic: bool) -> bytes:
    """Encode the figure as PNG in memory, each panel stamped if synthetic."""
    for axes in figure.axes if synthetic else []:
        axes.text(
            0.5,
            0.5,
            STAMP,
            transform=axes.transAxes,
            ha="center",
            va="center",
            rotation=20,
            fontsize=28,
            color="red",
            alpha=0.4,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Description": STAMP} if synthetic else None)
    return buffer.getvalue()
