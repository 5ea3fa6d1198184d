# SPDX-License-Identifier: Apache-2.0
"""Whether a segmenter takes drawn calipers for the lesion: it is asked of one tissue with them here and there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bundle.evaluation.intervals import bootstrap_ratio_by_group
from bundle.networks import build_from_card
from bundle.networks.autocast import Autocast
from bundle.networks.weights import load_weights, none_below, require_card
from bundle.readers import read_image
from bundle.transforms.geometry import equalise, fit, restore
from bundle.transforms.lesion import split_presence
from bundle.transforms.load import merge_masks
from bundle.transforms.marks import MarkStyle, draw_calipers

AGREE = 0.95
"""Dice from which two outlines of one lesion are the same."""
_FARTHEST = 0.12  # by how much of the sides moved calipers lie away from the lesion's ends

_NARROWEST = 0.35  # sides of a window beside a lesion, as shares of its picture's; narrower ones look like none

Segment = Callable[[np.ndarray], tuple[np.ndarray, bool]]
Ends = list[tuple[float, float]]


def audit_marks(records: Sequence[Mapping[str, Any]], segment: Segment, seed: int = 0) -> dict[str, Any]:
    """Draw calipers on normal tissue, and move them at lesions; compare what is outlined.

    Args:
        records: of a datalist: "image", "label" (mask files), "class", "group".
        segment: from grey pixels (H, W) in [0, 255] to the outlined pixels (H, W) bool, and whether a lesion is told.
        seed: of the places and styles.

    Returns:
        A dict ready for JSON. `normals`: images, and the shares that are told of a lesion as they are (`before`), with
        calipers (`after`), and only with them (`made`). `crops`: the same of the tissue beside lesions, since normal
        images are few: the largest window without one, where that is large enough. `lesions`: images, the mean Dice
        between the outlines with calipers at the lesion's ends and with calipers elsewhere around it (`dice`), and the
        share of pairs of `AGREE` and more (`same`). Each score with its interval.
    """
    rng = np.random.default_rng(seed)
    normals: list[dict[str, Any]] = []
    crops: list[dict[str, Any]] = []
    lesions: list[dict[str, Any]] = []

    def mark(tissue: np.ndarray, group: str) -> dict[str, Any]:
        before, after = segment(tissue)[1], segment(_draw(tissue, _anywhere(rng), rng))[1]
        return {"group": group, "before": before, "after": after, "made": after and not before}

    for record in records:
        pixels = read_image(record["image"]).tissue
        if record["class"] == "normal":
            normals.append(mark(pixels, record["group"]))
            continue
        lesion = merge_masks(record["label"], record["image"], read_image(record["image"]).pixels.shape)
        lesion = read_image(record["image"]).cut(lesion)
        if lesion.any():
            ends, state = _ends_of(lesion), rng.bit_generator.state
            first = segment(_draw(pixels, ends, rng))[0]
            rng.bit_generator.state = state  # the same style
            second = segment(_draw(pixels, _moved(ends, rng), rng))[0]
            dice = dice_of(first, second)
            lesions.append({"group": record["group"], "dice": dice, "same": dice >= AGREE})
        if (tissue := _beside(pixels, lesion)) is not None:
            crops.append(mark(tissue, record["group"]))
    return {
        "normals": {"images": len(normals), **_means(normals, ("before", "after", "made"))},
        "crops": {"images": len(crops), **_means(crops, ("before", "after", "made"))},
        "lesions": {"images": len(lesions), **_means(lesions, ("dice", "same"))},
    }


def segmenter_of(weights: str | os.PathLike[str]) -> Segment:
    """What `audit_marks` asks: the network of a weights file by its card, on the CPU, averaged with the mirror image.

    Raises:
        UserError: the weights cannot be used.
    """
    card = require_card(weights, ("architecture", "spatial_size", "threshold"))
    network = build_from_card(card)
    load_weights(network, weights)
    network.eval()
    inferer, limit = Autocast("cpu", flip=True), none_below(card)
    letterbox = bool(card.get("letterbox", False))

    @torch.no_grad()
    def segment(pixels: np.ndarray) -> tuple[np.ndarray, bool]:
        image = equalise(torch.from_numpy(np.asarray(pixels, np.float32) / 255)[None], card.get("clahe", 0.0))
        maps = inferer(fit(image, card["spatial_size"], letterbox)[None], network).sigmoid()[0]
        probability, presence = split_presence(restore(maps, image.shape[-2:], letterbox))
        outlined = probability >= card["threshold"]
        return outlined, bool(outlined.any() and (presence is None or presence >= limit))

    return segment


def _draw(pixels: np.ndarray, ends: Ends, rng: np.random.Generator) -> np.ndarray:
    style = MarkStyle(str(rng.choice(["plus", "cross"])), int(rng.integers(6, 12)), int(rng.integers(1, 3)), 0.95)
    return draw_calipers(np.asarray(pixels, np.float32) / 255, ends, style) * 255


def _anywhere(rng: np.random.Generator) -> Ends:
    """Four ends, as of two crossing distances, somewhere in the picture."""
    row, column = rng.uniform(0.25, 0.6, 2)
    height, width = rng.uniform(0.06, 0.18, 2)
    return [(row, column - width), (row, column + width), (row - height, column), (row + height, column)]


def _ends_of(lesion: np.ndarray) -> Ends:
    """The left, right, upper and lower end of a lesion, as fractions of the sides."""
    rows, columns = np.nonzero(lesion)
    places = [int(np.argmin(columns)), int(np.argmax(columns)), int(np.argmin(rows)), int(np.argmax(rows))]
    return [((rows[i] + 0.5) / lesion.shape[0], (columns[i] + 0.5) / lesion.shape[1]) for i in places]


def _moved(ends: Ends, rng: np.random.Generator) -> Ends:
    """The same ends, all shifted and drawn apart, inside the picture."""
    shift, stretch = rng.uniform(-_FARTHEST, _FARTHEST, 2), rng.uniform(1.1, 1.6)
    centre = np.mean(ends, axis=0)
    moved = np.clip(centre + (np.array(ends) - centre) * stretch + shift, 0.02, 0.98)
    return [(float(row), float(column)) for row, column in moved]


def _beside(pixels: np.ndarray, lesion: np.ndarray) -> np.ndarray | None:
    """The largest part of a picture left, right, above or below of its lesion; None where each is too narrow."""
    rows, columns = np.nonzero(lesion)
    if not rows.size:
        return None
    windows = [
        *(pixels[:, : columns.min()], pixels[:, columns.max() + 1 :]),
        *(pixels[: rows.min()], pixels[rows.max() + 1 :]),
    ]
    largest = max(windows, key=lambda window: window.size)
    return largest if min(np.divide(largest.shape, pixels.shape)) >= _NARROWEST else None


def dice_of(first: np.ndarray, second: np.ndarray) -> float:
    total = int(first.sum()) + int(second.sum())
    return 1.0 if total == 0 else 2 * int((first & second).sum()) / total


def _means(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Any]:
    listed = list(rows)
    groups = [str(row["group"]) for row in listed]
    return {key: bootstrap_ratio_by_group([float(row[key]) for row in listed], groups).as_dict() for key in keys}
