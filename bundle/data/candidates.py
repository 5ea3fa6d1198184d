# SPDX-License-Identifier: Apache-2.0
"""Propose pairs of images that may show the same, by perceptual hashes and by an index of local features."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from bundle.data.stored_scenes import StoredScenes

_NEIGHBOURS = 10
"""Images that the index proposes for each image."""
_HASH_NEIGHBOURS, _MAX_HASH_DISTANCE = 6, 200
"""Images that the hashes propose for each image, and the bits of 512 in which these may differ; half is by chance."""
_TABLES, _TABLES_AT_ONCE, _POSITION_WEIGHT, _LARGEST_BUCKET = 32, 4, 0.8, 100
_BITS, _FEATURES_OF_BITS = 18, 2**21
"""Planes of a table, and the features (4,000 images) above which each doubling gets one plane more: so a bucket holds
no more of them, and an image costs no more, among many images than among few."""
_FEATURES_OF_MEDIANS = 2**19
_ROWS_AT_ONCE, _SCENES_AT_ONCE, _PANEL_BYTES = 256, 128, 2**28


def near_hashes(hashes: np.ndarray, others: np.ndarray) -> set[tuple[int, int]]:
    """(first, second), first < second: for each image those whose (N, 512) bits in `others` differ least."""
    # The product of signs is equal bits minus different ones: Hamming distances as one matrix product.
    signs, other_signs = (np.where(bits, np.float32(1), np.float32(-1)) for bits in (hashes, others))
    count = min(_HASH_NEIGHBOURS, len(signs) - 1)
    found = set()
    for start in range(0, len(signs), _ROWS_AT_ONCE):
        distances = (signs.shape[1] - signs[start : start + _ROWS_AT_ONCE] @ other_signs.T) / 2
        distances[np.arange(len(distances)), start + np.arange(len(distances))] = np.inf
        nearest = np.argpartition(distances, count, axis=1)[:, :count]
        for row, column in np.argwhere(np.take_along_axis(distances, nearest, axis=1) <= _MAX_HASH_DISTANCE):
            pair = sorted((start + int(row), int(nearest[row, column])))
            found.add((pair[0], pair[1]))
    return found


def near_features(scenes: StoredScenes) -> set[tuple[int, int]]:
    """(first, second), first < second: for each scene those that share most descriptors at about the same place.

    Locality-sensitive hashing: random planes cut the space of descriptors and places into small buckets, several times
    over. Scenes that meet in a bucket get a vote, the more the fewer meet there; crowded buckets tell nothing.
    """
    if not scenes.point_counts.any():
        return set()
    found = set()
    with tempfile.TemporaryFile(prefix="buckets-") as file:
        total = _write_tables(scenes, file)
        rows = max(1, _PANEL_BYTES // (8 * len(scenes)))
        for start in tqdm(range(0, len(scenes), rows), desc="Counting votes", unit="panel", disable=None):
            panel = _count_votes(file, start, min(start + rows, len(scenes)), len(scenes))
            for first, votes in enumerate(panel, start):
                votes[first] = 0
                for other in _largest(votes / total, _NEIGHBOURS):
                    found.add((min(first, other), max(first, other)))
    return found


def _largest(scores: np.ndarray, count: int) -> list[int]:
    """Where the (N,) scores are largest, zeros left out; of equal ones the first."""
    least = np.partition(scores, -count)[-count] if len(scores) > count else 0
    places = np.flatnonzero((scores >= least) & (scores > 0))
    return [int(place) for place in places[np.argsort(-scores[places], kind="stable")[:count]]]


def _write_tables(scenes: StoredScenes, file: IO[bytes]) -> np.ndarray:
    """Write the tables for `_read_tables`; returns (N,), the root of all the votes that each scene gets."""
    owners = np.repeat(np.arange(len(scenes)), scenes.point_counts)
    for keys in tqdm(_hash_features(scenes), total=_TABLES, desc="Indexing features", unit="table", disable=None):
        met = keys * len(scenes) + owners
        met.sort()
        met = met[np.diff(met, prepend=-1) != 0]  # a scene meets others in a bucket once
        bucket = met // len(scenes)
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        sizes = np.diff(starts, append=len(met))
        tells = (sizes > 1) & (sizes <= _LARGEST_BUCKET)
        np.save(file, sizes[tells].astype(np.int32))
        np.save(file, (met[np.repeat(tells, sizes)] % len(scenes)).astype(np.int32))
    votes = np.zeros(len(scenes))
    for table, _ in _read_tables(file, len(scenes)):
        votes += table @ table.sum(axis=0) - table.power(2).sum(axis=1)  # without those for itself
    return np.sqrt(np.maximum(votes, 1e-9))


def _read_tables(file: IO[bytes], count: int) -> Iterator[tuple[csr_array, csr_array]]:
    """(count, buckets), where a scene is in a bucket one over the root of how many are, and (buckets, count)."""
    file.seek(0)
    for _ in range(_TABLES):
        sizes, members = np.load(file).astype(np.int64), np.load(file)
        weights = np.repeat(sizes**-0.5, sizes)
        buckets = csr_array((weights, members, np.append(0, np.cumsum(sizes))), shape=(len(sizes), count))
        yield buckets.T.tocsr(), buckets


def _count_votes(file: IO[bytes], start: int, stop: int, count: int) -> np.ndarray:
    """(stop - start, count): the votes that scenes from `start` to `stop` get from each."""
    panel = np.zeros((stop - start, count))
    for table, others in _read_tables(file, count):
        for row in range(start, stop, _ROWS_AT_ONCE):
            rows = slice(row, min(row + _ROWS_AT_ONCE, stop))
            panel[rows.start - start : rows.stop - start] += (table[rows] @ others).toarray()
    return panel


def _hash_features(scenes: StoredScenes) -> Iterator[np.ndarray]:
    """(F,) int64, the bucket of each feature, for one table after the other."""
    counts = scenes.point_counts
    features = int(counts.sum())
    bits = _BITS + max(0, math.ceil(math.log2(features / _FEATURES_OF_BITS)))
    typical = np.flatnonzero(counts)[:: math.ceil(features / _FEATURES_OF_MEDIANS)]
    rng = np.random.default_rng(0)
    for _ in range(0, _TABLES, _TABLES_AT_ONCE):
        # All random numbers of a table lie together, so that tables do not depend on how many are made at once.
        drawn = [(rng.standard_normal((128, bits), np.float32), rng.standard_normal((2, bits), np.float32))
                 for _ in range(_TABLES_AT_ONCE)]  # fmt: skip
        # Descriptors have no negative numbers; planes through their common direction would cut off little.
        planes = np.concatenate([plane - plane.mean(axis=0) for plane, _ in drawn], axis=1)
        shifts = np.concatenate([shift for _, shift in drawn], axis=1)
        sample = np.concatenate(list(_project(scenes, typical, planes, shifts)))
        middle = np.median(sample, axis=0, overwrite_input=True)
        del sample
        keys = np.zeros((_TABLES_AT_ONCE, features), dtype=np.int32)
        end = 0
        for values in _project(scenes, np.arange(len(scenes)), planes, shifts):
            above = (values > middle).reshape(len(values), _TABLES_AT_ONCE, bits)
            keys[:, end : end + len(values)] = (above @ (1 << np.arange(bits))).T
            end += len(values)
        for table in keys:
            yield table.astype(np.int64)


def _project(scenes: StoredScenes, indices: np.ndarray, planes: np.ndarray, shifts: np.ndarray) -> Iterator[np.ndarray]:
    """Distances of some scenes' features from the planes, (F, planes) float32, a block of scenes after the other."""
    for start in range(0, len(indices), _SCENES_AT_ONCE):
        descriptors, places = scenes.features(indices[start : start + _SCENES_AT_ONCE])
        values = descriptors @ planes
        values += _POSITION_WEIGHT * (places @ shifts)
        yield values
