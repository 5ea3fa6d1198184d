# SPDX-License-Identifier: Apache-2.0
"""What a scanner draws into a picture: calipers, dotted lines, captions, scales. Drawn at random, found and removed.

Most lesions of some collections carry calipers, so a network could learn those instead of lesions. In training they
are drawn at lesions and elsewhere, and those that are there are removed from a share of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn as nn

CANVAS = 512
"""Side of the canvas that marks are drawn on, about that of a scanner's picture, whatever the network's size is."""

STROKE_CONTRAST, STROKE_BRIGHTNESS = 90, 150
"""By how much a stroke stands out from what is around it, and its grey level. Chosen on BUSI by eye."""
FAINT_CONTRAST, FAINT_BRIGHTNESS = 55, 100
"""The same for strokes that are removed in training: thin grey calipers count, and some bright fibres with them."""

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX)
_SHAPES = ("plus", "cross", "dotted plus", "dotted cross")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class MarkStyle:
    """How one scanner draws.

    Args:
        shape: of a caliper: "plus", "cross", or one of dots.
        arm: half the length of a caliper's strokes, in pixels of the canvas.
        thickness: of strokes, in pixels of the canvas.
        level: grey value of strokes in [0, 1].
        box: darkness of the box that a caliper is cut out of, 0 for none.
    """

    shape: str = "plus"
    arm: int = 8
    thickness: int = 1
    level: float = 0.95
    box: float = 0.0


def draw_calipers(
    picture: np.ndarray, points: Sequence[tuple[float, float]], style: MarkStyle | None = None, dotted: bool = False
) -> np.ndarray:
    """Draw a caliper at each point, as scanners mark the ends of what they measure.

    Args:
        picture: (H, W) float in [0, 1].
        points: (row, column) as fractions of the sides.
        style: None for a plain white plus.
        dotted: join the first two points by a dotted line, the next two by another, and so on.

    Returns:
        (H, W) float32 in [0, 1].
    """
    ink, box = np.zeros((CANVAS, CANVAS), np.uint8), np.zeros((CANVAS, CANVAS), np.uint8)
    _draw_calipers(ink, box, points, style or MarkStyle(), dotted)
    return _lay_over(picture, ink, box, style or MarkStyle())


class RandomMarks(nn.Module):
    """Draw calipers, dotted lines, captions and scales of random styles into a batch, at lesions and elsewhere.

    Args:
        probability: chance that an image gets any.
        at_lesion: chance that a pair of calipers measures the lesion, where there is one; else it lies anywhere.

    Shape:
        image (N, C, H, W) float in [0, 1], of which channel 0 is drawn on; mask (N, 1, H, W) float 0 or 1, unchanged.
    """

    def __init__(self, probability: float = 0.5, at_lesion: float = 0.4) -> None:
        super().__init__()
        self.probability, self.at_lesion = probability, at_lesion

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # From torch's generator, so that a reseeded epoch draws the same again.
        seeds = torch.randint(2**31 - 1, (len(image),)).tolist()
        drawn = image.clone()
        for index, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            if rng.random() < self.probability:
                lesion = mask[index, 0].cpu().numpy() > 0.5
                picture = self._draw(image[index, 0].cpu().numpy(), lesion, rng)
                drawn[index, 0] = torch.from_numpy(picture).to(image)
        return drawn

    def _draw(self, picture: np.ndarray, lesion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        style = draw_style(rng)
        ink, box = np.zeros((CANVAS, CANVAS), np.uint8), np.zeros((CANVAS, CANVAS), np.uint8)
        for number in range(rng.choice([0, 1, 2, 3], p=[0.2, 0.35, 0.35, 0.1])):
            places = self._place_pair(lesion, number, rng)
            _draw_calipers(ink, box, places, style, dotted=rng.random() < 0.25)
            if rng.random() < 0.5:
                row, column = (round(value * CANVAS) for value in places[0])
                _write(ink, str(number + 1), (row - style.arm, column - 3 * style.arm), 0.4, 1)
        for _ in range(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2])):
            text = "".join(rng.choice(list(_LETTERS), rng.integers(2, 7)))
            if rng.random() < 0.5:
                text += " " + "".join(rng.choice(list(_LETTERS), rng.integers(2, 9)))
            if rng.random() < 0.3:
                text = f"D {rng.uniform(2, 40):.1f}MM"
            height = rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.2, 0.95), rng.uniform(0.85, 0.99)])
            place = round(height * CANVAS), round(rng.uniform(-0.05, 0.8) * CANVAS)
            _write(ink, text, place, rng.uniform(0.4, 1.0), int(rng.integers(1, 3)), int(rng.integers(len(_FONTS))))
        if rng.random() < 0.2:
            column = round(rng.uniform(0.93, 0.99) * CANVAS)
            for row in range(int(rng.integers(4, 40)), CANVAS, int(rng.integers(20, 90))):
                cv2.circle(ink, (column, row), 2, 255, -1)
        return _lay_over(picture, ink, box, style)

    def _place_pair(self, lesion: np.ndarray, number: int, rng: np.random.Generator) -> list[tuple[float, float]]:
        """The ends of one distance, (row, column) as fractions: across the lesion, or anywhere."""
        if lesion.any() and rng.random() < self.at_lesion:
            rows, columns = np.nonzero(lesion)
            # The ends of the lesion along a direction: level for the first pair, upright for the second.
            angle = np.deg2rad(90 * (number % 2) + rng.normal(0, 15))
            along = columns * np.cos(angle) + rows * np.sin(angle)
            ends = [int(np.argmin(along)), int(np.argmax(along))]
            sides = np.array(lesion.shape)
            return [tuple((np.array([rows[i], columns[i]]) + rng.normal(0, 1.5, 2)) / sides) for i in ends]
        centre, angle = rng.uniform(0.08, 0.92, 2), np.deg2rad(90 * (number % 2) + rng.normal(0, 20))
        half = 0.5 * rng.uniform(0.06, 0.45) * np.array([np.sin(angle), np.cos(angle)])
        return [tuple(np.clip(centre + sign * half, 0.02, 0.98)) for sign in (-1, 1)]


def draw_style(rng: np.random.Generator) -> MarkStyle:
    """Draw a scanner's style: thin grey or bold white, with or without a dark box."""
    return MarkStyle(
        shape=str(rng.choice(_SHAPES, p=[0.45, 0.3, 0.15, 0.1])),
        arm=int(rng.integers(4, 14)),
        thickness=int(rng.choice([1, 2, 3], p=[0.5, 0.4, 0.1])),
        level=float(rng.uniform(0.5, 1.0)),
        box=float(rng.choice([0.0, rng.uniform(0.5, 1.0)], p=[0.7, 0.3])),
    )


