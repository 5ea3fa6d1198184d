# SPDX-License-Identifier: Apache-2.0
"""Synthetic cines of the phantom's tissue and lesions, to try what is said of a lesion that is followed over time.

A lesion is drawn once; then the probe pans, presses and tilts, sweeps through the lesion in every second cine, and the
speckle changes from frame to frame as it does with motion. They prove nothing about patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates, zoom

from bundle.data.phantom import CLASSES, Array, Rng, add_lesion, add_lobules, display, draw_tissue, soft_step

SIZE = (200, 260)
"""Height and width, of the phantom's middle."""

_SEED = 1  # in the entropy, so that no cine shares its numbers with a picture of the phantom
_SPECKLE_KEPT = 0.6
"""Correlation of the speckle of neighbouring frames."""


@dataclass(frozen=True)
class Cine:
    """One synthetic cine.

    Args:
        label: "benign" or "malignant".
        frames: (T, H, W) uint8.
        masks: (T, H, W) bool, the lesion as far as it is in the plane; empty where the plane has left it.
    """

    label: str
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def make_cine(label: str, number: int, frames: int = 12, seed: int = 0, size: tuple[int, int] = SIZE) -> Cine:
    """Draw one cine, which depends on its arguments alone.

    Args:
        label: "benign" or "malignant".
        number: of the cine within its class; odd ones sweep through their lesion and leave it.
        frames: T.
        seed: 0 or more.
        size: (H, W).
    """
    rng = np.random.default_rng([seed, CLASSES.index(label), number, _SEED])
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    tissue = zoom(draw_tissue(rng, y[::2, ::2], x[::2, ::2]), 2, order=1)[: size[0], : size[1]]
    add_lobules(rng, tissue, y, x)
    level = tissue.copy()
    suspicion = rng.beta(6, 2) if label == "malignant" else rng.beta(2, 6)
    mask = add_lesion(rng, level, y, x, suspicion, side=0.5, share=1)
    depth = distance_transform_edt(mask) - distance_transform_edt(~mask)
    sections = _sections(rng, frames, sweeps=number % 2 == 1)
    motion = _motion(rng, frames, size)
    setting = int(rng.integers(2**63))
    noise = rng.standard_normal((10, *size))
    pictures, masks = [], []
    for section, (matrix, shift) in zip(sections, motion, strict=True):
        # Beside the middle the plane cuts a smaller part of the lesion, and less of its shadow is there.
        beyond = (1 - section) * depth.max()
        inside = soft_step(depth - beyond, 1.5) if section > 0 else np.zeros_like(depth)
        share = np.where(depth > 0, inside, section)
        shown = tissue + (level - tissue) * share
        cut = (depth > beyond) & (section > 0)
        moved, moved_mask = (_warp(each, matrix, shift, y, x) for each in (shown, cut.astype(np.float64)))
        noise = _SPECKLE_KEPT * noise + np.sqrt(1 - _SPECKLE_KEPT**2) * rng.standard_normal(noise.shape)
        pictures.append(display(np.random.default_rng(setting), moved, y, x, noise))
        masks.append(moved_mask > 0.5)
    return Cine(label, np.stack(pictures), np.stack(masks))


def _sections(rng: Rng, frames: int, sweeps: bool) -> list[float]:
    """How much of the lesion's radius each frame's plane cuts, in [0, 1]: as of a ball, beside its middle."""
    reach, middle = (1.25, rng.uniform(-0.2, 0.2)) if sweeps else (0.5, rng.uniform(-0.1, 0.1))
    places = middle + np.linspace(-reach, reach, frames)
    return [float(np.sqrt(max(0.0, 1 - place**2))) for place in places]


def _motion(rng: Rng, frames: int, size: tuple[int, int]) -> list[tuple[Array, Array]]:
    """The (2, 2) matrix and the shift in pixels of each frame: panning, pressure and tilt, smooth over time."""
    time = np.linspace(0, 1, frames)
    waves = [
        sum(rng.normal() / order * np.sin(np.pi * order * time + rng.uniform(0, 2 * np.pi)) for order in (1, 2, 3))
        for _ in range(4)
    ]
    moves = []
    for down, across, press, tilt in zip(*waves, strict=True):
        angle = np.deg2rad(2.0 * tilt)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag([1 + 0.03 * press, 1.0])
        moves.append((matrix, np.array([0.01 * size[0] * down, 0.05 * size[1] * across])))
    return moves


def _warp(values: Array, matrix: Array, shift: Array, y: Array, x: Array) -> Array:
    """Move a map (H, W) about its middle; beyond its edges it is mirrored."""
    middle = np.array([[values.shape[0] / 2], [values.shape[1] / 2]])
    points = np.stack([y.ravel(), x.ravel()]) - middle
    places = (matrix @ points + middle + shift[:, None]).reshape(2, *values.shape)
    return np.asarray(map_coordinates(values, places, order=1, mode="mirror"))
