# SPDX-License-Identifier: Apache-2.0
"""Findings of a cine's frames, as plain JSON, for tests of what is made of them."""

from __future__ import annotations

from typing import Any


def finding_of(
    frame: int, state: str, probability: float | None, column: float = 40.0, contrast: float = 0.5
) -> dict[str, Any]:
    """A finding as plain JSON, as far as a cine takes note of it; outlines of 400 pixels, about 23 wide."""
    measures = {"area_px": 400.0, "centroid_px": [30.0, column], "area_mm2": 4.0, "contrast": contrast}
    lesion = None if probability is None else measures
    decisions = {"probability 0.5": {"threshold": 0.5, "decision": None}}
    return {"frame": frame, "lesion_state": state, "probability": probability, "lesion": lesion, "decisions": decisions}
