# SPDX-License-Identifier: Apache-2.0
"""Claims about the pairs that are proposed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
import pytest

from bundle.data import candidates
from bundle.data.alignment import Details
from bundle.data.candidates import near_features, near_hashes
from bundle.data.stored_scenes import StoredScenes

ORIGINALS = 40
COPIES = {(index, ORIGINALS + index) for index in range(10)}


@pytest.fixture
def scenes() -> Iterator[StoredScenes]:
    """Scenes of random points; the last ten are the first ten with other noise, moved a little."""
    rng = np.random.default_rng(0)
    originals = [(rng.random((80, 2)) * 100, rng.gamma(0.7, 40, (80, 128))) for _ in range(ORIGINALS)]
    copies = [(points + 2, values + rng.normal(0, 4, values.shape)) for points, values in originals[: len(COPIES)]]
    empty = np.zeros((100, 100), np.float32)
    with tempfile.TemporaryFile() as file:
        stored = StoredScenes(file, ORIGINALS + len(COPIES) + 1)
        for index, (points, values) in enumerate([*originals, *copies, (np.zeros((0, 2)), np.zeros((0, 128)))]):
            descriptors = np.clip(values, 0, 255).astype(np.uint8)
            stored.put(index, Details(empty > 0, points.astype(np.float32), descriptors, empty, empty))
        yield stored


def test_copies_are_proposed_and_each_scene_proposes_ten_at_most(scenes: StoredScenes) -> None:
    found = near_features(scenes)
    assert found >= COPIES
    assert len(found) <= 10 * (len(scenes) - 1)
    assert all(0 <= first < second < len(scenes) - 1 for first, second in found)  # the last one has no points


@pytest.mark.parametrize("name", ["_PANEL_BYTES", "_ROWS_AT_ONCE", "_SCENES_AT_ONCE"])
def test_how_much_is_held_in_memory_at_once_changes_nothing(
    name: str, scenes: StoredScenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = near_features(scenes)
    monkeypatch.setattr(candidates, name, 3 if name != "_PANEL_BYTES" else 7 * 8 * len(scenes))
    assert near_features(scenes) == at_once


@pytest.mark.parametrize("features", [500, 100])
def test_copies_are_proposed_where_many_features_ask_for_smaller_buckets(
    features: int, scenes: StoredScenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_FEATURES_OF_BITS", features)  # 3 and 6 planes more
    monkeypatch.setattr(candidates, "_FEATURES_OF_MEDIANS", features)
    assert near_features(scenes) >= COPIES


def test_scenes_without_points_propose_nothing() -> None:
    empty = np.zeros((9, 9), np.float32)
    nothing = Details(empty > 0, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), empty, empty)
    with tempfile.TemporaryFile() as file:
        scenes = StoredScenes(file, 3)
        for index in range(3):
            scenes.put(index, nothing)
        assert near_features(scenes) == set()


def test_hashes_propose_the_nearest_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).random((50, 512)) > 0.5
    hashes[30:] = hashes[10:30]
    hashes[30:, :60] ^= True  # 60 bits differ
    expected = {(index, index + 20) for index in range(10, 30)}
    assert near_hashes(hashes, hashes) == expected
    monkeypatch.setattr(candidates, "_ROWS_AT_ONCE", 7)
    assert near_hashes(hashes, hashes) == expected
