# SPDX-License-Identifier: Apache-2.0
"""Try on synthetic cines what is said of cines: which rule calibrates best, and what becomes of outlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bundle.data.phantom_cine import make_cine
from bundle.evaluation.cine import (
    LEAST_CONTRAST,
    LEAST_OF_TRACK,
    LEAST_SHARE,
    MAX_GAP,
    MAX_GROWTH,
    MAX_SHIFT,
    RULE,
    Look,
    follow,
)
from bundle.evaluation.cine_rules import score_rules
from bundle.prediction.predictor import Predictor

OFF_BELOW = 0.1
"""Dice with the lesion in the plane, below which an outline lies on something else."""

PLACES, FATES = ("on", "off", "never"), ("followed", "jump", "creep", "other track")
"""Where an outline of a cine lies: on the lesion; elsewhere; elsewhere in a cine whose lesion is outlined in no frame.
And what became of it."""


def try_cines(
    predictor: Predictor, per_class: int, frames: int, seed: int = 0, told: Callable[[str], None] = print
) -> dict[str, Any]:
    """Predict synthetic cines and score what follows of them.

    Args:
        predictor: trained on the phantom's pictures, none of which is a frame of a cine.
        per_class: cines that are benign, and as many that are malignant.
        frames: of each; all are looked at.
        seed: of the cines.
        told: called with a line per tenth of the work.

    Returns:
        A dict ready for JSON: "settings", what `score_rules` returns, and "outlines": by where they lie, of `PLACES`,
        and what became of them, of `FATES`, how many there are.
    """
    cines: list[tuple[bool, list[Look]]] = []
    outlines = {place: dict.fromkeys(FATES, 0) for place in PLACES}
    for number in range(1, per_class + 1):
        for label in ("benign", "malignant"):
            cine = make_cine(label, number, frames, seed)
            findings = [predictor.predict(picture.astype(np.float32)) for picture in cine.frames]
            looks = [Look.of({**finding.as_dict(), "frame": frame}) for frame, finding in enumerate(findings)]
            cines.append((label == "malignant", looks))
            count_fates(outlines, cine.masks, [finding.mask for finding in findings], looks)
        if number % max(1, per_class // 10) == 0:
            told(f"{2 * number} of {2 * per_class} cines")
    limits = {
        **{"max_shift": MAX_SHIFT, "max_growth": MAX_GROWTH, "max_gap": MAX_GAP, "least_share": LEAST_SHARE},
        **{"least_contrast": LEAST_CONTRAST, "least_of_track": LEAST_OF_TRACK},
    }
    settings = {"per_class": per_class, "frames": frames, "seed": seed, "rule": RULE, **limits}
    made = {"synthetic": True, "settings": settings, "models": predictor.classifier.models}
    return {**made, **score_rules(cines), "outlines": outlines}


def count_fates(
    outlines: dict[str, dict[str, int]], truths: np.ndarray, masks: Sequence[np.ndarray], looks: Sequence[Look]
) -> None:
    """Add where the outlines of a cine lie, and what became of each.

    Args:
        outlines: counts, by `PLACES` and `FATES`.
        truths: (T, H, W) bool, the lesion as far as it is in the plane.
        masks: of the T outlines, (H, W) bool, empty where there is none.
        looks: in the order of the frames.
    """
    found = follow(looks)
    dice = {
        index: 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        for index, (mask, truth) in enumerate(zip(masks, truths, strict=True))
        if mask.any()
    }
    elsewhere = "off" if any(value >= OFF_BELOW for value in dice.values()) else "never"
    for index, value in dice.items():
        told = (index in found.followed, found.jumps[index], found.creeps[index], True)
        outlines["on" if value >= OFF_BELOW else elsewhere][FATES[told.index(True)]] += 1
