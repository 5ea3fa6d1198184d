# SPDX-License-Identifier: Apache-2.0
"""Claims about the entropies that active learning ranks images by."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.evaluation.uncertainty import class_entropy, outline_entropy


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
