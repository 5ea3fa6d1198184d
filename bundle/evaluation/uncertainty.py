# SPDX-License-Identifier: Apache-2.0
"""How unsure the networks are of one image: what a human should look at next, and which outlines to doubt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import entr

from bundle.transforms.lesion import find_lesion, quantise
from bundle.transforms.shape import box_of

DOUBTED_SHARE = 0.1  # the share of validation lesions, the least sure ones, whose outlines would be doubted
FEWEST = 10  # validation lesions that a limit is taken from: with fewer the tenth is no lesion at all


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


def outline_confidence(levels: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean probability, in [0, 1], of the pixels inside a lesion's outline.

    Where an outline is wrong, or there is no lesion, the network hesitates over all of it, not at its edge alone.

    Args:
        levels: (H, W) uint8 probability of lesion, 255 for certain; see `bundle.transforms.lesion.quantise`.
        mask: (H, W) bool of the lesion, not empty.
    """
    top, left, bottom, right = box_of(mask)
    inside = levels[top:bottom, left:right][mask[top:bottom, left:right]]
    return float(inside.mean(dtype=np.float64) / 255)


def confidence_of_map(probability: np.ndarray, threshold: float = 0.5) -> float | None:
    """Return `outline_confidence` of the lesion in a map (H, W) float in [0, 1]; None where no pixel reaches it."""
    levels = quantise(probability)
    region = find_lesion(levels, threshold)
    return None if region.is_fallback else outline_confidence(levels, region.mask)


def choose_doubt_limit(confidences: Sequence[float | None]) -> float | None:
    """Return the confidence below which an outline is doubtful: the `DOUBTED_SHARE` quantile of validation lesions.

    Args:
        confidences: of the validation images with a lesion, None where nothing was outlined; see `confidence_of_map`.

    Returns:
        The limit; None where fewer than `FEWEST` lesions were outlined.
    """
    outlined = [value for value in confidences if value is not None]
    return float(np.quantile(outlined, DOUBTED_SHARE)) if len(outlined) >= FEWEST else None


def class_entropy(probability: float) -> float:
    """Return the entropy, in bits from 0 to 1, of a probability of malignancy."""
    return float(_bits(np.asarray(probability)))


def _bits(probability: np.ndarray) -> np.ndarray:
    values = np.asarray(probability, dtype=np.float64)
    return (entr(values) + entr(1 - values)) / np.log(2)
