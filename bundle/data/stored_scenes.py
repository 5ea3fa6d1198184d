# SPDX-License-Identifier: Apache-2.0
"""Scenes and their detail in a file, so that a search among many thousands holds in memory only what it compares."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from functools import lru_cache
from typing import IO, NamedTuple

import numpy as np

from bundle.data.alignment import Details, root_descriptors

_AT_HAND = 64
"""Scenes kept in memory once they were read: pairs are compared in the order of their first scene."""


class _Entry(NamedTuple):
    """Where a scene begins in the file, its height and width, and its number of points."""

    start: int
    height: int
    width: int
    points: int

    @property
    def detail_bytes(self) -> int:
        return 2 * 4 * self.height * self.width

    @property
    def feature_bytes(self) -> int:
        return (2 * 4 + 128) * self.points


class StoredScenes:
    """Details of scenes by their index; about half a MiB each lies in the file. Any thread may read and write.

    Args:
        file: opened for reading and writing in binary, empty, such as a temporary file.
        count: of scenes; each is to be put once before it is read.
    """

    def __init__(self, file: IO[bytes], count: int) -> None:
        self._file, self._lock = file, threading.Lock()
        self._entries: list[_Entry] = [_Entry(0, 0, 0, 0)] * count
        self._end = 0
        self._at_hand = lru_cache(_AT_HAND)(self._load)

    def put(self, index: int, details: Details) -> None:
        """Store one scene."""
        height, width = details.tissue.shape
        parts = [details.fine, details.coarse, details.points, details.descriptors, np.packbits(details.tissue)]
        data = b"".join(part.tobytes() for part in parts)
        with self._lock:
            self._entries[index] = _Entry(self._end, height, width, len(details.points))
            self._file.seek(self._end)
            self._file.write(data)
            self._end += len(data)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Details:
        """Raises IndexError beyond the last."""
        return self._at_hand(range(len(self))[index])

    @property
    def point_counts(self) -> np.ndarray:
        """(N,) int64, the points of each scene."""
        return np.array([entry.points for entry in self._entries], dtype=np.int64)

    def features(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """The points of some scenes, one scene after the other, without their detail.

        Returns:
            (F, 128) float32 descriptors of length 1, and (F, 2) float32 places: x and y as a share of the width and
            height, -0.5 to 0.5.
        """
        descriptors, places = [], []
        for index in indices:
            entry = self._entries[index]
            data = self._bytes(entry.start + entry.detail_bytes, entry.feature_bytes)
            points, numbers = _split_features(data, entry.points)
            descriptors.append(numbers)
            places.append((points / (entry.width, entry.height) - 0.5).astype(np.float32))
        return root_descriptors(np.concatenate(descriptors)), np.concatenate(places)

    def _load(self, index: int) -> Details:
        entry = self._entries[index]
        shape, pixels = (entry.height, entry.width), entry.height * entry.width
        data = self._bytes(entry.start, entry.detail_bytes + entry.feature_bytes + math.ceil(pixels / 8))
        fine, coarse = np.frombuffer(data, np.float32, 2 * pixels).reshape(2, *shape)
        points, descriptors = _split_features(data, entry.points, entry.detail_bytes)
        bits = np.frombuffer(data, np.uint8, offset=entry.detail_bytes + entry.feature_bytes)
        tissue = np.unpackbits(bits, count=pixels).reshape(shape).astype(bool)
        return Details(tissue, points, descriptors, fine, coarse)

    def _bytes(self, start: int, count: int) -> bytearray:  # OpenCV takes no array that cannot be written
        data = bytearray(count)
        with self._lock:
            self._file.seek(start)
            if self._file.readinto(data) != count:  # type: ignore[attr-defined]
                raise OSError("the temporary file of the search for near duplicates was cut short")
        return data


def _split_features(data: bytearray, count: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    points = np.frombuffer(data, np.float32, 2 * count, offset).reshape(count, 2)
    return points, np.frombuffer(data, np.uint8, 128 * count, offset + 8 * count).reshape(count, 128)
