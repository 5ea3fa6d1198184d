# SPDX-License-Identifier: Apache-2.0
"""Find images that show the same frame or patient, so that no such pair is torn between training and test.

Perceptual hashes and an index of local features propose pairs, so that the time grows little faster than the number
of images; each proposal is then aligned and measured (`bundle.data.alignment`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from bundle.data.alignment import Details, Scene, compare, read_details, read_scene
from bundle.data.cases import Case
from bundle.data.roots import Dataset, Roots, find_roots
from bundle.readers import read_image

HASH_SIDE = 16

MIN_TEXTURE, MIN_POINTS = 0.5, 8
"""From here on two images are the same frame. On BUSI copies reach 0.95, cine neighbours 0.9, all other pairs 0.45."""
MIN_ANATOMY, MIN_OVERLAP = 0.42, 0.6
MIN_SURENESS, POINTS_PER_CORRELATION = 0.65, 100
MAX_DISTANCE = 168
"""From here on two images are the same scene: the probe or the tissue moved a little between them. The coarse detail
correlates, and many points agree (correlation + points / 100 reaches 0.65), or some do and the hashes differ in few
of 512 bits.
Chosen on BUSI by eye: the pairs above show one lesion or place; of unlike pairs the surest reaches 0.6."""

_NEIGHBOURS = 10
"""Images that the index proposes for each image."""
_HASH_NEIGHBOURS, _MAX_HASH_DISTANCE = 6, 200
"""Images that the hashes propose for each image, and the bits of 512 in which these may differ; half is by chance."""
_TABLES, _BITS, _POSITION_WEIGHT, _LARGEST_BUCKET = 32, 18, 0.8, 100
_ROWS_AT_ONCE = 1024
_MIRRORED_AT_HAND = 512

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pair(NamedTuple):
    """Two cases, by their place in the list, that belong together, and why."""

    first: int
    second: int
    evidence: str


def find_pairs(cases: Sequence[Case], dataset_dir: Dataset | Roots) -> list[Pair]:
    """Pairs of cases that show the same frame, mirrored or not, the same scene, or the same patient.

    Found: copies that were re-saved, scaled, cropped, captioned, marked, mirrored or changed in grey levels, and
    frames of one place taken within moments. Not found: other views of a lesion.

    Returns:
        Pairs with their strongest reason, the surest first.

    Raises:
        InputError: an image cannot be read.
    """
    if not cases:
        return []
    order = sorted(range(len(cases)), key=lambda index: cases[index].image)  # so that their order changes nothing
    roots = find_roots(dataset_dir)
    read = _in_threads(_read, [roots.absolute(cases[index].image) for index in order], "Reading scenes", "image")
    scenes = [scene for scene, _, _ in read]
    hashes, mirrored = np.stack([bits for _, bits, _ in read]), np.stack([bits for _, _, bits in read])

    proposed = [(*pair, False) for pair in sorted(_near_hashes(hashes, hashes) | _near_features(scenes))]
    proposed += [(*pair, True) for pair in sorted(_near_hashes(hashes, mirrored))]

    @lru_cache(_MIRRORED_AT_HAND)
    def mirror_details(index: int) -> Details:
        return read_details(scenes[index].mirrored())

    def judge(entry: tuple[int, int, bool]) -> tuple[float, str] | None:
        first, second, mirror = entry
        if not mirror and cases[order[first]].sha256 == cases[order[second]].sha256:
            return 3.0, "equal pixels"
        like = compare(details[first], mirror_details(second) if mirror else details[second])
        if like.texture >= MIN_TEXTURE and like.texture_points >= MIN_POINTS:
            name = "mirrored frame" if mirror else "same frame"
            return 1 + like.texture, f"{name} (correlation {like.texture:.2f}, {like.texture_points} points)"
        if mirror or like.overlap < MIN_OVERLAP or like.anatomy < MIN_ANATOMY:
            return None
        bits = int((hashes[first] != hashes[second]).sum())
        hashes_agree = bits <= MAX_DISTANCE and like.anatomy_points >= MIN_POINTS
        if like.anatomy + like.anatomy_points / POINTS_PER_CORRELATION < MIN_SURENESS and not hashes_agree:
            return None
        return like.anatomy, f"same scene (correlation {like.anatomy:.2f}, {like.anatomy_points} points)"

    with tempfile.TemporaryFile(prefix="scenes-") as file:
        details = _StoredDetails(scenes, file)
        verdicts = _in_threads(judge, proposed, "Comparing scenes", "pair")
    judged = [
        (*verdict, order[first], order[second])
        for (first, second, _), verdict in zip(proposed, verdicts, strict=True)
        if verdict is not None
    ]
    judged.sort(key=lambda entry: -entry[0])
    pairs = [Pair(min(one, other), max(one, other), evidence) for _, evidence, one, other in judged]
    last_seen: dict[str, int] = {}
    for index, case in enumerate(cases):
        if case.patient is not None:
            if case.patient in last_seen:
                pairs.append(Pair(last_seen[case.patient], index, "same patient"))
            last_seen[case.patient] = index
    return pairs


class _StoredDetails:
    """The details of all scenes, each computed once: they take ten times a scene's memory, so they lie in a file."""

    def __init__(self, scenes: Sequence[Scene], file: IO[bytes]) -> None:
        self.scenes = scenes
        self.ends = np.cumsum([2 * scene.pixels.size for scene in scenes])
        self.values = np.memmap(file, dtype=np.float32, mode="w+", shape=(int(self.ends[-1]),))
        _in_threads(self._store, range(len(scenes)), "Reading details", "image")

    def _store(self, index: int) -> None:
        details = read_details(self.scenes[index])
        self._part(index)[:] = np.stack([details.fine, details.coarse])

    def __getitem__(self, index: int) -> Details:
        scene, (fine, coarse) = self.scenes[index], self._part(index)
        return Details(scene, fine, coarse, scene.root_descriptors())

    def _part(self, index: int) -> np.ndarray:
        height, width = self.scenes[index].pixels.shape
        end = int(self.ends[index])
        return np.asarray(self.values[end - 2 * height * width : end].reshape(2, height, width))


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


