# SPDX-License-Identifier: Apache-2.0
"""Claims about the entropies that active learning ranks images by."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.evaluation.uncertainty import (
    choose_doubt_limit,
    class_entropy,
    confidence_of_map,
    outline_confidence,
    outline_entropy,
)


def test_a_coin_toss_is_one_bit_and_certainty_none() -> None:
    assert class_entropy(0.5) == pytest.approx(1)
    assert class_entropy(0.0) == class_entropy(1.0) == 0
    assert class_entropy(0.9) == pytest.approx(class_entropy(0.1))


def test_a_soft_border_is_less_sure_than_a_sharp_one() -> None:
    sharp = np.zeros((60, 80))
    sharp[20:40, 30:50] = 1
    soft = sharp.copy()
    soft[20:40, 28:32] = 0.5
    box = (20, 30, 40, 50)
    assert outline_entropy(sharp, box) == 0
    assert outline_entropy(soft, box) == pytest.approx(20 * 4 / 30**2)


def test_background_far_away_does_not_count() -> None:
    probability = np.zeros((60, 80))
    probability[20:40, 30:50] = 0.5
    wide = np.pad(probability, 100)
    assert outline_entropy(probability, (20, 30, 40, 50)) == outline_entropy(wide, (120, 130, 140, 150))


def test_a_box_at_the_border_is_cut_there() -> None:
    assert outline_entropy(np.full((10, 10), 0.5), (0, 0, 10, 10)) == pytest.approx(1)


def test_the_confidence_is_the_mean_probability_inside_the_largest_outline() -> None:
    probability = np.zeros((30, 50))
    probability[10:20, 20:30] = 0.6
    probability[10:20, 20:25] = 1.0
    probability[2:4, 40:44] = 0.9  # a smaller region
    assert confidence_of_map(probability) == pytest.approx(0.8)
    assert confidence_of_map(probability, threshold=0.7) == pytest.approx(1.0)
    levels = np.full((4, 5), 51, np.uint8)
    assert outline_confidence(levels, np.ones((4, 5), bool)) == pytest.approx(0.2)


@pytest.mark.parametrize("highest", [0.0, 0.4])
def test_where_nothing_is_outlined_there_is_no_confidence(highest: float) -> None:
    assert confidence_of_map(np.full((30, 50), highest)) is None


def test_one_in_ten_validation_lesions_is_below_the_limit() -> None:
    confidences = np.random.default_rng(0).permutation(np.linspace(0.5, 1, 200)).tolist()
    limit = choose_doubt_limit(confidences)
    assert limit is not None
    assert sum(value < limit for value in confidences) == 20
    assert choose_doubt_limit([*confidences, None, None]) == limit


def test_few_lesions_give_no_limit() -> None:
    assert choose_doubt_limit([0.9] * 9) is None
    assert choose_doubt_limit([None] * 40) is None
    assert choose_doubt_limit([0.9] * 10) == pytest.approx(0.9)
