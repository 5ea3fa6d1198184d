# SPDX-License-Identifier: Apache-2.0
"""Claims about the finding of a file of several frames."""

from __future__ import annotations

from typing import Any

import pytest

from bundle.evaluation.cine import RULE
from bundle.prediction.cines import CineSummary, line_of
from tests.prediction.frames import finding_of


def _summary(*found: tuple[Any, ...]) -> dict[str, Any]:
    cine = CineSummary("c.dcm", 100)
    for frame, more in enumerate(found):
        cine.add(f"c.dcm.frame{frame}.png", finding_of(frame, *more))
    return cine.as_dict()


def test_the_most_suspicious_frame_is_one_that_follows_the_lesion() -> None:
    cine = _summary(("found", 0.2), ("found", 0.3), ("found", 0.95, 200.0), ("found", 0.25), ("none found", None))
    assert cine["most_suspicious"]["frame"] == 1
    assert (cine["followed"], cine["jumps"], cine["other_tracks"]) == ([0, 1, 3], [2], [])
    assert cine["probability"] == pytest.approx(0.25)
    assert cine["decisions"]["probability 0.5"] == {"threshold": 0.5, "decision": "benign"}
    assert cine["rule"] == RULE


def test_the_most_suspicious_frame_is_none_in_which_the_lesion_was_lost() -> None:
    lesion, lost = ("found", 0.2, 40.0, 0.6), ("found", 0.9, 42.0, 0.1)
    summary = _summary(lost, *[lesion] * 4, lost)
    assert (summary["followed"], summary["creeps"], summary["jumps"]) == ([1, 2, 3, 4], [0, 5], [])
    assert summary["most_suspicious"]["frame"] in (1, 2, 3, 4)
    assert summary["probability"] == pytest.approx(0.2)
    assert [look["smooth_area_px"] for look in summary["curve"]] == [None, *[400.0] * 4, None]
    assert line_of(summary) == (
        "c.dcm: 6 of 100 frames; P(malignant) 0.200, median of 4 that follow it, 2 outlines creep; "
        "most suspicious: frame 1, P(malignant) 0.200"
    )


def test_the_curve_tells_each_frame_and_smooths_what_is_followed() -> None:
    curve = _summary(("found", 0.2), ("found", 0.95, 200.0), ("found", 0.3), ("unusable", None))["curve"]
    assert [look["frame"] for look in curve] == [0, 1, 2, 3]
    assert [look["smooth_area_px"] for look in curve] == [400.0, None, 400.0, None]
    assert [look["area_mm2"] for look in curve] == [4.0, 4.0, 4.0, None]
    assert curve[1]["centroid_px"] == (30.0, 200.0)


def test_two_lesions_are_told_apart() -> None:
    cine = _summary(*[("found", 0.2)] * 3, *[("found", 0.8, 200.0)] * 3)
    assert (cine["followed"], cine["other_tracks"]) == ([3, 4, 5], [0, 1, 2])
    assert cine["most_suspicious"]["frame"] in (3, 4, 5)


def test_the_line_of_a_cine_says_what_its_probability_is_made_of() -> None:
    line = line_of(_summary(("found", 0.2), ("found", 0.3), ("found", 0.95, 200.0), ("found", 0.25)))
    assert line == (
        "c.dcm: 4 of 100 frames; P(malignant) 0.250, median of 3 that follow it, 1 outlines jump; "
        "most suspicious: frame 1, P(malignant) 0.300"
    )
    assert line_of(_summary(("unusable", None))) == "c.dcm: 1 of 100 frames, 1 of them unusable; none shows a lesion"
