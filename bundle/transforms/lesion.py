# SPDX-License-Identifier: Apache-2.0
"""The lesion in a probability map: found, and cut out for the classifier.

The seam between the two stages is an 8-bit PNG of probabilities. Maps in memory are quantised to the same 256 levels,
so that the pipeline in one process gives the very numbers that the two stages give by way of files.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike

from bundle.errors import UserError
from bundle.transforms.geometry import resize
from bundle.transforms.shape import PixelCounts, box_of, count_pixels

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, half-open."""

VARIANTS = ("masked", "crop", "crop+mask")


@dataclass(frozen=True, eq=False)
class LesionRegion:
    """The largest lesion of a probability map.

    Args:
        mask: (H, W) bool, one 8-connected component with its holes filled.
        box: around the mask.
        components: how many there were above the threshold; 0 if the region is a fallback.
        others: boxes of the other components, from the top down.
        is_fallback: nothing reached the threshold; the mask is the most probable blob, or the whole image where the
            map is zero everywhere.
    """

    mask: np.ndarray
    box: Box
    components: int
    others: tuple[Box, ...]
    is_fallback: bool

    @functools.cached_property
    def counts(self) -> PixelCounts:
        """What the measures of the mask are made of; it is counted once."""
        return count_pixels(self.mask)


def split_presence(probability: ArrayLike | torch.Tensor) -> tuple[np.ndarray, float | None]:
    """Split what a segmenter gives: the map of an image, (H, W) float32 in [0, 1], and its probability of a lesion.

    Args:
        probability: (1, H, W) in [0, 1]; or (2, H, W), where the second channel is the presence head's answer: the same
            at every pixel of the region that the network saw, and 0 outside.
    """
    values = torch.as_tensor(probability).float().cpu().numpy().clip(0, 1)
    return values[0], float(values[1].max()) if len(values) > 1 else None


def quantise(probability: ArrayLike) -> np.ndarray:
    """Round probabilities to the 256 levels of an 8-bit PNG: (H, W) float in [0, 1] -> uint8 in 0..255.

    Raises:
        UserError: a value is not in [0, 1], or not a number.
    """
    values = np.asarray(probability, dtype=np.float32)
    if not values.size:
        return values.astype(np.uint8)
    if not (values.min() >= 0 and values.max() <= 1):
        raise UserError(f"probabilities must be in [0, 1], not {values.min()} … {values.max()}")
    # It multiplies in float32 and rounds halves to even numbers, as NumPy does, in a single pass.
    return cv2.convertScaleAbs(values.reshape(-1, values.shape[-1]), alpha=255).reshape(values.shape)


def find_lesion(probability: np.ndarray, threshold: float = 0.5) -> LesionRegion:
    """Return the largest component that reaches the threshold; of equal ones that with the higher summed probability.

    Args:
        probability: (H, W) uint8, see `quantise`.
        threshold: in (0, 1].

    Raises:
        ValueError: the map is empty, not (H, W) or not uint8, or the threshold is out of range.
    """
    if probability.ndim != 2 or probability.size == 0 or probability.dtype != np.uint8:
        raise ValueError(f"probability: {probability.dtype} of shape {probability.shape} must be uint8 (H, W)")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: {threshold} must be in (0, 1]")
    # The tolerance keeps level 153 at threshold 0.6, whatever 0.6 × 255 is in binary.
    found = _components(probability >= max(1, math.ceil(threshold * 255 - 1e-6)))
    if found:
        chosen = found[0] if len(found) == 1 else _largest(found, probability)
        others = tuple(part.box for part in found if part is not chosen)
        return LesionRegion(chosen.filled(probability.shape), chosen.box, len(found), others, False)
    highest = int(probability.max())
    if highest == 0:
        return LesionRegion(np.ones(probability.shape, dtype=bool), (0, 0, *probability.shape), 0, (), True)
    row, column = np.unravel_index(probability.argmax(), probability.shape)
    blob = next(part for part in _components(probability >= highest / 2) if part.holds(int(row), int(column)))
    return LesionRegion(blob.filled(probability.shape), blob.box, 0, (), True)


