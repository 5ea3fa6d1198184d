# SPDX-License-Identifier: Apache-2.0
"""Lay one ultrasound image over another and measure how alike they are there, text and callipers left out.

Points: SIFT (Lowe 2004, doi 10.1023/B:VISI.0000029664.99615.94) without rotation, since a probe is held upright, as
RootSIFT (Arandjelović and Zisserman 2012). Alignment: RANSAC on the points, then the enhanced correlation coefficient
(Evangelidis and Psarakis 2008, doi 10.1109/TPAMI.2008.113).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from bundle.transforms.marks import find_strokes

SIDE = 256
"""Pixels of the longer side at which images are compared: lesions and tissue layers stay, speckle mostly goes."""
MAX_POINTS = 500
MIN_POINTS = 8
"""Points that must agree with an alignment for it to count as one of the same frame."""
MIN_SPREAD = 1.5
"""Standard deviation in grey levels around a pixel below which nothing is seen there: black, or one flat grey."""

_MIRROR = np.arange(128).reshape(4, 4, 8)[:, ::-1][..., (4 - np.arange(8)) % 8].ravel()
"""Where the numbers of an upright SIFT descriptor (4 rows, 4 columns, 8 directions) go when its image is mirrored."""
_FINE, _COARSE = (1.0, 5.0), (2.5, 14.0)
"""Detail is what lies between two Gaussian blurs of these standard deviations in pixels: texture; tissue and lesion."""
_NEIGHBOURHOOD = 4.0
_HOPEFUL_ANATOMY = 0.3
"""Below this correlation of the coarse detail an alignment is not refined. Pairs of one scene begin at 0.44 on BUSI."""
_MIN_AREA = 0.1
_BLOCK, _MIN_BLOCKS = 32, 6
_LARGEST_SHIFT = 20
_SMALLER = 4
_MAX_ROTATION = 15.0
_SCALES = (0.4, 2.5)


@dataclass(frozen=True)
class Scene:
    """What is compared of one image.

    Args:
        pixels: (H, W) uint8, the longer side `SIDE` pixels.
        tissue: (H, W) bool, False on text and callipers and where all is of one grey.
        points: (N, 2) float32, x and y of at most `MAX_POINTS` points in tissue.
        descriptors: (N, 128) uint8, upright SIFT.
    """

    pixels: np.ndarray
    tissue: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray


class Likeness(NamedTuple):
    """How alike two scenes are once the second lies over the first.

    Args:
        texture: median over blocks of the correlation of fine detail, in [-1, 1]; copies of one frame reach 0.9 and
            more. A block or two of shared text cannot raise it. 0 where fewer than `MIN_POINTS` points nearly agree.
        texture_points: points that agree with that alignment.
        anatomy: correlation of coarse detail, in [-1, 1]: layers, lesion, shadows. 0 where it is low at once.
        anatomy_points: points that agree with that alignment.
        overlap: share of the smaller scene's tissue that lies in the other under the coarse alignment.
        texture_matrix, anatomy_matrix: the alignments, (2, 3): x and y in the first scene's pixels -> in the second's.
    """

    texture: float = 0.0
    texture_points: int = 0
    anatomy: float = 0.0
    anatomy_points: int = 0
    overlap: float = 0.0
    texture_matrix: np.ndarray | None = None
    anatomy_matrix: np.ndarray | None = None


def read_scene(pixels: np.ndarray) -> Scene:
    """Prepare an image for comparison.

    Args:
        pixels: (H, W), grey values in [0, 255].
    """
    grey = np.rint(pixels).astype(np.uint8)
    scale = SIDE / max(grey.shape)
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    tissue = _find_tissue(grey)
    sift = cv2.SIFT.create()
    found: dict[tuple[int, int, int], cv2.KeyPoint] = {}
    for point in sorted(sift.detect(grey, tissue.astype(np.uint8)), key=lambda point: -point.response):
        point.angle = 0  # upright; what differed by its direction only is one point now
        found.setdefault((round(point.pt[0]), round(point.pt[1]), round(point.size)), point)
    points, descriptors = sift.compute(grey, list(found.values())[:MAX_POINTS])
    if descriptors is None:
        return Scene(grey, tissue, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    places = np.array([point.pt for point in points], dtype=np.float32)
    return Scene(grey, tissue, places, np.clip(descriptors, 0, 255).astype(np.uint8))


def _find_tissue(grey: np.ndarray) -> np.ndarray:
    marks = find_strokes(grey)
    mean, square = (_blur(grey.astype(np.float32) ** power, ~marks, _NEIGHBOURHOOD) for power in (1, 2))
    return np.asarray(~marks & (square - mean**2 > MIN_SPREAD**2))


@dataclass(frozen=True)
class Details:
    """What `compare` needs of a scene.

    Args:
        tissue, points, descriptors: of the `Scene`.
        fine, coarse: (H, W) float32, detail at both scales, 0 outside tissue.
    """

    tissue: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray

    @cached_property
    def small(self) -> np.ndarray:
        """The coarse detail, a quarter as high and wide."""
        scale = 1 / _SMALLER
        return np.asarray(cv2.resize(self.coarse, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))

    @cached_property
    def roots(self) -> np.ndarray:
        """The descriptors as `root_descriptors` makes them."""
        return root_descriptors(self.descriptors)

    def mirrored(self) -> Details:
        """The same with left and right exchanged."""
        points = self.points.copy()
        points[:, 0] = self.tissue.shape[1] - 1 - points[:, 0]
        tissue, fine, coarse = (np.ascontiguousarray(part[:, ::-1]) for part in (self.tissue, self.fine, self.coarse))
        return Details(tissue, points, self.descriptors[:, _MIRROR], fine, coarse)


def read_details(scene: Scene) -> Details:
    """Compute a scene's detail, which takes eight times the memory of its pixels."""
    fine, coarse = (_detail(scene, *blurs) for blurs in (_FINE, _COARSE))
    return Details(scene.tissue, scene.points, scene.descriptors, fine, coarse)


