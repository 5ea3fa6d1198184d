# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.segmentation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.stats import sem
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from bundle.errors import UserError
from bundle.evaluation.segmentation import (
    THRESHOLDS,
    choose_threshold,
    gate,
    measure_case,
    summarise,
    summarise_doubt,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
MAPS = SHAPES.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.sampled_from([np.float32(t) for t in [0, *THRESHOLDS, 1]])),
        hnp.arrays(bool, shape),
    )
)


def _box(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _dice(predicted: np.ndarray, lesion: np.ndarray) -> float:
    return 2 * (predicted & lesion).sum() / (predicted.sum() + lesion.sum())


def _row(image: str, name: str, group: str, probability: np.ndarray, lesion: np.ndarray) -> dict[str, Any]:
    return {"image": image, "class": name, "group": group, **asdict(measure_case(probability, lesion))}


@given(pair=MAPS, threshold=st.sampled_from(THRESHOLDS.tolist()))
@settings(deadline=None)
def test_overlap_scores_equal_those_of_scikit_learn(pair: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    probability, lesion = pair
    scores = measure_case(probability, lesion, threshold)
    truth, predicted = lesion.ravel(), (probability >= threshold).ravel()
    assert scores.tp + scores.fp + scores.fn + scores.tn == lesion.size
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert scores.background_accuracy == pytest.approx(accuracy_score(truth, np.zeros_like(truth)))
    if lesion.any():
        assert scores.dice == pytest.approx(f1_score(truth, predicted, zero_division=0))
        assert scores.iou == pytest.approx(jaccard_score(truth, predicted, zero_division=0))
        assert (scores.false_positive, scores.false_positive_area) == (None, None)
    else:
        assert (scores.dice, scores.iou, scores.hd95, scores.missed) == (None, None, None, None)
        assert scores.false_positive == predicted.any()
        assert scores.false_positive_area == pytest.approx(predicted.mean())
    assert (scores.hd95 is not None) == (lesion.any() and predicted.any())


@given(pair=MAPS)
@settings(max_examples=50, deadline=None)
def test_hd95_equals_that_of_distance_maps(pair: tuple[np.ndarray, np.ndarray]) -> None:
    probability, lesion = pair
    predicted = probability >= 0.5
    hd95 = measure_case(probability, lesion).hd95
    if hd95 is None:
        return
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, lesion)]
    far = [ndimage.distance_transform_edt(~edges[1 - side])[edges[side]] for side in (0, 1)]
    assert hd95 == pytest.approx(max(np.percentile(distances, 95) for distances in far), abs=1e-4)


def test_hd95_is_in_pixels_along_both_axes() -> None:
    lesion = _box(10, 10, 10, 10)
    assert measure_case(_box(10, 17, 10, 10).astype(float), lesion).hd95 == pytest.approx(7)
    assert measure_case(_box(14, 10, 10, 10).astype(float), lesion).hd95 == pytest.approx(4)


def test_hd95_at_256_counts_pixels_of_the_stretched_image() -> None:
    lesion = np.zeros((128, 512), dtype=bool)
    lesion[40:60, 100:140] = True
    lower, further = np.roll(lesion, 6, axis=0), np.roll(lesion, 6, axis=1)
    assert measure_case(lower.astype(float), lesion).hd95_at_256 == pytest.approx(6 * 256 / 128)
    assert measure_case(further.astype(float), lesion).hd95_at_256 == pytest.approx(6 * 256 / 512)
    assert measure_case(np.zeros(lesion.shape), lesion).hd95_at_256 is None


def test_lesion_is_missed_below_a_dice_of_a_tenth() -> None:
    lesion = _box(0, 0, 10, 10)
    assert measure_case(_box(30, 30, 5, 5).astype(float), lesion).missed is True
    assert measure_case(np.zeros((40, 60)), lesion).missed is True
    assert measure_case(_box(0, 0, 10, 5).astype(float), lesion).missed is False