def group_near_duplicates(cases: Sequence[Case], dataset_dir: Dataset | Roots) -> dict[str, str]:
    """Group cases that show the same frame or patient: image -> group id. A case alone is a group of one."""
    return group_cases(cases, find_pairs(cases, dataset_dir))


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str, unit: str) -> list[Result]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(tqdm(pool.map(function, items), total=len(items), desc=title, unit=unit, disable=None))


def _read(path: Path) -> tuple[Scene, np.ndarray, np.ndarray]:
    """The scene of an image, and 512 bits each of it and of its mirror image: ImageHash's phash (DCT) and dhash."""
    pixels = read_image(path).tissue  # the same screen around two images does not make them one
    image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    hashes = []
    for side in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        parts = [imagehash.phash(side, HASH_SIDE), imagehash.dhash(side, HASH_SIDE)]
        hashes.append(np.concatenate([part.hash.ravel() for part in parts]))
    return read_scene(pixels), hashes[0], hashes[1]


def _near_hashes(hashes: np.ndarray, others: np.ndarray) -> set[tuple[int, int]]:
    """(first, second), first < second: for each image those whose (N, 512) bits in `others` differ least."""
    # The product of signs is equal bits minus different ones: Hamming distances as one matrix product.
    signs, other_signs = (np.where(bits, 1, -1).astype(np.float32) for bits in (hashes, others))
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


def _near_features(scenes: Sequence[Scene]) -> set[tuple[int, int]]:
    """(first, second), first < second: for each scene those that share most descriptors at about the same place.

    Locality-sensitive hashing: random planes cut the space of descriptors and places into small buckets, several times
    over. Scenes that meet in a bucket get a vote, the more the fewer meet there; crowded buckets tell nothing.
    """
    owners = np.repeat(np.arange(len(scenes)), [len(scene.points) for scene in scenes])
    if not len(owners):
        return set()
    features = np.concatenate([scene.root_descriptors() for scene in scenes])
    places = np.concatenate([scene.points / scene.pixels.shape[::-1] - 0.5 for scene in scenes]).astype(np.float32)
    rng = np.random.default_rng(0)
    votes = csr_array((len(scenes), len(scenes)))
    for _ in tqdm(range(_TABLES), desc="Indexing features", unit="table", disable=None):
        planes = rng.standard_normal((features.shape[1], _BITS), dtype=np.float32)
        # Descriptors have no negative numbers; planes through their common direction would cut off little.
        values = features @ (planes - planes.mean(axis=0))
        values += _POSITION_WEIGHT * (places @ rng.standard_normal((2, _BITS), dtype=np.float32))
        keys = (values > np.median(values, axis=0)) @ (1 << np.arange(_BITS))
        met = np.unique(keys * len(scenes) + owners)
        _, bucket, sizes = np.unique(met // len(scenes), return_inverse=True, return_counts=True)
        tells = (sizes[bucket] > 1) & (sizes[bucket] <= _LARGEST_BUCKET)
        bucket, member = bucket[tells], met[tells] % len(scenes)
        shape = (len(scenes), len(sizes))
        table = csr_array((sizes[bucket] ** -0.5, (member, bucket)), shape=shape)
        votes = votes + table @ table.T
    votes.setdiag(0)
    total = np.sqrt(np.maximum(votes.sum(axis=1), 1e-9))
    found = set()
    for first in range(len(scenes)):
        row = slice(votes.indptr[first], votes.indptr[first + 1])
        others, score = votes.indices[row], votes.data[row]
        best = np.argsort(-score / total[others], kind="stable")[:_NEIGHBOURS]
        found |= {(min(first, int(other)), max(first, int(other))) for other in others[best] if other != first}
    return found
