# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.classification and its figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import expit
from sklearn import metrics

from bundle.errors import UserError
from bundle.evaluation.classification import (
    area_under_roc,
    average_precision,
    calibration_error,
    choose_operating_points,
    fit_temperature,
    roc_points,
    summarise_classification,
)
from bundle.reports.figures import plot_confusion, plot_reliability, plot_roc

# Few levels, so that ties and bin edges are common.
SCORES = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.8, 1.0])), min_size=1, max_size=30)


def _rows(labels: Any, probabilities: Any, per_group: int = 1) -> list[dict[str, Any]]:
    return [
        {"image": f"{i}.png", "class": "x", "group": str(i // per_group), "label": int(y), "probability": float(p)}
        for i, (y, p) in enumerate(zip(labels, probabilities, strict=True))
    ]


def _simulate(cases: int, seed: int = 0, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the logits of a calibrated classifier."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.7, sharpness, cases)
    return rng.random(cases) < expit(logits), logits


@given(scores=SCORES)
@settings(deadline=None)
def test_areas_equal_those_of_scikit_learn(scores: list[tuple[bool, float]]) -> None:
    labels, probabilities = (np.array(column) for column in zip(*scores, strict=True))
    if labels.any() and not labels.all():
        assert area_under_roc(labels, probabilities) == pytest.approx(metrics.roc_auc_score(labels, probabilities))
        expected = metrics.roc_curve(labels, probabilities, drop_intermediate=False)[:2]
        assert all(map(np.array_equal, roc_points(labels, probabilities), expected))
    else:
        assert np.isnan(area_under_roc(labels, probabilities))
    if labels.any():
        expected = metrics.average_precision_score(labels, probabilities)
        assert average_precision(labels, probabilities) == pytest.approx(expected)
    else:
        assert np.isnan(average_precision(labels, probabilities))


@given(scores=SCORES, threshold=st.sampled_from([0.2, 0.5, 1.0]))
@settings(deadline=None, max_examples=50)
def test_estimates_equal_those_of_scikit_learn(scores: list[tuple[bool, float]], threshold: float) -> None:
    labels, probabilities = (np.array(column) for column in zip(*scores, strict=True))
    summary = summarise_classification(_rows(labels, probabilities), {"here": threshold}, draws=5)
    at, called = summary["operating_points"]["here"], probabilities >= threshold
    expected = {
        "accuracy": metrics.accuracy_score(labels, called),
        "sensitivity": metrics.recall_score(labels, called, zero_division=np.nan),
        "specificity": metrics.recall_score(~labels, ~called, zero_division=np.nan),
        "precision_malignant": metrics.precision_score(labels, called, zero_division=np.nan),
        "precision_benign": metrics.precision_score(~labels, ~called, zero_division=np.nan),
        "f1": metrics.f1_score(labels, called, zero_division=np.nan),
    }
    for name, value in expected.items():
        assert at[name]["estimate"] == (None if np.isnan(value) else pytest.approx(value)), name
    assert at["confusion"] == metrics.confusion_matrix(labels, called, labels=[False, True]).tolist()
    assert summary["brier"]["estimate"] == pytest.approx(np.mean((probabilities - labels) ** 2))
    assert summary["majority_accuracy"]["estimate"] == pytest.approx(max(labels.mean(), 1 - labels.mean()))
    if labels.any() and not labels.all():
        balanced = metrics.balanced_accuracy_score(labels, called)
        assert at["balanced_accuracy"]["estimate"] == pytest.approx(balanced)
    json.dumps(summary, allow_nan=False)


def test_a_650_case_summary_with_2000_draws_takes_less_than_ten_seconds() -> None:
    labels, logits = _simulate(650)
    start = time.process_time()
    summary = summarise_classification(_rows(labels, expit(logits), per_group=2), {"a": 0.5, "b": 0.3}, draws=2000)
    assert time.process_time() - start < 10
    assert (summary["cases"], summary["groups"], summary["malignant"]) == (650, 325, labels.sum())
    for score in (summary["auroc"], summary["auprc"], summary["brier"], summary["operating_points"]["a"]["f1"]):
        assert 0 < score["low"] < score["estimate"] < score["high"] < 1


def test_copies_in_one_group_do_not_narrow_the_interval() -> None:
    labels, logits = _simulate(80)
    once = summarise_classification(_rows(labels, expit(logits)), draws=300)
    copied = _rows(np.repeat(labels, 4), expit(np.repeat(logits, 4)), per_group=4)
    assert sorted(row["group"] for row in copied[::4]) == sorted({row["group"] for row in copied})
    four = summarise_classification(copied, draws=300)
    for name in ("auroc", "brier"):
        width = once[name]["high"] - once[name]["low"]
        assert four[name]["high"] - four[name]["low"] == pytest.approx(width, rel=0.2), name


def test_one_class_only_leaves_the_areas_undefined() -> None:
    summary = summarise_classification(_rows([0, 0, 0], [0.1, 0.2, 0.7]), draws=20)
    assert summary["auroc"] == summary["auprc"] == {"estimate": None, "low": None, "high": None}
    assert summary["operating_points"]["default"]["sensitivity"]["estimate"] is None
    assert summary["operating_points"]["default"]["specificity"]["estimate"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("row", "told"),
    [({"label": 2}, "label 2"), ({"probability": 1.2}, "probability"), ({"probability": float("nan")}, "probability")],
)
def test_a_bad_row_names_its_image(row: dict[str, Any], told: str) -> None:
    rows = _rows([0, 1], [0.3, 0.6])
    rows[1].update(row)
    with pytest.raises(UserError, match=rf"1\.png: {told}"):
        summarise_classification(rows)
    with pytest.raises(UserError, match="no classified image"):
        summarise_classification([])


def test_calibration_error_is_small_for_true_probabilities_and_known_for_wrong_ones() -> None:
    labels, logits = _simulate(20000)
    assert calibration_error(labels, expit(logits)) < 0.02
    assert calibration_error(labels, np.full(labels.size, 0.9)) == pytest.approx(0.9 - labels.mean())
    assert calibration_error(labels, labels.astype(float)) == 0


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 3.0])
def test_the_temperature_of_overheated_logits_is_found(temperature: float) -> None:
    labels, logits = _simulate(5000)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([], []), ([1.0, 2.0], [1, 1]), ([1.0, -2.0], [0, 0]), ([0.0, 0.0, 0.0], [0, 1, 1]), ([3.0], [1])],
    ids=["none", "malignant only", "benign only", "zero logits", "one case"],
)
def test_where_nothing_can_be_fitted_the_temperature_is_one(logits: list[float], labels: list[int]) -> None:
    assert fit_temperature(logits, labels) == 1.0


