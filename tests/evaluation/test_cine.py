# SPDX-License-Identifier: Apache-2.0
"""Claims about following a lesion through a cine, and about the probability of the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bundle.evaluation.cine import AGGREGATES, RULE, CineFinding, Look, follow
from bundle.evaluation.cine_rules import score_rules


def _looks(*places: tuple[float, float, float, float] | None) -> list[Look]:
    """One look per frame: (row, column, diameter, probability), or None where nothing is outlined."""
    return [
        Look(frame) if place is None else Look(frame, place[3], math.pi / 4 * place[2] ** 2, (place[0], place[1]))
        for frame, place in enumerate(places)
    ]


def test_a_lesion_that_moves_and_grows_slowly_is_one_track() -> None:
    looks = _looks(*((50.0 + 4 * n, 80.0 - 6 * n, 30.0 + 2 * n, 0.2 + 0.05 * n) for n in range(10)))
    found = follow(looks)
    assert found.tracks == (tuple(range(10)),)
    assert found.jumps == (False,) * 10
    assert found.probability == pytest.approx(AGGREGATES[RULE]([look.probability or 0 for look in looks]))


def test_an_outline_that_jumps_away_for_a_frame_is_flagged_and_does_not_count() -> None:
    places: list[tuple[float, float, float, float] | None] = [(50.0, 80.0, 30.0, 0.2)] * 9
    places[4] = (150.0, 200.0, 30.0, 0.99)
    found = follow(_looks(*places))
    assert found.jumps == (*(False,) * 4, True, *(False,) * 4)
    assert found.probability == pytest.approx(0.2)
    assert (found.areas[4], found.centroids[4]) == (None, None)


def test_an_outline_that_swells_for_a_frame_is_flagged_too() -> None:
    places: list[tuple[float, float, float, float] | None] = [(50.0, 80.0, 30.0, 0.2)] * 9
    places[4] = (52.0, 82.0, 60.0, 0.9)
    assert follow(_looks(*places)).jumps[4]


def test_an_outline_that_trembles_is_smoothed() -> None:
    places = [(50.0, 80.0, 30.0, 0.2)] * 9
    places[4] = (60.0, 90.0, 42.0, 0.2)
    found = follow(_looks(*places))
    assert not any(found.jumps)
    assert found.areas[4] == pytest.approx(math.pi / 4 * 30**2)
    assert found.centroids[4] == (50.0, 80.0)


def test_a_lesion_that_is_lost_for_some_frames_goes_on() -> None:
    here = (50.0, 80.0, 30.0, 0.2)
    assert follow(_looks(here, here, None, None, None, here, here)).tracks == ((0, 1, 5, 6),)
    assert follow(_looks(here, here, None, None, None, None, here, here)).tracks == ((0, 1), (6, 7))


def _sweep(*contrasts: float | None) -> CineFinding:
    """What is followed of outlines that hardly move; those of low contrast are called malignant."""
    return follow(
        [
            Look(frame, 0.9 if contrast is not None and contrast < 0.2 else 0.1, 700.0, (50.0 + frame, 80.0), contrast)
            for frame, contrast in enumerate(contrasts)
        ]
    )


def test_an_outline_that_stays_where_the_lesion_left_the_plane_creeps_and_does_not_count() -> None:
    found = _sweep(0.1, 0.15, 0.35, 0.6, 0.7, 0.6, 0.4, 0.1, 0.1)
    assert found.creeps == (True, True, *(False,) * 5, True, True)
    assert found.tracks == ((2, 3, 4, 5, 6),)
    assert not any(found.jumps)
    assert found.probability == pytest.approx(0.1)
    assert (found.areas[0], found.centroids[8]) == (None, None)


def test_a_lesion_that_is_in_the_plane_for_a_third_of_the_time_is_told_from_what_comes_after_it() -> None:
    assert _sweep(*[0.6] * 3, *[0.1] * 6).creeps == (*[False] * 3, *[True] * 6)


def test_no_outline_creeps_where_its_contrast_says_nothing() -> None:
    steady, bright, unknown, short = (0.12, 0.1, 0.15, 0.1), (-0.5, -0.1, -0.6, -0.5), (None,) * 6, (0.6, 0.1, 0.6)
    for contrasts in (steady, bright, unknown, short):
        found = _sweep(*contrasts)
        assert not any(found.creeps), contrasts
        assert found.followed == tuple(range(len(contrasts)))


def test_where_hardly_an_outline_would_be_left_none_creeps() -> None:
    assert not any(_sweep(0.9, 0.1, 0.1, 0.1).creeps)


def test_of_two_lesions_the_more_suspicious_answers_and_the_other_is_told() -> None:
    one, other = (50.0, 80.0, 30.0, 0.1), (120.0, 200.0, 30.0, 0.8)
    found = follow(_looks(*([one] * 6 + [other] * 3 + [one] * 3)))
    assert found.tracks == ((6, 7, 8), (0, 1, 2, 3, 4, 5, 9, 10, 11))
    assert found.probability == pytest.approx(0.8)
    assert not any(found.jumps)


def test_a_track_of_a_few_outlines_among_many_does_not_answer_for_the_cine() -> None:
    lesion, elsewhere = (50.0, 80.0, 30.0, 0.1), (120.0, 200.0, 30.0, 0.9)
    found = follow(_looks(*([lesion] * 18 + [elsewhere] * 2)))
    assert found.tracks[0] == tuple(range(18))
    assert found.probability == pytest.approx(0.1)


def test_where_nothing_can_be_followed_all_outlines_count_and_none_is_called_a_jump() -> None:
    found = follow(_looks((10, 10, 8, 0.2), (100, 100, 8, 0.4), (10, 200, 8, 0.6)))
    assert (found.tracks, found.jumps) == ((), (False,) * 3)
    assert found.followed == (0, 1, 2)
    assert found.probability == pytest.approx(0.4)
    assert follow(_looks((10, 10, 8, 0.3))).probability == pytest.approx(0.3)


def test_a_cine_without_an_outline_has_no_probability() -> None:
    found = follow(_looks(None, None))
    assert (found.probability, found.followed, found.jumps) == (None, (), (False, False))
    assert follow([]).probability is None


def test_looks_may_come_in_any_order() -> None:
    looks = _looks(*((50.0 + 4 * n, 80.0, 30.0, 0.1 * n) for n in range(8)))
    assert follow(looks[::-1]) == follow(looks)


@pytest.mark.parametrize(
    ("rule", "value"), [("maximum", 0.9), ("median", 0.2), ("mean", 0.4), ("upper quartile", 0.55)]
)
def test_the_rules_are_what_their_names_say(rule: str, value: float) -> None:
    assert AGGREGATES[rule]([0.1, 0.2, 0.9]) == pytest.approx(value)
    assert AGGREGATES["mean of logits"]([0.1, 0.9]) == pytest.approx(0.5)


def test_the_rule_that_gives_the_true_probabilities_scores_best() -> None:
    """Frames scatter around the cine's own log odds: their mean is right, and the highest is too high."""
    random = np.random.default_rng(0)
    cines = []
    for _ in range(600):
        odds = random.normal(0, 1.5)
        values = 1 / (1 + np.exp(-(odds + random.normal(0, 1, 12))))
        malignant = bool(random.random() < 1 / (1 + np.exp(-odds)))
        cines.append((malignant, _looks(*((50.0, 80.0, 30.0, float(value)) for value in values))))
    scores = score_rules(cines, draws=50)
    assert scores["cines"] == 600
    losses = {name: rule["followed"]["log_loss"]["estimate"] for name, rule in scores["rules"].items()}
    assert min(losses, key=lambda name: losses[name]) in ("mean of logits", "median")
    assert losses["maximum"] > losses["mean of logits"] + 0.1
    assert scores["rules"]["mean of logits"]["followed"]["slope"] == pytest.approx(1, abs=0.4)
