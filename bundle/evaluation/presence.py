# SPDX-License-Identifier: Apache-2.0
"""Whether there is a lesion at all: where to draw the line, and how well it tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bundle.evaluation.classification import area_under_roc
from bundle.evaluation.intervals import DRAWS, bootstrap_by_group, bootstrap_ratio_by_group

MOST_LOST = 0.05
"""The share of lesions that may be told to be none."""


def choose_presence(
    scores: Sequence[float],
    present: Sequence[bool],
    most_lost: float = MOST_LOST,
    datasets: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Choose the probability below which no lesion is told of: the highest that loses no more lesions than allowed.

    Of several datasets none may lose more than that: a limit over all of them would lose few lesions of one hospital
    and many of another, where they look less like a lesion.

    Args:
        scores: probability that there is a lesion, of each image.
        present: whether there is one.
        most_lost: share of the lesions that may fall below.
        datasets: the dataset of each image, where there are several.

    Returns:
        ``none_below``, the probability; ``lost`` and ``false_alarms``, the shares of lesions below and of images
        without a lesion from there on; ``auroc``; ``lesions`` and ``without``, the counts. What no image tells is None.
    """
    values, truth = np.asarray(scores, dtype=float), np.asarray(present, dtype=bool)
    lesions, without = values[truth], values[~truth]
    names = np.asarray(datasets if datasets is not None else [""] * len(values), dtype=str)[truth]
    limits = [
        own[math.floor(most_lost * own.size + 1e-9)] for own in (np.sort(lesions[names == name]) for name in set(names))
    ]
    none_below = float(min(limits, default=0.5))
    both = len(lesions) > 0 and len(without) > 0
    return {
        "none_below": none_below,
        "most_lost": most_lost,
        "lost": float((lesions < none_below).mean()) if len(lesions) else None,
        "false_alarms": float((without >= none_below).mean()) if len(without) else None,
        "auroc": area_under_roc(truth, values) if both else None,
        "lesions": len(lesions),
        "without": len(without),
    }


def summarise_presence(rows: Sequence[Mapping[str, Any]], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Say how well a network tells whether there is a lesion.

    Args:
        rows: one per image: `group`, `dice` (None without a lesion), `false_positive` (of the map alone), `presence`
            (the probability) and `told_none` (whether it lies below the limit that was chosen on validation).
        draws: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `lesions` and `without`, the counts; `auroc`; `lost`, the share of lesions that are told
        to be none; and `false_outlines_at`: the share of images without a lesion that would be outlined and not told
        to have none, were the limit drawn at 2, 5 or 10 per cent of lost lesions of these very images, which compares
        networks and promises nothing. Each score with its interval, but the last.
    """
    lesions = [row for row in rows if row["dice"] is not None]
    normals = [row for row in rows if row["dice"] is None]
    truth = np.array([row["dice"] is not None for row in rows])
    scores = np.array([float(row["presence"]) for row in rows])

    def area(cases: np.ndarray) -> float:
        return area_under_roc(truth[cases], scores[cases])

    limits = {
        share: choose_presence(scores.tolist(), truth.tolist(), share)["none_below"] for share in (0.02, 0.05, 0.1)
    }
    at = {
        f"{share:.2f}": float(np.mean([row["false_positive"] and row["presence"] >= limit for row in normals]))
        for share, limit in limits.items()
        if normals
    }
    groups = [str(row["group"]) for row in rows]
    lost, lesion_groups = [float(row["told_none"]) for row in lesions], [str(row["group"]) for row in lesions]
    return {
        "lesions": len(lesions),
        "without": len(normals),
        "auroc": bootstrap_by_group(area, groups, draws=draws, seed=seed).as_dict() if lesions and normals else None,
        "lost": bootstrap_ratio_by_group(lost, lesion_groups, draws=draws, seed=seed).as_dict(),
        "false_outlines_at": at,
    }
