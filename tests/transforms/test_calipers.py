# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.calipers."""

from __future__ import annotations

import cv2
import numpy as np

from bundle.transforms.calipers import calipers_at, find_calipers


def test_calipers_of_many_sizes_are_found_and_plain_tissue_has_none() -> None:
    tissue = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (200, 240)).astype(np.float32), (0, 0), 3)
    assert find_calipers(tissue) == []
    for length, width in ((9, 1), (13, 1), (21, 2)):
        marked = tissue.copy()
        half = length // 2
        cv2.line(marked, (120 - half, 60), (120 + half, 60), 255, width)
        cv2.line(marked, (120, 60 - half), (120, 60 + half), 255, width)
        ((row, column),) = find_calipers(marked)
        assert abs(row - 60) <= 1
        assert abs(column - 120) <= 1


def test_marks_count_at_the_lesion_alone_and_in_the_pixels_of_the_whole_picture() -> None:
    tissue = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (200, 240)).astype(np.float32), (0, 0), 3)
    lesion = np.zeros(tissue.shape, bool)
    lesion[70:120, 90:150] = True
    assert calipers_at(tissue, lesion) == []
    ends, elsewhere = [(95, 88), (95, 152)], (20, 220)
    for row, column in [*ends, elsewhere]:
        cv2.line(tissue, (column - 6, row), (column + 6, row), 255, 1)
        cv2.line(tissue, (column, row - 6), (column, row + 6), 255, 1)
    found = sorted(calipers_at(tissue, lesion))
    assert len(find_calipers(tissue)) == 3
    assert np.abs(np.array(found) - ends).max() <= 1
