# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.presence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bundle.evaluation.presence import choose_presence, summarise_presence


def test_the_limit_is_the_highest_that_loses_no_more_lesions_than_allowed() -> None:
    lesions, without = np.arange(1, 41) / 100 + 0.5, np.arange(20) / 20
    chosen = choose_presence([*lesions, *without], [True] * 40 + [False] * 20, most_lost=0.05)
    assert chosen["none_below"] == pytest.approx(0.53)  # two of forty lie below
    assert chosen["lost"] == pytest.approx(0.05)
    assert chosen["false_alarms"] == pytest.approx((without >= 0.53).mean())
    assert (chosen["lesions"], chosen["without"]) == (40, 20)


def test_no_dataset_loses_more_lesions_than_allowed() -> None:
    many, few = np.arange(1, 401) / 1000 + 0.5, np.arange(1, 41) / 100 + 0.2
    scores, names = [*many, *few], ["a"] * 400 + ["b"] * 40
    assert choose_presence(scores, [True] * 440)["none_below"] > 0.4  # more than half of "b"
    chosen = choose_presence(scores, [True] * 440, datasets=names)
    assert chosen["none_below"] == pytest.approx(0.23)  # two of forty lie below
    assert chosen["lost"] == pytest.approx(2 / 440)


def test_few_lesions_are_not_lost_at_all() -> None:
    assert choose_presence([0.4, 0.9], [True, True])["none_below"] == 0.4
    assert choose_presence([0.4], [False]) | {"most_lost": 0} == {
        **{"none_below": 0.5, "most_lost": 0, "lost": None, "false_alarms": 0.0},
        **{"auroc": None, "lesions": 0, "without": 1},
    }


def _row(group: int, dice: float | None, presence: float, outlined: bool = True) -> dict[str, Any]:
    return {
        **{"group": f"g{group}", "dice": dice, "presence": presence, "told_none": presence < 0.5},
        "false_positive": outlined if dice is None else None,
    }


def test_lesions_told_to_be_none_and_normal_images_outlined_are_counted() -> None:
    rows = [_row(0, 0.8, 0.9), _row(1, 0.6, 0.4), _row(2, None, 0.6), _row(3, None, 0.2), _row(4, None, 0.9, False)]
    summary = summarise_presence(rows, draws=50)
    assert summary["lost"]["estimate"] == 0.5
    assert summary["auroc"]["estimate"] == pytest.approx(3.5 / 6)
    assert set(summary["false_outlines_at"]) == {"0.02", "0.05", "0.10"}
    # One normal image is outlined and told of, one is outlined and told to have none, in one nothing is outlined.
    assert summary["false_outlines_at"]["0.05"] == pytest.approx(1 / 3)


def test_lesions_alone_have_no_area_under_the_curve() -> None:
    summary = summarise_presence([_row(0, 0.8, 0.9), _row(1, 0.6, 0.4)], draws=50)
    assert summary["auroc"] is None
    assert summary["without"] == 0