@dataclass(frozen=True, eq=False)
class _Component:
    """One 8-connected component: its box, and its pixels in it, (h, w) uint8 of 0 and 1."""

    box: Box
    pixels: np.ndarray
    has_holes: bool

    def holds(self, row: int, column: int) -> bool:
        top, left, bottom, right = self.box
        return top <= row < bottom and left <= column < right and bool(self.pixels[row - top, column - left])

    def filled(self, shape: Sequence[int]) -> np.ndarray:
        """The mask (H, W) bool of an image, holes filled; only the box is looked at, since no hole lies outside."""
        mask = np.zeros(shape, dtype=bool)
        inside = mask[self.box[0] : self.box[2], self.box[1] : self.box[3]]
        if not self.has_holes:
            inside[:] = self.pixels
            return mask
        framed = cv2.copyMakeBorder(self.pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        cv2.floodFill(framed, None, (0, 0), 2, flags=4)  # what the outside does not reach through sides is a hole
        inside[:] = framed[1:-1, 1:-1] != 2
        return mask


def _components(reached: np.ndarray) -> list[_Component]:
    """The 8-connected components of a mask (H, W) bool, in the order of their first pixels."""
    top, left, bottom, right = box_of(reached)
    if top == bottom:
        return []
    inside = reached[top:bottom, left:right].view(np.uint8)
    # To follow outlines takes a part of the time that it takes to number pixels.
    outlines, relations = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [index for index, (_, _, _, around) in enumerate(relations[0]) if around < 0]
    if len(outer) == 1:
        return [_Component((top, left, bottom, right), inside, len(outlines) > 1)]
    _, numbered = cv2.connectedComponents(inside, connectivity=8)
    found = []
    for (row, column), index in sorted((min((y, x) for x, y in outlines[i][:, 0].tolist()), i) for i in outer):
        x, y, width, height = cv2.boundingRect(outlines[index])
        pixels = (numbered[y : y + height, x : x + width] == numbered[row, column]).view(np.uint8)
        box = (top + y, left + x, top + y + height, left + x + width)
        found.append(_Component(box, pixels, relations[0, index, 2] >= 0))
    return found


def _largest(found: Sequence[_Component], probability: np.ndarray) -> _Component:
    """The component of most pixels; of equal ones that with the higher summed probability."""

    def size(part: _Component) -> tuple[int, int]:
        top, left, bottom, right = part.box
        pixels = part.pixels.view(bool)
        return cv2.countNonZero(part.pixels), int(probability[top:bottom, left:right][pixels].sum(dtype=np.int64))

    return max(found, key=size)


def place_square(box: Box, margin: float = 0.25, min_size: int = 32) -> Box:
    """Return the square around a box; it may leave the image.

    Args:
        box: of the lesion.
        margin: added on every side, as a fraction of the box's longer side.
        min_size: smallest side of the square, in pixels.
    """
    top, left, bottom, right = box
    longer = max(bottom - top, right - left)
    side = max(min_size, longer + 2 * math.ceil(margin * longer))
    row, column = (top + bottom - side) // 2, (left + right - side) // 2
    return row, column, row + side, column + side


def cut_mirrored(image: np.ndarray, box: Box) -> np.ndarray:
    """Cut a box out of (H, W) uint8 or float32; what lies outside is the image mirrored at its border."""
    top, left, bottom, right = box
    rows, columns = _source(top, bottom, image.shape[0]), _source(left, right, image.shape[1])
    part = image[rows, columns]
    # Of the part: what stands out of the image, and where the box begins in it once that is mirrored.
    above, before = max(0, -top), max(0, -left)
    below, behind = max(0, bottom - image.shape[0]), max(0, right - image.shape[1])
    if above or below or before or behind:
        part = cv2.copyMakeBorder(part, above, below, before, behind, cv2.BORDER_REFLECT_101)
    first, start = max(0, top - rows.start), max(0, left - columns.start)
    return part[first : first + bottom - top, start : start + right - left]


def _source(start: int, stop: int, size: int) -> slice:
    """The rows, or columns, that start..stop are made of, those outside 0..size mirrored to and fro."""
    first, last = max(0, start), min(size, stop)
    if start < 0:
        last = max(last, min(size, 1 - start))
    if stop > size:
        first = min(first, max(0, 2 * size - stop - 1))
    return slice(first, last)


class LesionCrop:
    """Show the classifier the lesion.

    Args:
        threshold: a pixel whose probability reaches it is lesion.
        variant: ``masked``, the whole frame times the lesion's mask (the paper's reading); ``crop``, a square around
            the lesion, mirrored where it leaves the image; ``crop+mask``, the same with the probability, not
            binarised, as second channel.
        margin, min_size: of the square, see `place_square`.
        spatial_size: (h, w) of the result; smoothed before it shrinks.

    Raises:
        ValueError: an unknown variant or an impossible number.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        variant: str = "crop+mask",
        margin: float = 0.25,
        spatial_size: Sequence[int] = (128, 128),
        min_size: int = 32,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant: '{variant}' must be one of {', '.join(VARIANTS)}")
        if len(spatial_size) != 2 or min(spatial_size) < 1:
            raise ValueError(f"spatial_size: {list(spatial_size)} must be [H, W], both 1 or more")
        if not 0 < threshold <= 1 or margin < 0 or min_size < 1:
            raise ValueError(
                f"threshold {threshold} must be in (0, 1], margin {margin} 0 or more, min_size {min_size} 1 or more"
            )
        self.threshold, self.variant = float(threshold), variant
        self.margin, self.min_size = float(margin), int(min_size)
        self.spatial_size = (int(spatial_size[0]), int(spatial_size[1]))

    def show(self, pixels: np.ndarray, levels: np.ndarray, region: LesionRegion, white: float = 1.0) -> torch.Tensor:
        """Return what the classifier sees, (C, h, w) float32 in [0, 1].

        Args:
            pixels: (H, W) float32 in [0, white].
            levels: (H, W) uint8, the quantised probability.
            region: found in it.
            white: the grey level that becomes 1.
        """
        if self.variant == "masked":
            seen = (pixels / np.float32(white) * region.mask)[None]
        else:
            square = place_square(region.box, self.margin, self.min_size)
            parts = [(cut_mirrored(pixels, square), white)]
            if self.variant == "crop+mask":
                parts.append((cut_mirrored(levels, square), 255))
            seen = np.empty((len(parts), *parts[0][0].shape), np.float32)
            for plane, (part, most) in zip(seen, parts, strict=True):
                np.divide(part, np.float32(most), out=plane)
        return resize(torch.from_numpy(seen), self.spatial_size).clamp(0, 1)
