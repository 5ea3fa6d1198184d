# SPDX-License-Identifier: Apache-2.0
"""A synthetic breast-ultrasound dataset in BUSI's layout, to try every step of the bundle without patient data.

The pictures are computed in decibels: layers of tissue, a lesion, shadows and attenuation make the expected echo,
multiplied by speckle and log-compressed as a scanner does it. They train a network; they prove nothing about patients.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from bundle.errors import UserError

MARKER = "SYNTHETIC.json"
NOTE = "SYNTHETIC: not ultrasound, not for clinical use"
VERSION = 1  # raise it whenever the pixels for a given seed change
CLASSES = ("benign", "malignant", "normal")
DEFAULT_COUNTS: Mapping[str, int] = {"benign": 90, "malignant": 60, "normal": 20}
SIZE_RANGE = ((180, 300), (220, 380))  # heights, widths
MIN_SIZE = 48  # pixels; below it layers and lesion are no longer told apart

Array = NDArray[np.float64]
Rng = np.random.Generator
SizeRange = tuple[tuple[int, int], tuple[int, int]]


def is_synthetic(dataset_dir: str | os.PathLike[str]) -> bool:
    """Whether the folder holds a complete phantom, that is, its marker file `SYNTHETIC.json`."""
    return (Path(dataset_dir) / MARKER).is_file()


def ensure_phantom(dataset_dir: str | os.PathLike[str]) -> None:
    """Make the default phantom unless the folder already holds one; safe to call from several processes at once.

    Raises UserError when the folder holds something else, or cannot be written.
    """
    try:
        if not is_synthetic(dataset_dir):
            make_phantom(dataset_dir)
    except UserError:
        if not is_synthetic(dataset_dir):  # else another process finished first, with the same pixels
            raise


def make_phantom(
    dataset_dir: str | os.PathLike[str],
    *,
    counts: Mapping[str, int] = DEFAULT_COUNTS,
    seed: int = 0,
    size_range: SizeRange = SIZE_RANGE,
) -> None:
    """Write a phantom dataset: `<class>/<class> (1).png` (8-bit grey) and `<class>/<class> (1)_mask.png` (1-bit).

    One picture depends on (seed, class, number) and on size_range only, so a smaller count gives the same first
    pictures. All files are written to a temporary folder beside the target and appear at once, marker included.

    Args:
        dataset_dir: must not exist yet, or be empty; its parents are made.
        counts: images per class; a class that is left out gets none.
        seed: 0 or more.
        size_range: (lowest, highest) height and (lowest, highest) width in pixels, both ends included.

    Raises UserError when the target is not empty or cannot be written, or an argument is out of range.
    """
    _check_arguments(counts, seed, size_range)
    target = Path(dataset_dir)
    _check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".phantom-", dir=target.parent) as parent:
            draft = Path(parent) / "draft"  # a child, since the temporary folder itself is private to its owner
            for label in CLASSES:
                (draft / label).mkdir(parents=True)
                for index in range(1, counts.get(label, 0) + 1):
                    _write_case(draft / label, label, index, seed, size_range)
            marker = {"version": VERSION, "seed": seed, "counts": dict(counts), "size_range": size_range, "note": NOTE}
            (draft / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
            _check_target(target)
            if target.exists():
                target.rmdir()
            os.replace(draft, target)
    except OSError as error:
        raise UserError(f"{target}: cannot write the phantom ({error}); free space or choose another folder") from error


def _check_arguments(counts: Mapping[str, int], seed: int, size_range: SizeRange) -> None:
    if unknown := sorted(set(counts) - set(CLASSES)):
        raise UserError(f"phantom counts: unknown class {unknown[0]!r}; allowed are {', '.join(CLASSES)}")
    for name, value in (*counts.items(), ("seed", seed)):
        if value < 0:
            raise UserError(f"phantom: {name} is {value}; give 0 or more")
    for name, (low, high) in zip(("height", "width"), size_range, strict=True):
        if not MIN_SIZE <= low <= high:
            raise UserError(f"phantom: {name} range is {low} to {high}; it must rise and start at {MIN_SIZE} or more")


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; give a folder for the phantom")
    if is_synthetic(target):
        raise UserError(f"{target}: already holds a phantom; delete it first or choose another folder")
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: is not empty and holds no phantom ({MARKER} is missing); choose another folder")


def _write_case(folder: Path, label: str, index: int, seed: int, size_range: SizeRange) -> None:
    rng = np.random.default_rng([seed, CLASSES.index(label), index])
    height, width = (int(rng.integers(low, high, endpoint=True)) for low, high in size_range)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    # Tissue is drawn on every second pixel: a quarter of the time, and speckle hides the difference.
    level = zoom(draw_tissue(rng, y[::2, ::2], x[::2, ::2]), 2, order=1)[:height, :width]
    add_lobules(rng, level, y, x)
    masks = [np.zeros((height, width), bool)] if label == "normal" else []
    lesions = 0 if label == "normal" else 2 if index % 15 == 4 else 1  # two mask files for the 4th case, as in BUSI
    for number in range(lesions):  # one latent number drives every sign of malignancy: 6 % lie beyond 0.5
        suspicion = rng.beta(6, 2) if label == "malignant" else rng.beta(2, 6)
        masks.append(add_lesion(rng, level, y, x, suspicion, side=(number + 0.5) / lesions, share=1 / lesions))
    Image.fromarray(display(rng, level, y, x)).save(folder / f"{label} ({index}).png")
    for number, mask in enumerate(masks):
        name = f"{label} ({index})_mask{f'_{number}' if number else ''}.png"
        Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(folder / name)


def _noise(rng: Rng, y: Array, x: Array, cell_y: float, cell_x: float) -> Array:
    """Smooth noise at the points (y, x), standard deviation about 0.8, with grains of (cell_y, cell_x) pixels."""
    grid = rng.standard_normal((int(np.ptp(y) / cell_y) + 5, int(np.ptp(x) / cell_x) + 5))
    offset_y, offset_x = rng.uniform(1, 2, 2)
    points = [(y - y.min()) / cell_y + offset_y, (x - x.min()) / cell_x + offset_x]
    return np.asarray(1.5 * map_coordinates(grid, points, order=2, prefilter=False))


def soft_step(value: Array, softness: float) -> Array:
    """Soft step from 0 to 1 around value = 0; softness in the units of value."""
    return np.asarray(0.5 + 0.5 * np.tanh(value / (2 * softness)))


def _strands(rng: Rng, y: Array, x: Array, cell_y: float, cell_x: float, thickness: float) -> Array:
    """Thin bright strands in [0, 1]: the zero lines of smooth noise, fading in and out, as septa and fibres do."""
    lines = -((_noise(rng, y, x, cell_y, cell_x) / thickness) ** 2)
    return np.asarray(np.exp(lines) * soft_step(_noise(rng, y, x, cell_y, cell_x / 2), 0.4))


def draw_tissue(rng: Rng, y: Array, x: Array) -> Array:
    """Expected echo (H, W) in dB relative to fat: skin, fat with septa, glandular tissue, muscle with fibres."""
    height, width = np.ptp(y) + 1, np.ptp(x) + 1
    waves = 0.05 * height * _noise(rng, 0 * x[:1], x[:1], 1, width / 3)
    depth = y + waves + rng.uniform(-0.12, 0.12) * (x - width / 2)
    uneven = 0.03 * height * _noise(rng, 0 * x[:1], x[:1], 1, width / 8)
    fat = rng.uniform(-2, 1) + _noise(rng, y, x, height / 6, width / 5)
    fat += rng.uniform(9, 16) * _strands(rng, depth, x, height / 10, width / 4, 0.12)
    gland = rng.uniform(2, 7) + rng.uniform(2, 4) * _noise(rng, depth, x, height / 18, width / 9)
    for scale in (1, 2):
        gland += rng.uniform(4, 10) * _strands(rng, depth, x, height / 16 / scale, width / 4 / scale, 0.25)
    muscle = rng.uniform(-6, 0) + rng.uniform(10, 16) * _strands(rng, depth, x, height / 24, width / 3, 0.25)
    top, bottom = rng.uniform(0.12, 0.38) * height, rng.uniform(0.6, 0.9) * height
    level = fat + (gland - fat) * soft_step(depth + uneven - top, height / 120)
    level += (muscle - level) * soft_step(depth - uneven / 2 - bottom, height / 120)
    skin = np.exp(-((y / (height / 50)) ** 2)) + 0.8 * np.exp(-(((y - height / 22) / (height / 120)) ** 2))
    return np.asarray(level + rng.uniform(6, 12) * skin)


def add_lobules(rng: Rng, level: Array, y: Array, x: Array) -> None:
    """Distractors: fat lobules that look a little like lesions, and dark bands without a lesion above them."""
    height, width = level.shape
    for _ in range(rng.integers(1, 5)):
        row, column = rng.uniform(0.15, 0.85) * height, rng.uniform(0, 1) * width
        semi_y, semi_x = rng.uniform(0.03, 0.09) * height, rng.uniform(0.05, 0.16) * width
        radius = np.hypot((y - row) / semi_y, (x - column) / semi_x)
        radius += 0.3 * _noise(rng, y, x, semi_y / 1.5, semi_x / 1.5)
        inside = rng.uniform(0.4, 1) * soft_step(1 - radius, rng.uniform(0.05, 0.15))
        level += (rng.uniform(-8, -2) - level) * inside + rng.uniform(0, 6) * np.exp(-(((radius - 1.1) / 0.1) ** 2))
    for _ in range(rng.integers(0, 3)):
        band = np.exp(-(((x - rng.uniform(0, width)) / (rng.uniform(0.02, 0.08) * width)) ** 2))
        level -= rng.uniform(3, 9) * band * soft_step(y - rng.uniform(0.1, 0.6) * height, height / 25)


def _outline(rng: Rng, angle: Array, suspicion: float) -> tuple[Array, Array]:
    """Relative radius at each angle, mean square 1: (as echoed, as an annotator draws it: half the spicules)."""
    smooth, spicules = np.ones_like(angle), np.zeros_like(angle)
    for order in range(2, 12):
        # High orders are what makes a border irregular; a benign lesion hardly has them.
        size = rng.normal(0, 0.06 if order < 4 else 0.4 * suspicion**2 / order)
        smooth += size * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    for _ in range(int(16 * suspicion**2 * rng.random())):
        away = np.abs((angle - rng.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi)
        spicules += rng.uniform(0.05, 0.35) * suspicion * np.exp(-((away / rng.uniform(0.04, 0.16)) ** 2))
    drawn = np.maximum(smooth, 0.5) + 0.5 * spicules
    size = np.sqrt(np.mean(drawn**2))
    return (drawn + 0.5 * spicules) / size, drawn / size


def add_lesion(
    rng: Rng, level: Array, y: Array, x: Array, suspicion: float, side: float, share: float
) -> NDArray[np.bool_]:
    """Draw one lesion with its halo and shadows into level; suspicion 0 is typically benign, 1 malignant."""
    height, width = level.shape
    area = share * (0.026 + 0.165 * rng.beta(1.3 + 1.4 * suspicion, 3.0)) * height * width
    aspect = np.exp(rng.normal(np.log(0.58) + suspicion * np.log(2.1), 0.18))  # height / width
    semi_y = min(np.sqrt(area * aspect / np.pi), 0.36 * height)
    semi_x = min(area / np.pi / semi_y, 0.4 * share * width)
    row = rng.uniform(1.1 * semi_y + 0.05 * height, max(0.9 * height - 1.1 * semi_y, 0.5 * height))
    column = side * width + rng.uniform(-1, 1) * max(0.5 * share * width - 1.1 * semi_x, 0)
    turn = rng.normal(0, 0.25)
    v = ((y - row) * np.cos(turn) - (x - column) * np.sin(turn)) / semi_y
    u = ((x - column) * np.cos(turn) + (y - row) * np.sin(turn)) / semi_x
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    knots = np.linspace(-np.pi, np.pi, 721)
    echoed, drawn = (np.interp(angle, knots, line) for line in _outline(rng, knots, suspicion))
    inward = (echoed - radius) * np.sqrt(semi_y * semi_x)  # pixels inside the border, below 0 outside
    unit = height / 240
    blur = (0.6 + 2.6 * suspicion * rng.uniform(0.6, 1.2)) * unit
    darkness = rng.uniform(18, 30) if rng.random() < 0.35 * (1 - suspicion) else rng.uniform(2, 10)  # a cyst is black
    inside = -darkness + (1 + 2.5 * suspicion) * _noise(rng, y, x, semi_y / 2.5, semi_x / 2.5)
    level += (inside - level) * soft_step(inward, blur)
    level += 5 * suspicion * rng.random() * np.exp(-(((inward + 7 * unit) / (5 * unit)) ** 2))
    level += 7 * (1 - suspicion) * rng.random() * np.exp(-((inward / (1.3 * unit)) ** 2)) * np.abs(np.sin(angle))
    # Below the lesion: enhancement where it lets sound through, shadow where it absorbs, thin shadows at smooth edges.
    behind = np.clip((y - row - 0.4 * semi_y) / semi_y, 0, 1)
    rays = 0.2 * _noise(rng, 0 * x[:1], x[:1], 1, semi_x / 3)
    beam = (1 + rays) * soft_step(1 - np.abs(x - column) / (0.9 * semi_x) + rays, 0.12)
    level += (rng.normal(5, 3) - 14 * suspicion) * behind * beam
    edges = np.exp(-(((np.abs(x - column) - 0.97 * semi_x) / (3 * unit)) ** 2))
    level -= 7 * (1 - suspicion) * rng.random() * edges * behind
    return np.asarray(radius <= drawn)


def display(rng: Rng, level: Array, y: Array, x: Array, noise: Array | None = None) -> NDArray[np.uint8]:
    """Attenuation, speckle, noise floor and log compression: expected echo (H, W) in dB -> grey values in [0, 255].

    Args:
        rng: of the settings, and of the speckle.
        level: expected echo.
        y, x: coordinates of its pixels.
        noise: (10, H, W) standard normal, that the speckle is made of; None to draw it. A cine's frames have one rng
            each, in the same state, and their own noise: one setting of the scanner.
    """
    height, width = level.shape
    # What the time-gain compensation leaves of the loss with depth, its uneven sliders, poor contact at the sides.
    level = level - rng.uniform(4, 22) * np.clip(y / height - rng.uniform(0.2, 0.6), 0, 1)
    level += rng.uniform(0.3, 1.5) * _noise(rng, y[:, :1], 0 * y[:, :1], height / 6, 1)
    level -= rng.uniform(0, 9) * np.abs(2 * x / width - 1 + rng.uniform(-0.2, 0.2)) ** 4
    # The lateral resolution of a linear probe is about half the axial one. The intensity of a complex Gaussian field
    # is fully developed (Rayleigh) speckle; the mean of five looks is what spatial compounding leaves of it.
    axial = rng.uniform(0.6, 0.9)
    noise = rng.standard_normal((10, height, width)) if noise is None else noise
    fields = gaussian_filter(noise, (0, axial, axial * rng.uniform(1.6, 2.4)))
    speckle = np.square(fields).mean(0) / np.square(fields).mean()
    decibels = 10 * np.log10(10 ** (level / 10) * speckle + 10 ** rng.uniform(-3.2, -2.6))  # echo and noise floor
    grey = rng.uniform(75, 110) + decibels * 255 / rng.uniform(36, 48)
    return np.asarray(np.clip(np.rint(grey), 0, 255), dtype=np.uint8)
