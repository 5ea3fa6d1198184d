# SPDX-License-Identifier: Apache-2.0
"""Find images that show the same frame or patient, so that no such pair is torn between training and test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from bundle.data.cases import Case
from bundle.readers import read_image

HASH_SIDE = 16
MAX_DISTANCE = 168
"""Bits of the two hashes (2 × 256) in which near duplicates may differ.

Chosen on BUSI by eye: every pair up to 170 shows the same lesion or frame, the first wrong pair is at 172, and the
bulk of unrelated pairs lies around 256.
"""

_ROWS_AT_ONCE = 1024


class Pair(NamedTuple):
    """Two cases, by their place in the list, that belong together, and why."""

    first: int
    second: int
    evidence: str


def find_pairs(cases: Sequence[Case], dataset_dir: str | os.PathLike[str]) -> list[Pair]:
    """Pairs of cases with equal pixels, alike perceptual hashes, or the same patient; the strongest reason only.

    The hash is ImageHash's phash (DCT) and dhash (gradient), 256 bits each: alike after re-saving, scaling, small crops
    and drawn callipers; not after flips, larger crops or a moved probe.

    Raises:
        InputError: an image cannot be read.
    """
    folder = Path(dataset_dir)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        hashes = pool.map(lambda case: _hash(folder / case.image), cases)
        bits = np.stack(list(tqdm(hashes, total=len(cases), desc="Comparing images", unit="image", disable=None)))
    pairs = []
    for first, second, distance in _alike(bits):
        same = cases[first].sha256 == cases[second].sha256
        pairs.append(Pair(first, second, "equal pixels" if same else f"alike ({distance} of {bits.shape[1]} bits)"))
    last_seen: dict[str, int] = {}
    for index, case in enumerate(cases):
        if case.patient is not None:
            if case.patient in last_seen:
                pairs.append(Pair(last_seen[case.patient], index, "same patient"))
            last_seen[case.patient] = index
    return pairs


def group_cases(cases: Sequence[Case], pairs: Sequence[Pair]) -> dict[str, str]:
    """Name the groups that pairs form, by union: image -> "g0001", … in the order of each group's first image."""
    first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(cases), len(cases)))
    _, component = connected_components(graph, directed=False)
    names: dict[int, str] = {}
    groups: dict[str, str] = {}
    for index in sorted(range(len(cases)), key=lambda i: cases[i].image):
        groups[cases[index].image] = names.setdefault(int(component[index]), f"g{len(names) + 1:04d}")
    return groups


def group_near_duplicates(cases: Sequence[Case], dataset_dir: str | os.PathLike[str]) -> dict[str, str]:
    """Group cases that show the same frame or patient: image -> group id. A case alone is a group of one."""
    return group_cases(cases, find_pairs(cases, dataset_dir))


def _hash(path: Path) -> np.ndarray:
    """512 bits of one image."""
    image = Image.fromarray(np.rint(read_image(path).pixels).astype(np.uint8))
    parts = [imagehash.phash(image, HASH_SIDE), imagehash.dhash(image, HASH_SIDE)]
    return np.concatenate([part.hash.ravel() for part in parts])


def _alike(bits: np.ndarray) -> list[tuple[int, int, int]]:
    """(first, second, distance) of rows that differ in at most MAX_DISTANCE bits, closest first; first < second."""
    # The product of signs is equal bits minus different ones: Hamming distances as one matrix product.
    signs = np.where(bits, 1, -1).astype(np.float32)
    found = []
    for start in range(0, len(signs), _ROWS_AT_ONCE):
        distances = (bits.shape[1] - signs[start : start + _ROWS_AT_ONCE] @ signs.T) / 2
        for row, second in np.argwhere(distances <= MAX_DISTANCE):
            if start + row < second:
                found.append((int(start + row), int(second), int(distances[row, second])))
    return sorted(found, key=lambda pair: (pair[2], pair[0], pair[1]))
