# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.benchmarks.cines."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.benchmarks.cines import FATES, PLACES, count_fates
from bundle.evaluation.cine import Look

LESION, OTHER = (slice(10, 30), slice(10, 30)), (slice(10, 30), slice(70, 90))


def _masks(*places: tuple[slice, slice] | None) -> np.ndarray:
    masks = np.zeros((len(places), 40, 100), bool)
    for mask, place in zip(masks, places, strict=True):
        if place is not None:
            mask[place] = True
    return masks


def _looks(masks: np.ndarray, contrasts: list[float]) -> list[Look]:
    return [
        Look(frame, 0.5, float(mask.sum()), (19.5, float(np.argwhere(mask)[:, 1].mean())), contrast)
        if mask.any()
        else Look(frame)
        for frame, (mask, contrast) in enumerate(zip(masks, contrasts, strict=True))
    ]


def _count(truths: np.ndarray, masks: np.ndarray, contrasts: list[float]) -> dict[str, dict[str, int]]:
    outlines = {place: dict.fromkeys(FATES, 0) for place in PLACES}
    count_fates(outlines, truths, list(masks), _looks(masks, contrasts))
    return {place: {fate: count for fate, count in counts.items() if count} for place, counts in outlines.items()}


def test_outlines_are_counted_by_where_they_lie_and_what_became_of_them() -> None:
    truths = _masks(*[LESION] * 5, None, None, None)
    masks = _masks(*[LESION] * 4, OTHER, LESION, LESION, None)
    counts = _count(truths, masks, [0.6] * 4 + [0.5, 0.1, 0.6, 0.0])
    assert counts == {"on": {"followed": 4}, "off": {"jump": 1, "creep": 1, "followed": 1}, "never": {}}


@pytest.mark.parametrize("truth", [LESION, None])
def test_a_cine_whose_lesion_is_never_outlined_is_told_apart(truth: tuple[slice, slice] | None) -> None:
    counts = _count(_masks(*[truth] * 4), _masks(*[OTHER] * 4), [0.4] * 4)
    assert counts == {"on": {}, "off": {}, "never": {"followed": 4}}