def test_separable_cases_do_not_become_certain() -> None:
    logits, labels = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]), np.array([0, 0, 0, 1, 1, 1])
    assert expit(logits.max() / fit_temperature(logits, labels)) == pytest.approx(4 / 5, abs=0.01)


def test_logits_that_order_cases_the_wrong_way_are_flattened() -> None:
    labels, logits = _simulate(500)
    assert np.abs(expit(-logits / fit_temperature(-logits, labels)) - 0.5).max() < 0.02


def test_a_logit_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit_temperature([0.1, float("nan")], [0, 1])


@given(scores=SCORES, wish=st.sampled_from([0.5, 0.9, 0.95, 1.0]))
@settings(deadline=None)
def test_an_operating_point_has_the_highest_threshold_that_reaches_the_wish(
    scores: list[tuple[bool, float]], wish: float
) -> None:
    labels, probabilities = (np.array(column) for column in zip(*scores, strict=True))
    if not labels.any():
        with pytest.raises(UserError, match="malignant"):
            choose_operating_points(probabilities, labels, [wish])
        return
    (point,) = choose_operating_points(probabilities, labels, [wish])
    threshold, malignant = point["threshold"], probabilities[labels]
    assert threshold is not None
    assert point["sensitivity"] == (malignant >= threshold).mean() >= wish
    assert all((malignant >= higher).mean() < wish for higher in probabilities[probabilities > threshold])
    if labels.all():
        assert point["specificity"] is None
    else:
        assert point["specificity"] == pytest.approx((probabilities[~labels] < threshold).mean())


def test_nine_of_ten_are_ninety_per_cent() -> None:
    probabilities = np.arange(1, 11) / 10
    points = choose_operating_points(probabilities, np.ones(10), (0.9, 0.95))
    assert [(point["sensitivity_wish"], point["threshold"]) for point in points] == [(0.9, 0.2), (0.95, 0.1)]


ROWS = _rows([0, 0, 0, 1, 1, 0], [0.1, 0.4, 0.6, 0.5, 0.9, 0.1])


@pytest.mark.parametrize(
    "draw",
    [
        lambda path, synthetic: plot_roc(ROWS, path, synthetic),
        lambda path, synthetic: plot_reliability(ROWS, path, synthetic),
        lambda path, synthetic: plot_confusion([[3, 1], [0, 2]], path, synthetic),
    ],
    ids=["roc", "reliability", "confusion"],
)
def test_figures_of_the_classifier_are_pngs_stamped_when_asked(
    tmp_path: Path, draw: Callable[[Path, bool], None]
) -> None:
    pictures = []
    for synthetic in (False, True):
        draw(tmp_path / f"{synthetic}.png", synthetic)
        with Image.open(tmp_path / f"{synthetic}.png") as file:
            assert file.format == "PNG"
            pictures.append(np.asarray(file.convert("RGB")).astype(int))
    changed = (pictures[0] != pictures[1]).any(axis=-1)
    assert changed.mean() > 0.01
    assert (pictures[1][changed][:, 0] - pictures[1][changed][:, 1]).mean() > 30  # red


def test_the_confusion_figure_is_dark_where_the_cases_are(tmp_path: Path) -> None:
    plot_confusion([[50, 0], [0, 3]], tmp_path / "right.png")
    plot_confusion([[0, 50], [3, 0]], tmp_path / "wrong.png")
    right, wrong = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).astype(int) for name in ("right", "wrong")
    )
    height, width = right.shape
    upper_left = (slice(height // 8, height // 4), slice(width // 4, width // 3))
    assert right[upper_left].mean() + 100 < wrong[upper_left].mean()


def test_no_case_to_draw_is_a_users_error(tmp_path: Path) -> None:
    for draw in (plot_roc, plot_reliability):
        with pytest.raises(UserError, match="no classified image"):
            draw([], tmp_path / "x.png")
    with pytest.raises(UserError, match="both benign and malignant"):
        plot_roc(_rows([1, 1], [0.2, 0.3]), tmp_path / "x.png")
    with pytest.raises(UserError, match="no case"):
        plot_confusion([[0, 0], [0, 0]], tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
