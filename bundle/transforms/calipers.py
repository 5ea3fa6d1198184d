# SPDX-License-Identifier: Apache-2.0
"""Caliper marks in a picture: small bright crosses that a reader has set at the ends of what was measured.

Found are those that stand out. Of 52 BUS-BRA images with calipers at the lesion, as seen by eye, 21 were found: thin
grey ones, and crosses cut out of a dark box, are missed. Any count of them is a lower bound.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import cv2
import numpy as np

from bundle.transforms.shape import box_of

_CALIPER_SIDES = ((9, 1), (13, 1), (13, 2), (17, 2), (21, 2), (25, 3))
"""Length and width of the strokes of caliper marks, in pixels of the image itself."""
_MIN_MATCH, _MIN_BRIGHTNESS, _MIN_CONTRAST = 0.7, 130, 60
"""Correlation with the mark, grey level on its strokes, and by how much they stand out. Chosen on BUSI by eye."""
_AROUND_LESION = 0.2
_LONGER = 1.5
"""So many times as long as the stroke that stands out may a mark be that lies there; 1.3 was the most that was found
in 650 images of BUSI and BUS-BRA."""


def find_calipers(grey: np.ndarray, longest: float = math.inf) -> list[tuple[int, int]]:
    """Find caliper marks: small bright crosses, upright or slanted, as scanners draw them to measure a lesion.

    Args:
        grey: (H, W), grey values in [0, 255].
        longest: strokes of a mark that is looked for, in pixels.

    Returns:
        (row, column) of each, the surest first. Letters such as T are taken for marks as well.
    """
    image = np.asarray(grey, dtype=np.float32)
    found: list[tuple[float, int, int]] = []
    brightest = np.sort(image, axis=None)[::-1].cumsum(dtype=np.float64)  # the sums of so many of the brightest pixels
    for length, width in _CALIPER_SIDES:
        if length > longest:
            break
        for mark, strokes in (_draw_mark(length, width, slanted) for slanted in (False, True)):
            if min(image.shape) < len(mark) or brightest[int(strokes) - 1] <= _MIN_BRIGHTNESS * strokes:
                continue  # a mark of that size has no room, or not so many pixels are bright
            # Where nothing bright stands out, which is nearly everywhere, no correlation is asked for.
            on = cv2.matchTemplate(image, mark / strokes, cv2.TM_CCORR)
            if on.max() <= _MIN_BRIGHTNESS:
                continue
            off = (_sums(image, len(mark)) - strokes * on) / (mark.size - strokes)
            stands_out = (on > _MIN_BRIGHTNESS) & (on - off > _MIN_CONTRAST)
            if not stands_out.any():
                continue
            match = cv2.matchTemplate(image, mark, cv2.TM_CCOEFF_NORMED)
            rows, columns = np.nonzero((match > _MIN_MATCH) & stands_out)
            middle = len(mark) // 2
            found += [
                (float(match[y, x]), int(y) + middle, int(x) + middle) for y, x in zip(rows, columns, strict=True)
            ]
    return _apart([(row, column) for _, row, column in sorted(found, reverse=True)])


def _sums(image: np.ndarray, side: int) -> np.ndarray:
    """The sums (h, w) of all squares of a side that lie within an image (H, W)."""
    sums = cv2.boxFilter(image, cv2.CV_32F, (side, side), anchor=(0, 0), normalize=False)
    return sums[: image.shape[0] - side + 1, : image.shape[1] - side + 1]


def _apart(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The places without those that lie on an earlier one."""
    kept: list[tuple[int, int]] = []
    for row, column in places:
        if all(abs(row - y) + abs(column - x) > _CALIPER_SIDES[1][0] for y, x in kept):
            kept.append((row, column))
    return kept


@functools.cache
def _draw_mark(length: int, width: int, slanted: bool) -> tuple[np.ndarray, np.float32]:
    """A cross as (S, S) float32 of 0 and 1, with a rim of 3 pixels, and how many pixels its strokes have."""
    side, near, far = length + 6, 3, length + 2
    middle = side // 2
    mark = np.zeros((side, side), np.uint8)
    ends = [((near, near), (far, far)), ((near, far), (far, near))]
    if not slanted:
        ends = [((near, middle), (far, middle)), ((middle, near), (middle, far))]
    for first, last in ends:
        cv2.line(mark, first, last, 1, width)
    return mark.astype(np.float32), np.float32(mark.sum())


def calipers_at(grey: np.ndarray, lesion: np.ndarray, enough: float = math.inf) -> list[tuple[int, int]]:
    """Find the caliper marks in and at a lesion: away from it a cross is mostly a letter.

    Args:
        grey: (H, W), grey values in [0, 255].
        lesion: (H, W) bool, not empty.
        enough: marks after which no more are looked for.

    Returns:
        (row, column) of each.
    """
    top, left, bottom, right = box_of(lesion)
    reach = [round(10 + _AROUND_LESION * (length - 1)) for length in (bottom - top, right - left)]
    rim = _CALIPER_SIDES[-1][0]  # so that a mark at the border of what is searched is seen whole
    first, start = max(0, top - reach[0] - rim), max(0, left - reach[1] - rim)
    part = grey[first : bottom + reach[0] + rim, start : right + reach[1] + rim]
    found: list[tuple[int, int]] = []
    at_lesion: list[tuple[int, int]] = []
    for y, x, patch, side in _patches_with_strokes(part):
        found += [(row + y + first, column + x + start) for row, column in find_calipers(patch, _LONGER * side)]
        at_lesion = [
            (row, column)
            for row, column in _apart(found)
            if top - reach[0] <= row < bottom + reach[0] and left - reach[1] <= column < right + reach[1]
        ]
        if len(at_lesion) >= enough:
            break
    return at_lesion


def _patches_with_strokes(grey: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, int]]:
    """The row and column of each small part in which something thin, bright and of a mark's size stands out, the part,
    and the longer side of what does.

    To look there alone is ten times as fast as to look everywhere.
    """
    levels = grey.astype(np.uint8)
    thin = cv2.morphologyEx(levels, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8))
    strokes = ((thin > _MIN_CONTRAST) & (levels > _MIN_BRIGHTNESS)).view(np.uint8)
    outlines, relations = cv2.findContours(strokes, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rim = _CALIPER_SIDES[-1][0] // 2
    for index, outline in enumerate(outlines):
        x, y, width, height = cv2.boundingRect(outline)
        # As long as wide, and neither a dot nor full.
        if relations[0, index, 3] >= 0 or min(width, height) < _CALIPER_SIDES[0][0] // 2:
            continue
        if max(width, height) >= 2 * min(width, height):
            continue
        column, row = outline[0, 0]
        _, numbered = cv2.connectedComponents(strokes[y : y + height, x : x + width], connectivity=8)
        if np.count_nonzero(numbered == numbered[row - y, column - x]) <= 0.7 * width * height:
            top, left = max(0, y - rim), max(0, x - rim)
            yield top, left, grey[top : y + height + rim, left : x + width + rim], max(width, height)
