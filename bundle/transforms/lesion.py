# SPDX-License-Identifier: Apache-2.0
"""The lesion in a probability map: found, and cut out for the classifier.

The seam between the two stages is an 8-bit PNG of probabilities. Maps in memory are quantised to the same 256 levels,
so that the pipeline in one process gives the very numbers that the two stages give by way of files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage

from bundle.errors import UserError
from bundle.transforms.geometry import resize
from bundle.transforms.shape import box_of

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels, half-open."""

VARIANTS = ("masked", "crop", "crop+mask")
_EIGHT = np.ones((3, 3), dtype=bool)


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
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise UserError(f"probabilities must be in [0, 1], not {values.min()} … {values.max()}")
    scaled = values * 255
    return np.rint(scaled, out=scaled).astype(np.uint8)


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
    labels, boxes = _label(probability >= max(1, math.ceil(threshold * 255 - 1e-6)))
    if boxes:
        chosen = _largest(labels, probability) if len(boxes) > 1 else 0
        others = tuple(box for i, box in enumerate(boxes) if i != chosen)
        return LesionRegion(_fill(labels, chosen + 1, boxes[chosen]), boxes[chosen], len(boxes), others, False)
    highest = int(probability.max())
    if highest == 0:
        return LesionRegion(np.ones(probability.shape, dtype=bool), (0, 0, *probability.shape), 0, (), True)
    labels, boxes = _label(probability >= highest / 2)
    blob = labels.flat[probability.argmax()]
    box = boxes[blob - 1]
    return LesionRegion(_fill(labels, blob, box), box, 0, (), True)


def _label(reached: np.ndarray) -> tuple[np.ndarray, list[Box]]:
    """Number the 8-connected components from 1, from the top down: labels (H, W) int32 and the box of each."""
    top, left, bottom, right = box_of(reached)
    labels = np.zeros(reached.shape, dtype=np.int32)
    if top == bottom:
        return labels, []
    inside = labels[top:bottom, left:right]
    found, numbered = cv2.connectedComponents(reached[top:bottom, left:right].view(np.uint8), connectivity=8)
    if found == 2:  # a background and one component, as nearly always: nothing depends on the order of the numbers
        inside[:] = numbered
        return labels, [(top, left, bottom, right)]
    ndimage.label(reached[top:bottom, left:right], structure=_EIGHT, output=inside)
    return labels, [
        (rows.start + top, columns.start + left, rows.stop + top, columns.stop + left)
        for rows, columns in ndimage.find_objects(inside)
    ]


def _largest(labels: np.ndarray, probability: np.ndarray) -> int:
    """Return the index of the component of most pixels; of equal ones that with the higher summed probability."""
    areas = np.bincount(labels.ravel())[1:]
    largest = np.flatnonzero(areas == areas.max())
    return int(max(largest, key=lambda i: probability[labels == i + 1].sum(dtype=np.int64)))


def _fill(labels: np.ndarray, label: int, box: Box) -> np.ndarray:
    """Return one component's mask with its holes filled; only its box is looked at, since no hole lies outside."""
    inside = (slice(box[0], box[2]), slice(box[1], box[3]))
    framed = cv2.copyMakeBorder((labels[inside] == label).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(framed, None, (0, 0), 2, flags=4)  # what the outside does not reach through sides is a hole
    mask = np.zeros(labels.shape, dtype=bool)
    mask[inside] = framed[1:-1, 1:-1] != 2
    return mask


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


def cut_mirrored(image: torch.Tensor, box: Box) -> torch.Tensor:
    """Cut a box out of (C, H, W); what lies outside is the image mirrored at its border."""
    top, left, bottom, right = box
    # Rows and columns that need no mirror are cut out first: what is gathered is then no more than the box.
    if top >= 0 and bottom <= image.shape[1]:
        image = image[:, top:bottom]
    elif left >= 0 and right <= image.shape[2]:
        return image[:, :, left:right].index_select(1, _mirror_indices(top, bottom, image.shape[1]))
    else:
        image = image.index_select(1, _mirror_indices(top, bottom, image.shape[1]))
    if left >= 0 and right <= image.shape[2]:
        return image[:, :, left:right]
    return image.index_select(2, _mirror_indices(left, right, image.shape[2]))


def _mirror_indices(start: int, stop: int, size: int) -> torch.Tensor:
    """Return the indices start..stop, those outside 0..size reflected to and fro."""
    before, after = max(0, -start), max(0, stop - size)
    indices = np.pad(np.arange(size), (before, after), mode="reflect")
    return torch.from_numpy(indices[start + before : stop + before])


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

    def show(self, image: torch.Tensor, levels: np.ndarray, region: LesionRegion) -> torch.Tensor:
        """Return what the classifier sees, (C, h, w) float32 in [0, 1].

        Args:
            image: (1, H, W) in [0, 1].
            levels: (H, W) uint8, the quantised probability.
            region: found in it.
        """
        if self.variant == "masked":
            seen = image * torch.from_numpy(region.mask)
        else:
            square = place_square(region.box, self.margin, self.min_size)
            seen = cut_mirrored(image, square)
            if self.variant == "crop+mask":
                seen = torch.cat([seen, cut_mirrored(torch.from_numpy(levels)[None], square).to(seen) / 255])
        return resize(seen, self.spatial_size).clamp(0, 1)
