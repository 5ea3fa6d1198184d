# SPDX-License-Identifier: Apache-2.0
"""Whether there is a lesion at all: where to draw the line, and how well it tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.evaluation.classification import area_under_roc

MOST_LOST = 0.05
"""The share of lesions that may be told to be none."""


def choose_presence(scores: Sequence[float], present: Sequence[bool], most_lost: float = MOST_LOST) -> dict[str, Any]:
    """Choose the probability below which no lesion is told of: the highest that loses no more lesions than allowed.

    Args:
        scores: probability that there is a lesion, of each image.
        present: whether there is one.
        most_lost: share of the lesions that may fall below.

    Returns:
        ``none_below``, the probability; ``lost`` and ``false_alarms``, the shares of lesions below and of images
        without a lesion from there on; ``auroc``; ``lesions`` and ``without``, the counts. What no image tells is None.
    """
    values, truth = np.asarray(scores, dtype=float), np.asarray(present, dtype=bool)
    lesions, without = np.sort(values[truth]), values[~truth]
    allowed = math.floor(most_lost * len(lesions) + 1e-9)
    none_below = float(lesions[allowed]) if len(lesions) else 0.5
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
