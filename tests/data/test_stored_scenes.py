# SPDX-License-Identifier: Apache-2.0
"""Claims about scenes in a file."""

from __future__ import annotations

import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bundle.data import stored_scenes
from bundle.data.alignment import Details, root_descriptors
from bundle.data.stored_scenes import StoredScenes


def _details(seed: int, height: int = 30, width: int = 41, points: int = 7) -> Details:
    rng = np.random.default_rng(seed)
    fine, coarse = rng.normal(size=(2, height, width)).astype(np.float32)
    places = (rng.random((points, 2)) * (width, height)).astype(np.float32)
    descriptors = rng.integers(0, 256, (points, 128)).astype(np.uint8)
    return Details(rng.random((height, width)) > 0.5, places, descriptors, fine, coarse)


def _assert_equal(one: Details, other: Details) -> None:
    for name in ("tissue", "points", "descriptors", "fine", "coarse"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_scenes_come_back_as_they_were_put_in_any_order_and_by_any_thread() -> None:
    put = [_details(seed, height=20 + seed, points=3 * seed) for seed in range(30)]  # the first has no points
    put.append(_details(30, height=1, width=1, points=1))
    with tempfile.TemporaryFile() as file, ThreadPoolExecutor(4) as pool:
        scenes = StoredScenes(file, len(put))
        list(pool.map(lambda index: scenes.put(index, put[index]), reversed(range(len(put)))))
        for given, read in zip(put, pool.map(scenes.__getitem__, range(len(put))), strict=True):
            _assert_equal(given, read)
        assert scenes.point_counts.tolist() == [3 * seed for seed in range(30)] + [1]
        with pytest.raises(IndexError):
            scenes[len(put)]


def test_features_are_those_of_the_scenes_one_after_the_other() -> None:
    put = [_details(seed, points=seed) for seed in range(5)]
    with tempfile.TemporaryFile() as file:
        scenes = StoredScenes(file, len(put))
        for index, details in enumerate(put):
            scenes.put(index, details)
        descriptors, places = scenes.features([3, 0, 2])
    np.testing.assert_array_equal(
        descriptors, root_descriptors(np.concatenate([put[3].descriptors, put[2].descriptors]))
    )
    np.testing.assert_allclose(places, np.concatenate([put[3].points, put[2].points]) / (41, 30) - 0.5, atol=1e-6)


def test_only_a_few_scenes_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_scenes, "_AT_HAND", 4)
    details = _details(0, height=128, width=128, points=100)
    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        try:
            scenes = StoredScenes(file, 60)
            for index in range(60):
                scenes.put(index, details)
            for index in range(60):
                scenes[index]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 10 * (details.fine.nbytes + details.coarse.nbytes + details.descriptors.nbytes)
