# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.recalibration, on scores that are known to be too extreme."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from bundle.evaluation import recalibration
from bundle.evaluation.recalibration import (
    PRESENCE,
    SETS,
    TEMPERATURE,
    Calibration,
    Scores,
    choose_reachable_point,
    find_unsupported,
    fit,
    recalibrate,
    summarise,
)

TIMES = 3.0  # by which the network's logits are too large
CARDS = Calibration(
    temperature=1.0,
    points=({"sensitivity_wish": 0.9, "threshold": 0.98}, {"sensitivity_wish": 0.95, "threshold": 0.97}),
    conformal={"coverage": 0.9, "benign": 0.9, "malignant": 0.9},
    doubtful_below=0.99,
    none_below=0.0,
)
POINTS = ("sensitivity 0.90", "sensitivity 0.95")


def _rows(number: int = 300, normals: int = 0, seed: int = 0, not_outlined: float = 0.0) -> list[dict[str, Any]]:
    """Pairs of images of one patient, with one diagnosis; the truth follows from a third of the logit."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for patient in range(number // 2):
        score = rng.normal(-0.5, 1.5)
        label = "malignant" if rng.random() < expit(score) else "benign"
        for view in range(2):
            outlined = rng.random() >= not_outlined
            rows.append(
                {
                    **{"image": f"{patient}_{view}.png", "group": f"p{patient}", "class": label},
                    **{"dice": 0.8 if outlined else 0.0, "false_positive": None},
                    "logit": TIMES * score + 0.05 * view if outlined else None,
                    "outline_confidence": float(rng.uniform(0.7, 0.95)) if outlined else None,
                    "presence": float(rng.uniform(0.6, 1.0)),
                }
            )
    for place in range(normals):
        rows.append(
            {
                **{"image": f"normal {place}.png", "group": f"n{place}", "class": "normal"},
                **{"dice": None, "false_positive": True, "logit": 0.0, "outline_confidence": 0.6},
                "presence": float(rng.uniform(0.3, 0.75)),
            }
        )
    return rows


@pytest.fixture(scope="module")
def fitted() -> tuple[Calibration, dict[str, Any]]:
    return recalibrate(_rows(400), CARDS, draws=25)


def test_the_temperature_by_which_scores_are_too_extreme_is_found_and_the_error_falls(
    fitted: tuple[Calibration, dict[str, Any]],
) -> None:
    after, told = fitted
    assert after.temperature == pytest.approx(TIMES, rel=0.25)
    interval = told["intervals"][TEMPERATURE]
    assert interval["low"] < TIMES < interval["high"]
    before, out_of_fold = (told["cross_validation"][name]["classification"] for name in ("before", "after"))
    assert out_of_fold["ece"]["estimate"] < before["ece"]["estimate"] / 2
    assert out_of_fold["brier"]["estimate"] < before["brier"]["estimate"]
    assert told["cross_validation"]["after"]["calibration"]["slope"]["estimate"] == pytest.approx(1, abs=0.3)


def test_the_operating_points_reach_out_of_fold_what_they_are_meant_for(
    fitted: tuple[Calibration, dict[str, Any]],
) -> None:
    told = fitted[1]["cross_validation"]
    for name, wish in zip(POINTS, (0.9, 0.95), strict=True):
        reached = {when: told[when]["classification"]["operating_points"][name] for when in ("before", "after")}
        assert reached["before"]["sensitivity"]["estimate"] < wish - 0.2
        assert reached["after"]["sensitivity"]["estimate"] == pytest.approx(wish, abs=0.06)
        assert reached["after"]["sensitivity"]["low"] < reached["after"]["sensitivity"]["estimate"]


def test_prediction_sets_and_doubt_hold_out_of_fold(fitted: tuple[Calibration, dict[str, Any]]) -> None:
    told = fitted[1]["cross_validation"]["after"]
    for label in ("benign", "malignant"):
        assert told["prediction_sets"][f"coverage_{label}"]["estimate"] == pytest.approx(0.9, abs=0.06)
    assert told["doubt"]["well_outlined"]["doubtful"]["estimate"] == pytest.approx(0.1, abs=0.05)  # of all 100 %


def test_the_presence_limit_loses_the_promised_share_where_normal_images_are_there() -> None:
    after, told = recalibrate(_rows(200, normals=60), CARDS, draws=2)
    assert 0.6 < after.none_below < 0.64
    before, out_of_fold = (told["cross_validation"][name]["presence"] for name in ("before", "after"))
    assert (before["lesions_lost"]["estimate"], before["normals_outlined"]["estimate"]) == (0.0, 1.0)
    assert out_of_fold["lesions_lost"]["estimate"] == pytest.approx(0.05, abs=0.03)
    assert out_of_fold["normals_outlined"]["estimate"] < 0.5


def test_what_too_few_images_cannot_support_is_named_and_stays() -> None:
    few = _rows(60, normals=20)  # about 20 of them malignant
    refused = find_unsupported(few, CARDS)
    assert set(refused) == {TEMPERATURE, *POINTS, SETS, PRESENCE}
    assert "malignant image(s)" in refused[TEMPERATURE]
    assert "20 normal image(s)" in refused[PRESENCE]
    after = fit(Scores.of(few), CARDS, refused)
    assert after.doubtful_below != CARDS.doubtful_below
    assert replace(after, doubtful_below=CARDS.doubtful_below) == CARDS


def test_many_images_of_few_patients_are_too_few() -> None:
    rows = [{**row, "group": f"p{place % 7}"} for place, row in enumerate(_rows(300))]
    assert "of 7 patient(s)" in find_unsupported(rows, CARDS)[TEMPERATURE]


def test_without_a_presence_head_no_presence_limit_is_fitted() -> None:
    rows = [{**row, "presence": None} for row in _rows(140, normals=60)]
    after, told = recalibrate(rows, CARDS, draws=2)
    assert "does not tell" in told["refused"][PRESENCE]
    assert after.none_below == 0
    assert "presence" not in told["cross_validation"]["after"]


def test_no_patient_is_on_both_sides_of_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = _rows(200), []
    deal = recalibration._deal
    monkeypatch.setattr(recalibration, "_deal", lambda *words: seen.extend(deal(*words)) or deal(*words))
    recalibrate(rows, CARDS, draws=2)
    assert sorted(np.concatenate([own for _, own in seen])) == list(range(len(rows)))
    for others, own in seen:
        assert not {rows[place]["group"] for place in others} & {rows[place]["group"] for place in own}


def test_a_point_that_lesions_without_an_outline_put_out_of_reach_is_refused_and_decides_as_before() -> None:
    rows = _rows(200, not_outlined=0.08)
    after, told = recalibrate(rows, CARDS, draws=2)
    assert set(told["refused"]) == {PRESENCE, "sensitivity 0.95"}
    assert "not outlined" in told["refused"]["sensitivity 0.95"]
    scores = Scores.of(rows)  # the same decisions at the card's temperature and threshold as at the new ones
    assert after.temperature > 2
    assert np.array_equal(after.probability(scores) >= after.points[1]["threshold"], CARDS.probability(scores) >= 0.97)


def test_lesions_without_an_outline_count_as_missed_when_a_point_is_chosen() -> None:
    labels, scores = [1] * 20 + [0] * 4, [0.0] + [0.05 * i for i in range(1, 20)] + [0.02, 0.1, 0.2, 0.3]
    point = choose_reachable_point(scores, labels, 0.9)
    assert (point["threshold"], point["sensitivity"]) == (pytest.approx(0.1), 0.9)
    lost = choose_reachable_point([0.0] * 5 + scores[5:], labels, 0.9)
    assert (lost["threshold"], lost["sensitivity"]) == (pytest.approx(0.25), 0.75)


def test_equal_seeds_give_equal_results() -> None:
    first, second = (recalibrate(_rows(140, normals=40), CARDS, draws=2, seed=3) for _ in range(2))
    assert first == second


def test_scores_of_images_without_a_diagnosis_are_those_of_their_outlines() -> None:
    rows = [{**row, "class": "unclassified"} for row in _rows(100)]
    after, told = recalibrate(rows, CARDS, draws=5)
    assert after.temperature == CARDS.temperature
    assert set(told["cross_validation"]["after"]) == {"doubt", "presence"}
    assert set(summarise(rows, [CARDS] * len(rows), 5)) == {"doubt", "presence"}