@pytest.mark.parametrize(
    ("probability", "lesion", "message"),
    [
        (np.zeros((4, 5)), np.zeros((5, 4), bool), "one size"),
        (np.full((4, 5), 1.5), np.zeros((4, 5), bool), "sigmoid"),
        (np.full((4, 5), np.nan), np.zeros((4, 5), bool), "sigmoid"),
        (np.zeros((4, 5)), np.zeros((4, 5), np.uint8), "bool mask"),
        (np.zeros((0, 5)), np.zeros((0, 5), bool), "one size"),
    ],
)
def test_malformed_pairs_are_a_users_error(probability: np.ndarray, lesion: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure_case(probability, lesion)


def test_summary_equals_hand_computed_means() -> None:
    half, lesion, empty = _box(0, 0, 10, 5), _box(0, 0, 10, 10), np.zeros((40, 60), bool)
    rows = [
        _row("a", "benign", "1", lesion.astype(float), lesion),
        _row("b", "benign", "2", half.astype(float), lesion),
        _row("c", "malignant", "3", empty.astype(float), lesion),
        _row("d", "normal", "4", half.astype(float), empty),
        _row("e", "normal", "4", empty.astype(float), empty),
    ]
    summary = summarise(rows, draws=50)
    lesions, normals = summary["lesions"], summary["normals"]
    assert (lesions["cases"], lesions["groups"], lesions["hd95_undefined"]) == (3, 3, 1)
    assert lesions["dice"]["estimate"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert lesions["pooled_dice"]["estimate"] == pytest.approx(2 * 150 / (2 * 150 + 150))
    assert lesions["missed"]["estimate"] == pytest.approx(1 / 3)
    assert lesions["background_accuracy"]["estimate"] == pytest.approx(1 - 100 / 2400)
    assert lesions["pixel_accuracy"]["estimate"] == pytest.approx(1 - 150 / 3 / 2400)
    assert list(summary["classes"]) == ["benign", "malignant"]
    assert summary["classes"]["benign"]["iou"]["estimate"] == pytest.approx(0.75)
    assert summary["classes"]["malignant"]["hd95"] == {"estimate": None, "low": None, "high": None}
    assert (normals["cases"], normals["groups"]) == (2, 1)
    assert normals["false_positive_rate"]["estimate"] == pytest.approx(0.5)
    assert normals["false_positive_area"]["estimate"] == pytest.approx(50 / 2400 / 2)
    json.dumps(summary, allow_nan=False)


def test_lesions_are_also_scored_by_their_share_of_the_image() -> None:
    # Of 2400 pixels: 50, 72 (3 %), 240 (10 %).
    small, middle, large = _box(0, 0, 10, 5), _box(0, 0, 9, 8), _box(0, 0, 20, 12)
    rows = [
        _row("a", "benign", "1", small.astype(float), small),
        _row("b", "benign", "2", np.zeros((40, 60)), middle),
        _row("c", "malignant", "3", large.astype(float), large),
        _row("d", "malignant", "4", np.zeros((40, 60)), large),
    ]
    sizes = summarise(rows, draws=50)["sizes"]
    found = {name: (part["cases"], part["dice"]["estimate"]) for name, part in sizes.items()}
    assert found == {"below 3 %": (1, 1.0), "3 to 10 %": (1, 0.0), "10 % and more": (2, 0.5)}
    assert list(summarise(rows[:1], draws=50)["sizes"]) == ["below 3 %"]


def test_copies_in_one_group_do_not_narrow_the_intervals() -> None:
    generator = np.random.default_rng(0)
    lesion = _box(5, 5, 20, 20)
    rows = []
    for group in range(20):
        size = int(generator.integers(4, 20))
        rows.append(_row(f"{group}", "benign", f"{group}", _box(5, 5, size, size).astype(float), lesion))
    copies = [dict(row, image=f"{row['image']} copy {number}") for row in rows for number in range(4)]
    assert summarise(copies)["lesions"]["dice"] == pytest.approx(summarise(rows)["lesions"]["dice"])


def test_doubt_is_told_apart_by_how_good_the_outline_is() -> None:
    cases = [(0.9, 0.9), (0.8, 0.7), (0.5, 0.95), (0.3, 0.6), (0.0, None), (None, 0.5), (None, None), (None, 0.9)]
    rows = [
        {"group": str(number), "dice": dice, "outline_confidence": confidence}
        for number, (dice, confidence) in enumerate(cases)
    ]
    doubt = summarise_doubt(rows, 0.8, draws=50)
    assert doubt["below"] == 0.8
    parts = [doubt[name] for name in ("well_outlined", "badly_outlined", "normals")]
    assert [part["cases"] for part in parts] == [3, 2, 3]
    assert [part["doubtful"]["estimate"] for part in parts] == pytest.approx([1 / 3, 1, 2 / 3])


def test_summary_of_no_cases_is_empty_but_valid() -> None:
    summary = summarise([], draws=10)
    assert summary["classes"] == {}
    assert summary["lesions"]["dice"]["estimate"] is None
    assert summary["normals"]["cases"] == 0


@given(pairs=st.lists(MAPS, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_chosen_threshold_is_the_nearest_to_one_half_of_the_good_ones(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    lesions = [pair for pair in pairs if pair[1].any()]
    if not lesions:
        with pytest.raises(UserError, match="no validation case has a lesion"):
            choose_threshold(pairs)
        return
    scores = {
        t: [_dice(p >= t, lesion) if lesion.any() else float(not (p >= t).any()) for p, lesion in pairs]
        for t in THRESHOLDS.tolist()
    }
    best = max(scores.values(), key=lambda values: round(float(np.mean(values)), 9))
    errors = {t: sem(np.subtract(best, values)) if len(pairs) > 1 else 0.0 for t, values in scores.items()}
    good = [t for t, values in scores.items() if np.mean(best) - np.mean(values) <= errors[t] + 1e-9]
    assert abs(choose_threshold(iter(pairs)) - 0.5) == pytest.approx(min(abs(t - 0.5) for t in good))


def test_a_clearly_better_threshold_is_taken_and_a_slightly_better_one_is_not() -> None:
    lesion = _box(5, 5, 20, 20)

    def maps(low: float, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Cases whose lesion has this probability, in a ground of 0.1."""
        return [(np.where(lesion, low, 0.1), lesion)] * count

    assert choose_threshold(maps(0.2, 8)) == 0.2
    # One case of thirty is found at 0.2 and lost at 0.5: by chance.
    assert choose_threshold(maps(0.9, 29) + maps(0.2, 1)) == 0.5


def test_equally_good_thresholds_give_one_half() -> None:
    lesion = _box(0, 0, 10, 10)
    assert choose_threshold([(lesion.astype(np.float32), lesion)]) == 0.5


def test_a_lesion_that_is_told_to_be_none_scores_as_an_empty_mask_does_and_stands_ungated_beside() -> None:
    lesion, probability = _box(5, 5, 10, 10), _box(5, 7, 10, 10).astype(np.float32)
    told = {"presence": 0.2, "told_none": True}
    normal = _row("b", "normal", "2", probability, np.zeros_like(lesion)) | told
    rows = [_row("a", "benign", "1", probability, lesion) | told, normal]
    empty = np.zeros_like(probability)
    expected = [
        _row("a", "benign", "1", empty, lesion) | told,
        _row("b", "normal", "2", empty, np.zeros_like(lesion)) | told,
    ]
    assert [gate(row) for row in rows] == expected
    assert gate(rows[0] | {"told_none": False})["dice"] > 0.7
    summary = summarise(rows, draws=20)
    assert summary["lesions"]["dice"]["estimate"] == 0
    assert summary["classes"]["benign"]["missed"]["estimate"] == 1
    assert summary["normals"]["false_positive_rate"]["estimate"] == 0
    assert summary["ungated"]["lesions"]["dice"]["estimate"] == pytest.approx(0.8)
    assert summary["ungated"]["normals"]["false_positive_rate"]["estimate"] == 1
    assert summary["presence"]["lost"]["estimate"] == 1
