# SPDX-License-Identifier: Apache-2.0
"""Find images that show the same frame or patient, so that no such pair is torn between training and test.

Perceptual hashes and an index of local features propose pairs, so that the time grows little faster than the number
of images; each proposal is then aligned and measured (`bundle.data.alignment`).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import cv2
import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from bundle.data.alignment import MIN_POINTS, Likeness, compare, read_details, read_scene
from bundle.data.candidates import near_features, near_hashes
from bundle.data.cases import Case
from bundle.data.roots import Dataset, Roots, find_roots
from bundle.data.stored_scenes import StoredScenes
from bundle.readers import read_image

HASH_SIDE = 16

MIN_TEXTURE = 0.5
"""From here on two images are the same frame. On BUSI copies reach 0.95, cine neighbours 0.9, all other pairs 0.45."""
MIN_ANATOMY, MIN_OVERLAP = 0.42, 0.6
MIN_SURENESS, POINTS_PER_CORRELATION = 0.65, 100
MAX_DISTANCE = 168
"""From here on two images are the same scene: the probe or the tissue moved a little between them. The coarse detail
correlates, and many points agree (correlation + points / 100 reaches 0.65), or some do and the hashes differ in few
of 512 bits.
Chosen on BUSI by eye: the pairs above show one lesion or place; of unlike pairs the surest reaches 0.6."""

_ITEMS_AT_ONCE = 4096

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
    paths = [roots.absolute(cases[index].image) for index in order]
    with tempfile.TemporaryFile(prefix="scenes-") as file:
        scenes = StoredScenes(file, len(cases))

        def read(index: int) -> tuple[np.ndarray, np.ndarray]:
            pixels = read_image(paths[index]).tissue  # the same screen around two images does not make them one
            scenes.put(index, read_details(read_scene(pixels)))
            return _hash(pixels)

        hashes, mirrored = (
            np.stack(side)
            for side in zip(*_in_threads(read, range(len(cases)), "Reading scenes", "image"), strict=True)
        )
        proposed = [(*pair, False) for pair in sorted(near_hashes(hashes, hashes) | near_features(scenes))]
        proposed += [(*pair, True) for pair in sorted(near_hashes(hashes, mirrored))]

        def judge(entry: tuple[int, int, bool]) -> tuple[float, str] | None:
            first, second, mirror = entry
            if not mirror and cases[order[first]].sha256 == cases[order[second]].sha256:
                return 3.0, "equal pixels"
            like = compare(scenes[first], scenes[second].mirrored() if mirror else scenes[second], anatomy=not mirror)
            return _judge(like, mirror, int((hashes[first] != hashes[second]).sum()))

        verdicts = _in_threads(judge, proposed, "Comparing scenes", "pair")
    judged = [
        (*verdict, order[first], order[second])
        for (first, second, _), verdict in zip(proposed, verdicts, strict=True)
        if verdict is not None
    ]
    judged.sort(key=lambda entry: -entry[0])
    pairs = [Pair(min(one, other), max(one, other), evidence) for _, evidence, one, other in judged]
    return pairs + same_patients(cases)


def same_patients(cases: Sequence[Case]) -> list[Pair]:
    """Each case paired with the one before it of the same patient."""
    pairs = []
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


def group_near_duplicates(cases: Sequence[Case], dataset_dir: Dataset | Roots) -> dict[str, str]:
    """Group cases that show the same frame or patient: image -> group id. A case alone is a group of one."""
    return group_cases(cases, find_pairs(cases, dataset_dir))


def _judge(like: Likeness, mirror: bool, bits: int) -> tuple[float, str] | None:
    """How sure it is that two images belong together, and why; None if they do not. Their hashes differ in `bits`."""
    if like.texture >= MIN_TEXTURE and like.texture_points >= MIN_POINTS:
        name = "mirrored frame" if mirror else "same frame"
        return 1 + like.texture, f"{name} (correlation {like.texture:.2f}, {like.texture_points} points)"
    if mirror or like.overlap < MIN_OVERLAP or like.anatomy < MIN_ANATOMY:
        return None
    hashes_agree = bits <= MAX_DISTANCE and like.anatomy_points >= MIN_POINTS
    if like.anatomy + like.anatomy_points / POINTS_PER_CORRELATION < MIN_SURENESS and not hashes_agree:
        return None
    return like.anatomy, f"same scene (correlation {like.anatomy:.2f}, {like.anatomy_points} points)"


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str, unit: str) -> list[Result]:
    results: list[Result] = []
    with (
        _one_thread_each(),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(items), desc=title, unit=unit, disable=None) as bar,
    ):
        # Not all at once: a task that waits takes more memory than the pair of images it is for.
        for start in range(0, len(items), _ITEMS_AT_ONCE):
            for result in pool.map(function, items[start : start + _ITEMS_AT_ONCE]):
                results.append(result)
                bar.update()
    return results


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """OpenCV and BLAS start no threads of their own within ours, where they would wait for each other."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        cv2.setNumThreads(before)


def _hash(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """512 bits each of an image and of its mirror image: ImageHash's phash (DCT) and dhash."""
    image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    hashes = []
    for side in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        parts = [imagehash.phash(side, HASH_SIDE), imagehash.dhash(side, HASH_SIDE)]
        hashes.append(np.concatenate([part.hash.ravel() for part in parts]))
    return hashes[0], hashes[1]
