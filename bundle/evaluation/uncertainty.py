# SPDX-License-Identifier: Apache-2.0
"""How unsure the networks are of one image, for choosing what a human should look at next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import entr


def outline_entropy(probability: np.ndarray, box: Sequence[int], margin: float = 0.25) -> float:
    """Return the mean entropy, in bits from 0 to 1, of the pixels in and around the lesion's box.

    The mean over the whole image would follow the size of the lesion; beside the lesion the network is always sure.

    Args:
        probability: (H, W) float in [0, 1], of lesion.
        box: (top, left, bottom, right) of the lesion, half-open.
        margin: added on every side, as a fraction of the box's longer side.
    """
    top, left, bottom, right = box
    extra = round(margin * max(bottom - top, right - left))
    inside = probability[max(0, top - extra) : bottom + extra, max(0, left - extra) : right + extra]
    return float(_bits(inside).mean())


def class_entropy(probability: float) -> float:
    """Return the entropy, in bits from 0 to 1, of a probability of malignancy."""
    return float(_bits(np.asarray(probability)))


def _bits(probability: np.ndarray) -> np.ndarray:
    values = np.asarray(probability, dtype=np.float64)
    return (entr(values) + entr(1 - values)) / np.log(2)
