# SPDX-License-Identifier: Apache-2.0
"""What is said of a cine: which outlines follow one lesion from frame to frame, and the probability of the whole.

Each frame is outlined by itself, so an outline may lie on another structure for a moment. Outlines that go on from each
other are one track; those of no track jump, and are flagged. Where the lesion leaves the plane an outline creeps onto
other tissue without a jump: it is told by its contrast, which falls below that of its track. A track's probability is
made of those of its other frames by the rule that calibrated best on synthetic cines, see docs/cines.md; that of the
cine is its most suspicious track's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy.special import expit, logit

MAX_SHIFT, MAX_GROWTH = 0.5, 2.0
"""From one outline of a track to the next: its centre moves by so many of its diameters at most, and its area changes
by this factor at most."""

MAX_GAP = 3
"""Frames looked at that may lie between two outlines of a track, with another outline or none."""

LEAST_CONTRAST = 0.5
"""Of its track's upper quartile of contrast an outline has at least; one with less creeps."""

LEAST_OF_TRACK = 4
"""Outlines of a track whose contrast is compared: among fewer none stands for the lesion."""

LEAST_SHARE = 0.2
"""Of a cine's outlines, must belong to a track for it to answer for the cine; two outlines at least."""

LEAST = 1e-4
"""Probabilities are kept so far from 0 and 1 where their logarithm is taken."""


def _mean_logit(values: Sequence[float]) -> float:
    return float(expit(np.mean(logit(np.clip(values, LEAST, 1 - LEAST)))))


AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "maximum": max,
    "upper quartile": lambda values: float(np.quantile(values, 0.75)),
    "median": median,
    "mean": fmean,
    "mean of logits": _mean_logit,
}
"""What a cine's probability may be made of those of its frames, by name."""

RULE = "median"
"""Of `AGGREGATES`, that is used; chosen, as the limits above are, on synthetic cines, see docs/cines.md."""


@dataclass(frozen=True)
class Look:
    """What was found in one frame that was looked at.

    Args:
        frame: counted from 0.
        probability: of malignancy; None where nothing is outlined.
        area: of the outline in pixels, None where there is none.
        centroid: its (row, column) in pixels.
        contrast: of it with what surrounds it, see `bundle.prediction.classify`; None where it is not known.
    """

    frame: int
    probability: float | None = None
    area: float | None = None
    centroid: tuple[float, float] | None = None
    contrast: float | None = None

    @classmethod
    def of(cls, finding: Mapping[str, Any]) -> Look:
        """Take it from a finding as plain JSON."""
        lesion = finding["lesion"]
        if lesion is None:
            return cls(finding["frame"])
        row, column = lesion["centroid_px"]
        return cls(finding["frame"], finding["probability"], lesion["area_px"], (row, column), lesion.get("contrast"))


@dataclass(frozen=True)
class CineFinding:
    """What the frames of a cine come to.

    Args:
        looks: in the order of their frames.
        tracks: indices of looks that follow one structure, each at least two; the one that answers for the cine first.
        jumps: per look, whether its outline belongs to no track.
        creeps: per look, whether its outline went on from a track and has lost what that follows.
        probability: of malignancy, of the first track; of all outlines where there is no track; None without outline.
        areas, centroids: per look, smoothed over its track; None where there is no outline, or it jumps or creeps.
    """

    looks: tuple[Look, ...]
    tracks: tuple[tuple[int, ...], ...]
    jumps: tuple[bool, ...]
    creeps: tuple[bool, ...]
    probability: float | None
    areas: tuple[float | None, ...] = field(repr=False)
    centroids: tuple[tuple[float, float] | None, ...] = field(repr=False)

    @property
    def followed(self) -> tuple[int, ...]:
        """Indices of the looks that the probability is made of."""
        return self.tracks[0] if self.tracks else tuple(index for index, look in enumerate(self.looks) if look.area)


def follow(looks: Sequence[Look], rule: str = RULE) -> CineFinding:
    """Follow outlines over a cine.

    Args:
        looks: in any order.
        rule: of `AGGREGATES`.
    """
    ordered = tuple(sorted(looks, key=lambda look: look.frame))
    linked = [track for track in _link(ordered) if len(track) > 1]
    on_track = {index for track in linked for index in track}
    creeping = {index for track in linked for index in _creeping(ordered, track)}
    found = [[index for index in track if index not in creeping] for track in linked]
    outlined = sum(look.area is not None for look in ordered)
    least = max(2.0, LEAST_SHARE * outlined)
    join = AGGREGATES[rule]

    def value(track: Sequence[int]) -> float:
        return join([probability for index in track if (probability := ordered[index].probability) is not None])

    tracks = sorted(found, key=lambda track: (len(track) >= least, value(track)), reverse=True)
    jumps = tuple(bool(tracks) and look.area is not None and i not in on_track for i, look in enumerate(ordered))
    answering = tracks[0] if tracks else [i for i, look in enumerate(ordered) if look.area is not None]
    areas: list[float | None] = [None] * len(ordered)
    centroids: list[tuple[float, float] | None] = [None] * len(ordered)
    for track in tracks:
        for place, index in enumerate(track):
            near = [ordered[other] for other in track[max(0, place - 1) : place + 2]]
            areas[index] = median(look.area for look in near if look.area is not None)
            points = np.median([look.centroid for look in near if look.centroid is not None], axis=0)
            centroids[index] = (float(points[0]), float(points[1]))
    return CineFinding(
        ordered,
        tuple(tuple(track) for track in tracks),
        jumps,
        tuple(index in creeping for index in range(len(ordered))),
        value(answering) if answering else None,
        tuple(areas),
        tuple(centroids),
    )


def _link(looks: Sequence[Look]) -> list[list[int]]:
    """Join each outline to the nearest track that it goes on from, or begin one."""
    tracks: list[list[int]] = []
    for index, look in enumerate(looks):
        if look.area is None:
            continue
        near = [
            (distance, track)
            for track in tracks
            if index - track[-1] <= MAX_GAP + 1 and (distance := _shift(looks[track[-1]], look)) <= MAX_SHIFT
        ]
        if near:
            min(near, key=lambda pair: pair[0])[1].append(index)
        else:
            tracks.append([index])
    return tracks


def _creeping(looks: Sequence[Look], track: Sequence[int]) -> list[int]:
    """Those of a track whose contrast is far below what is usual in it; two at least are left, or none is told."""
    contrasts = {index: contrast for index in track if (contrast := looks[index].contrast) is not None}
    if len(contrasts) < LEAST_OF_TRACK:
        return []
    # The upper quartile stands for the lesion even where it is out of the plane for half of the time.
    usual = float(np.quantile(list(contrasts.values()), 0.75))
    found = [index for index, contrast in contrasts.items() if contrast < LEAST_CONTRAST * usual]
    return found if usual > 0 and len(track) - len(found) > 1 else []


def _shift(one: Look, other: Look) -> float:
    """How far two outlines are apart, in diameters of a disc as large as them; infinite where their areas differ."""
    assert one.area is not None
    assert other.area is not None
    assert one.centroid is not None
    assert other.centroid is not None
    if max(one.area, other.area) > MAX_GROWTH * min(one.area, other.area):
        return math.inf
    diameter = 2 * math.sqrt(math.sqrt(one.area * other.area) / math.pi)
    return math.dist(one.centroid, other.centroid) / diameter