def find_strokes(
    grey: np.ndarray, contrast: int = STROKE_CONTRAST, brightness: int = STROKE_BRIGHTNESS, rim: int = 3
) -> np.ndarray:
    """Where text and calipers are drawn: thin, bright strokes, widened by a rim.

    Args:
        grey: (H, W) uint8.
        contrast: by how much a stroke stands out from what is around it.
        brightness: its grey level.
        rim: pixels that strokes are widened by.

    Returns:
        (H, W) bool. Some very bright fibres are taken for strokes.
    """
    stands_out = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8))
    strokes = (stands_out > contrast) & (grey > brightness)
    return np.asarray(cv2.dilate(strokes.astype(np.uint8), np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)) > 0)


def remove_marks(grey: np.ndarray) -> np.ndarray:
    """Fill strokes from what is around them (Telea 2004).

    Args:
        grey: (H, W) uint8.

    Returns:
        (H, W) uint8; some bright fibres are gone as well.
    """
    strokes = find_strokes(grey, FAINT_CONTRAST, FAINT_BRIGHTNESS, rim=1).astype(np.uint8)
    return np.asarray(cv2.inpaint(grey, strokes, 3, cv2.INPAINT_TELEA)) if strokes.any() else grey


def _draw_calipers(
    ink: np.ndarray, box: np.ndarray, points: Sequence[tuple[float, float]], style: MarkStyle, dotted: bool
) -> None:
    centres = [(round(column * CANVAS), round(row * CANVAS)) for row, column in points]
    if dotted:
        for (x0, y0), (x1, y1) in zip(centres[::2], centres[1::2], strict=False):
            steps = max(2, int(np.hypot(x1 - x0, y1 - y0) / 8))
            for t in np.linspace(0, 1, steps):
                cv2.circle(ink, (round(x0 + t * (x1 - x0)), round(y0 + t * (y1 - y0))), 1, 255, -1)
    arm = style.arm
    arms = ((arm, 0), (0, arm)) if "plus" in style.shape else ((arm, arm), (arm, -arm))
    for x, y in centres:
        if style.box:
            cv2.rectangle(box, (x - arm - 2, y - arm - 2), (x + arm + 2, y + arm + 2), 255, -1)
        for dx, dy in arms:
            if "dotted" in style.shape:
                for t in np.linspace(-1, 1, 5):
                    cv2.circle(ink, (round(x + t * dx), round(y + t * dy)), style.thickness, 255, -1)
            else:
                cv2.line(ink, (x - dx, y - dy), (x + dx, y + dy), 255, style.thickness)


def _write(ink: np.ndarray, text: str, place: tuple[int, int], size: float, thickness: int, font: int = 0) -> None:
    row, column = place
    cv2.putText(ink, text, (column, row), _FONTS[font], size, 255, thickness)


def _lay_over(picture: np.ndarray, ink: np.ndarray, box: np.ndarray, style: MarkStyle) -> np.ndarray:
    """Blend a canvas of strokes, and of dark boxes below them, into a picture of any size."""
    size, white = (picture.shape[1], picture.shape[0]), np.float32(255)
    result = np.asarray(picture, dtype=np.float32)
    if style.box:
        result = result * (1 - cv2.resize(box, size, interpolation=cv2.INTER_AREA) * (np.float32(style.box) / white))
    # Strokes thinner than a pixel of the picture would fade: a scanner's picture shrinks likewise.
    cover = cv2.resize(ink, size, interpolation=cv2.INTER_AREA) / white
    return np.asarray(result + np.maximum(np.float32(style.level) - result, 0) * cover)