def root_descriptors(descriptors: np.ndarray) -> np.ndarray:
    """(N, 128) float32 of length 1, whose products compare better than those of the raw (N, 128) descriptors."""
    numbers = descriptors.astype(np.float32)
    return np.sqrt(numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1))


def compare(first: Details, second: Details, anatomy: bool = True) -> Likeness:
    """Align the second scene with the first, by points and by coarse detail, and measure how alike they are.

    Args:
        first, second: the scenes.
        anatomy: False for texture alone.
    """
    strict, loose = _match(first, second)
    starts = [
        start for start in (_align_by_points(strict), _align_by_shift(first.small, second.small)) if start is not None
    ]
    best = Likeness()
    # Refining takes most of the time and changes little, so nothing is refined where no start is near anything.
    if anatomy and any(_correlate_small(first, second, start) >= _HOPEFUL_ANATOMY for start in starts):
        for start in starts:
            matrix = _refine(first, second, "coarse", start)
            value, overlap = _correlate(first, second, matrix)
            if value > best.anatomy:
                agreeing = _count_agreeing(loose, matrix, tolerance=8)
                best = best._replace(anatomy=value, anatomy_points=agreeing, overlap=overlap, anatomy_matrix=matrix)
    if any(_count_agreeing(loose, start, tolerance=12) >= MIN_POINTS for start in starts):
        refined = [_refine(first, second, "fine", start) for start in starts]
        counts = [_count_agreeing(loose, matrix, tolerance=4) for matrix in refined]
        for matrix, agreeing in zip(refined, counts, strict=True) if max(counts) >= MIN_POINTS else ():
            texture = _correlate_blocks(first, second, matrix)
            if texture > best.texture:
                best = best._replace(texture=texture, texture_points=agreeing, texture_matrix=matrix)
    return best


def _detail(scene: Scene, inner: float, outer: float) -> np.ndarray:
    """What lies between two blurs, over its local standard deviation, so that gain and contrast do not count."""
    grey = scene.pixels.astype(np.float32)
    band = _blur(grey, scene.tissue, inner) - _blur(grey, scene.tissue, outer)
    spread = np.sqrt(_blur(band * band, scene.tissue, 2 * outer)) + 2  # grey levels; noise of dark areas counts little
    return np.clip(band / spread, -2.5, 2.5) * scene.tissue


