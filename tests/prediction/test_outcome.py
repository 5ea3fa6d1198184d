# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.outcome."""

from __future__ import annotations

from bundle.prediction.outcome import Outcome, Summary
from tests.prediction.frames import finding_of


def _frames(*found: tuple[str, float | None]) -> Summary:
    """The summary of a cine whose frames have these states and probabilities."""
    summary = Summary()
    for number, (state, probability) in enumerate(found):
        finding = finding_of(number, state, probability)
        summary.add(Outcome(f"c.frame{number}.png", "c", len(found), finding))
    return summary


def test_a_cine_passes_over_frames_without_an_outline() -> None:
    summary = _frames(("unusable", None), ("none found", None), ("found", 0.5), ("found", 0.4), ("unusable", None))
    cine = summary.cines["c"]
    assert (cine["most_suspicious"]["frame"], cine["looked_at"], cine["unusable"]) == (2, 5, 2)
    assert (summary.usable, summary.unusable) == (True, [])
    assert "2 of them unusable" in summary.lines()[0]


def test_a_doubtful_frame_is_the_most_suspicious_only_where_no_other_is_outlined() -> None:
    assert _frames(("doubtful", 0.9), ("found", 0.2), ("doubtful", 0.95)).cines["c"]["most_suspicious"]["frame"] == 1
    doubtful = _frames(("doubtful", 0.3), ("none found", None), ("doubtful", 0.4)).cines["c"]["most_suspicious"]
    assert (doubtful["frame"], doubtful["lesion_state"]) == (2, "doubtful")
    assert _frames(("none found", None), ("unusable", None)).cines["c"]["most_suspicious"] is None


def test_a_cine_of_which_nothing_can_be_seen_is_an_unusable_file() -> None:
    summary = _frames(("unusable", None), ("unusable", None))
    assert (summary.usable, summary.unusable) == (False, ["c"])
