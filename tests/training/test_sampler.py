# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.sampler."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from bundle.training import balanced_sampler
from bundle.training.sampler import draw_weights

COUNTS = {("A", "benign"): 30, ("A", "malignant"): 10, ("A", "normal"): 9, ("B", "benign"): 100, ("B", "malignant"): 60}


def _records(counts: dict[tuple[str, str], int] = COUNTS) -> list[dict[str, Any]]:
    return [{"dataset": name, "class": label} for (name, label), count in counts.items() for _ in range(count)]


def _shares(counts: dict[tuple[str, str], int] = COUNTS, **options: Any) -> dict[tuple[str, str], float]:
    records = _records(counts)
    shares: Counter[tuple[str, str]] = Counter()
    for record, weight in zip(records, draw_weights(records, **options), strict=True):
        shares[record["dataset"], record["class"]] += weight
    return shares


def test_datasets_are_drawn_by_the_root_of_their_size_and_classes_alike() -> None:
    shares = _shares(normal_share=0.1)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["A", "normal"] == pytest.approx(0.1)
    assert shares["A", "benign"] == pytest.approx(shares["A", "malignant"])
    assert shares["B", "benign"] == pytest.approx(shares["B", "malignant"])
    assert shares["B", "benign"] / shares["A", "benign"] == pytest.approx(2)  # the root of 160 over 40


def test_without_normals_their_share_goes_to_the_lesions() -> None:
    assert sum(_shares({key: count for key, count in COUNTS.items() if key[1] != "normal"}).values()) == pytest.approx(
        1
    )
    assert sum(_shares({("A", "normal"): 5}).values()) == pytest.approx(1)


def test_a_sampler_is_made_for_several_datasets_and_repeats_with_the_seed() -> None:
    sampler = balanced_sampler(_records())
    assert sampler is not None
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(list(sampler))
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == sum(COUNTS.values())
    assert balanced_sampler([{"class": "benign"}, {"class": "malignant"}]) is None
    assert balanced_sampler([{"image": "given by a tool", "label": "a mask"}]) is None