def _blur(values: np.ndarray, where: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of the (H, W) float32 values over the places that count, with a sigma in pixels."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-3
    return np.asarray(cv2.GaussianBlur(values * weight, (0, 0), sigma) / total)


def _match(first: Details, second: Details) -> tuple[np.ndarray, np.ndarray]:
    """Matches as (N, 2, 2) float32, (x, y) in the first and second image: the clear ones, and clear with fair ones."""
    if min(len(first.descriptors), len(second.descriptors)) < 2:
        return np.zeros((0, 2, 2), np.float32), np.zeros((0, 2, 2), np.float32)
    products = first.roots @ second.roots.T
    rows = np.arange(len(products))
    nearest = products.argmax(axis=1)
    nearest_distance = 2 - 2 * products[rows, nearest]
    products[rows, nearest] = -1
    next_distance = 2 - 2 * products.max(axis=1)
    pairs = np.stack([first.points, second.points[nearest]], axis=1)
    clear, fair = (nearest_distance < ratio**2 * next_distance for ratio in (0.9, 0.95))
    return pairs[clear], pairs[fair]


def _align_by_points(pairs: np.ndarray) -> np.ndarray | None:
    """The similarity transform (2, 3) that most pairs of points agree on, None if there is no plausible one."""
    if len(pairs) < 3:
        return None
    first, second = (np.ascontiguousarray(pairs[:, side]) for side in (0, 1))
    matrix, _ = cv2.estimateAffinePartial2D(
        first, second, method=cv2.RANSAC, ransacReprojThreshold=5, maxIters=1000, confidence=0.99
    )
    if matrix is None:
        return None
    scale, rotation = np.hypot(matrix[0, 0], matrix[1, 0]), np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    plausible = _SCALES[0] < scale < _SCALES[1] and abs(rotation) < _MAX_ROTATION
    return np.asarray(matrix, dtype=np.float32) if plausible else None


def _align_by_shift(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The shift as a (2, 3) matrix under which the `Details.small` correlate best, in whole pixels of these."""
    height, width = np.minimum(first.shape, second.shape)
    template = first[:height, :width]
    padded = np.pad(second, _LARGEST_SHIFT)
    products = cv2.matchTemplate(padded, template, cv2.TM_CCORR)
    energy = cv2.matchTemplate(padded * padded, np.ones_like(template), cv2.TM_CCORR)
    # A shift that leaves little of the second image is not to win by that.
    value = products / np.sqrt(np.maximum(energy, max(0.2 * float(energy.max()), 1e-6)))
    y, x = np.unravel_index(int(value.argmax()), value.shape)
    shift = (np.array([x, y]) - _LARGEST_SHIFT) * _SMALLER
    return np.array([[1, 0, shift[0]], [0, 1, shift[1]]], dtype=np.float32)


def _correlate_small(first: Details, second: Details, matrix: np.ndarray) -> float:
    """About what `_correlate` finds, in a tenth of the time: places without tissue in one of them are left out."""
    moved_to = matrix.copy()
    moved_to[:, 2] = (matrix[:, 2] + (matrix[:, :2].sum(axis=1) - 1) * (_SMALLER - 1) / 2) / _SMALLER
    size = first.small.shape[::-1]
    moved = cv2.warpAffine(second.small, moved_to, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    both = (moved != 0) & (first.small != 0)
    return _correlation(first.small[both], moved[both])


def _refine(first: Details, second: Details, scale: str, start: np.ndarray) -> np.ndarray:
    """The affine transform near `start` that correlates the "fine" or "coarse" detail best, `start` if none does."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)
    try:
        _, matrix = cv2.findTransformECC(
            getattr(first, scale), getattr(second, scale), start.copy(), cv2.MOTION_AFFINE, criteria,
            first.tissue.astype(np.uint8), 5,
        )  # fmt: skip
    except cv2.error:  # it does not converge where the images have nothing in common
        return start
    return start if _is_distorted(matrix) else matrix


def _is_distorted(matrix: np.ndarray) -> bool:
    stretches = np.linalg.svd(matrix[:, :2], compute_uv=False)
    return bool(np.linalg.det(matrix[:, :2]) <= 0 or stretches[0] > 3 or stretches[0] > 1.5 * stretches[1])


def _lay_over(first: Details, second: Details, scale: str, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The second scene's detail in the first one's frame, and where both show tissue."""
    size = first.tissue.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(getattr(second, scale), matrix, size, flags=flags)
    tissue = cv2.warpAffine(second.tissue.astype(np.float32), matrix, size, flags=flags) > 0.99
    return moved, tissue & first.tissue


def _correlate(first: Details, second: Details, matrix: np.ndarray) -> tuple[float, float]:
    """Correlation of the coarse detail where the scenes overlap, and the share of the smaller one's tissue there.

    Both are 0 where the overlap is less than `_MIN_AREA` of the image.
    """
    moved, both = _lay_over(first, second, "coarse", matrix)
    if both.mean() < _MIN_AREA:
        return 0.0, 0.0
    area = min(first.tissue.sum(), second.tissue.sum() / np.linalg.det(matrix[:, :2]))
    return _correlation(first.coarse[both], moved[both]), float(both.sum() / area)


def _correlate_blocks(first: Details, second: Details, matrix: np.ndarray) -> float:
    """Median correlation of the fine detail over the blocks of the overlap; 0 where it has fewer than `_MIN_BLOCKS`."""
    moved, both = _lay_over(first, second, "fine", matrix)
    values = []
    for y in range(0, both.shape[0], _BLOCK):
        for x in range(0, both.shape[1], _BLOCK):
            block = np.s_[y : y + _BLOCK, x : x + _BLOCK]
            if (inside := both[block]).sum() >= 0.6 * _BLOCK**2:
                values.append(_correlation(first.fine[block][inside], moved[block][inside]))
    return float(np.median(values)) if len(values) >= _MIN_BLOCKS else 0.0


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's, 0 where either is empty or constant."""
    if not first.size:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    energy = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum() / energy) if energy > 1e-6 else 0.0


def _count_agreeing(pairs: np.ndarray, matrix: np.ndarray, tolerance: float) -> int:
    """How many pairs of points the transform brings within `tolerance` pixels; points within 4 pixels count once."""
    errors = np.linalg.norm(pairs[:, 0] @ matrix[:, :2].T + matrix[:, 2] - pairs[:, 1], axis=1)
    cells = np.round(pairs[errors < tolerance, 0] / 4).astype(np.int64)
    return len(np.unique(cells[:, 0] * SIDE + cells[:, 1]))
