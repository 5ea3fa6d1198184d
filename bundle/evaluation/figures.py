# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: training curves and examples (the paper's figures 4 to 6), and how Dice is spread."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bundle.errors import UserError
from bundle.evaluation.segmentation import MISSED_BELOW
from bundle.files import write_atomically

# Okabe-Ito colours: told apart by colour-blind readers and in grey print.
TRUTH, PREDICTION = "#56B4E9", "#E69F00"
CYCLE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
STAMP = "SYNTHETIC"
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


def _draw_contour(axes: Axes, mask: np.ndarray, color: str) -> None:
    """Draw a mask's outline; an empty mask has none."""
    # A frame of background closes the outline of a lesion that leaves the image.
    framed = np.pad(mask.astype(np.float32), 1)
    if mask.any():
        columns, rows = np.arange(framed.shape[1]) - 1, np.arange(framed.shape[0]) - 1
        axes.contour(columns, rows, framed, levels=[0.5], colors=[color], linewidths=1.3)
    axes.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def _save(figure: Figure, path: str | os.PathLike[str], synthetic: bool) -> None:
    """Encode the figure as PNG in memory, each panel stamped if synthetic, then write the file atomically."""
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
    write_atomically(path, buffer.getvalue())
