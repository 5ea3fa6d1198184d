# SPDX-License-Identifier: Apache-2.0
"""Scores as flat numbers, which experiment tracking and a zoo's metadata take, without losing their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Score = Mapping[str, float | None] | float | None


def flatten_scores(scores: Mapping[str, Score]) -> dict[str, float]:
    """Turn each interval into three numbers, ``<name>``, ``<name>_low`` and ``<name>_high``; undefined ones go.

    Args:
        scores: plain numbers, or intervals with ``estimate``, ``low`` and ``high``.
    """
    flat: dict[str, float] = {}
    for name, score in scores.items():
        parts = score if isinstance(score, Mapping) else {"estimate": score}
        for part, value in parts.items():
            if value is not None:
                flat[name if part == "estimate" else f"{name}_{part}"] = float(value)
    return flat


def segmentation_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The main scores of a segmentation's ``metrics.json``, and that of predicting no lesion at all."""
    lesions = metrics["lesions"]
    names = {"mean_dice": "dice", "pixel_accuracy": "pixel_accuracy", "background_accuracy": "background_accuracy"}
    return flatten_scores({ours: lesions[theirs] for ours, theirs in names.items()})


def classification_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The main scores of a classification's ``metrics.json``, and that of always saying the larger class."""
    default = metrics["operating_points"]["default"]
    names = ("accuracy", "sensitivity", "specificity")
    rest = {name: default[name] for name in names}
    return flatten_scores({"auroc": metrics["auroc"], **rest, "majority_accuracy": metrics["majority_accuracy"]})
