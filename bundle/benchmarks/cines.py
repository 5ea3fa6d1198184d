# SPDX-License-Identifier: Apache-2.0
"""Try on synthetic cines what is said of cines: which rule calibrates best, and which outlines are found to jump."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bundle.data.phantom_cine import Cine, make_cine
from bundle.evaluation.cine import LEAST_SHARE, MAX_GAP, MAX_GROWTH, MAX_SHIFT, RULE, Look, follow
from bundle.evaluation.cine_rules import score_rules
from bundle.finding import Finding
from bundle.prediction.predictor import Predictor

OFF_BELOW = 0.1
"""Dice with the lesion in the plane, below which an outline lies on something else."""


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
        A dict ready for JSON: "settings", what `score_rules` returns, and "outlines": how many there are, how many lie
        "on" the lesion and "off" it, and of either how many are used for their cine (``followed``), ``jump``, or belong
        to another track.
    """
    cines: list[tuple[bool, list[Look]]] = []
    outlines = {place: {"followed": 0, "jump": 0, "other track": 0} for place in ("on", "off")}
    for number in range(1, per_class + 1):
        for label in ("benign", "malignant"):
            cine = make_cine(label, number, frames, seed)
            findings = [predictor.predict(picture.astype(np.float32)) for picture in cine.frames]
            looks = [Look.of({**finding.as_dict(), "frame": frame}) for frame, finding in enumerate(findings)]
            cines.append((label == "malignant", looks))
            _count(outlines, cine, findings, looks)
        if number % max(1, per_class // 10) == 0:
            told(f"{2 * number} of {2 * per_class} cines")
    limits = {"max_shift": MAX_SHIFT, "max_growth": MAX_GROWTH, "max_gap": MAX_GAP, "least_share": LEAST_SHARE}
    settings = {"per_class": per_class, "frames": frames, "seed": seed, "rule": RULE, **limits}
    made = {"synthetic": True, "settings": settings, "models": predictor.classifier.models}
    return {**made, **score_rules(cines), "outlines": outlines}


def _count(outlines: dict[str, dict[str, int]], cine: Cine, findings: list[Finding], looks: list[Look]) -> None:
    """Add where the outlines of a cine lie, and what became of each."""
    followed = follow(looks)
    for index, (finding, truth) in enumerate(zip(findings, cine.masks, strict=True)):
        if finding.lesion is None:
            continue
        dice = 2 * (finding.mask & truth).sum() / (finding.mask.sum() + truth.sum())
        fate = "followed" if index in followed.followed else "jump" if followed.jumps[index] else "other track"
        outlines["off" if dice < OFF_BELOW else "on"][fate] += 1
