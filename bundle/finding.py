# SPDX-License-Identifier: Apache-2.0
"""What is said about one image: the lesion in numbers, the probability of malignancy, the decision, the warnings."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

NOT_A_DEVICE = "Research software, not a medical device."
MAPS = ("mask", "probability_map", "explanation")
SCHEMA_VERSION = 2
"""Of findings as plain JSON; raised when a field changes its meaning, type or name, or may newly be null."""

FOUND, DOUBTFUL, NONE_FOUND, UNUSABLE = LESION_STATES = ("found", "doubtful", "none found", "unusable")
"""What became of the search for a lesion: outlined; outlined with a warning; nothing outlined; nothing to see."""

NO_LESION = "no pixel reaches the threshold: nothing is outlined, so nothing was classified"
ABSENT = "a lesion is less probable than the segmenter's limit: nothing is outlined, so nothing was classified"
DOUBTFUL_OUTLINE = "doubtful outline: there may be no lesion, or another one"
AT_MARKS = "calipers or other marks are drawn at the outline: the outline and the probability may follow them"
OVERLAY_RGB = (230, 159, 0)  # of outlines: orange of the Okabe-Ito palette, told apart by colour-blind readers


@dataclass(frozen=True)
class Finding:
    """The result for one image; everything but the `MAPS` is plain JSON.

    Without an outline there is nothing to classify: box, lesion, outline confidence, probabilities and call are None
    then, and so is the decision at each operating point.

    Args:
        image: the file, as it was named.
        size: (H, W) of the stored frame in pixels; boxes, centroid and maps are in its pixels.
        box: (top, left, bottom, right) of the lesion, half-open.
        lesion: area, axes, orientation, solidity …, see `measure_lesion`; and its "contrast": how much brighter its
            surroundings are, in ranges of the image's grey levels, see `bundle.transforms.features.GREY_SCALE`.
        other_boxes: of further components.
        lesion_state: one of `LESION_STATES`.
        reason: why nothing is outlined; None where something is.
        outline_confidence: mean probability of lesion inside the outline, in [0, 1]; below the limit on the
            segmenter's card a warning says so.
        probability_raw: of malignancy, as the network gives it.
        probability: of malignancy, calibrated with the temperature fitted on validation.
        decisions: per operating point, its threshold and "malignant", "benign" or None.
        warnings: what a reader should know.
        models: sha256 of the weights that said so, and of the site file in use.
        mask: (H, W) bool, the lesion; empty where there is none.
        probability_map: (H, W) uint8, 255 for certain lesion.
        explanation: (H, W) uint8, 255 where the evidence for malignancy is strongest; None unless asked for.
        frame: of a file of several frames, counted from 0; None for a file of one image.
        spacing_mm: (row, column) distance of pixel centres in mm; None where the file does not tell.
        call: "malignant", "benign" or "unsure", by prediction sets that keep their promise per class, see
            `bundle.evaluation.conformal`; None where the classifier's card has none.
        lesion_probability: that there is a lesion at all; None where the segmenter has no head that tells.
        site: whose own calibration it is, see `bundle.networks.site_file`; None where the cards of the weights hold.
    """

    image: str
    size: tuple[int, int]
    box: tuple[int, int, int, int] | None
    lesion: dict[str, Any] | None
    other_boxes: tuple[tuple[int, int, int, int], ...]
    lesion_state: str
    outline_confidence: float | None
    probability_raw: float | None
    probability: float | None
    decisions: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]
    models: dict[str, str | None]
    mask: np.ndarray = field(repr=False, compare=False)
    probability_map: np.ndarray = field(repr=False, compare=False)
    explanation: np.ndarray | None = field(default=None, repr=False, compare=False)
    frame: int | None = None
    spacing_mm: tuple[float, float] | None = None
    call: str | None = None
    reason: str | None = None
    lesion_probability: float | None = None
    site: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The finding without its maps, for JSON and tables."""
        # Not by `asdict`, which would copy the maps as well, nor by `deepcopy`, which looks for more than plain values.
        content = {item.name: _copy(getattr(self, item.name)) for item in fields(self) if item.name not in MAPS}
        return {"schema_version": SCHEMA_VERSION, **content, "notice": NOT_A_DEVICE}


def _copy(value: Any) -> Any:
    """A copy of plain values in dicts and lists."""
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value
