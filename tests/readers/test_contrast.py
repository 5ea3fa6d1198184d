# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.readers.contrast."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fabricate import speckle
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from bundle.readers import UltrasoundImage, read_image
from bundle.readers.contrast import count_grey, describe_negative, why_unusable

SHAPE = (300, 400)
CAPTION = "FREEZE  MI 1.1  TIs 0.4"


def _screen(background: int = 0, ink: int = 255, lines: int = 1) -> np.ndarray:
    """A screen without a picture, with a caption."""
    screen = Image.new("L", SHAPE[::-1], background)
    for line in range(lines):
        ImageDraw.Draw(screen).text((20, 20 + 14 * line), CAPTION, fill=ink)
    return np.asarray(screen, np.float32)


def _noise(levels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, SHAPE).astype(np.float32)


def _tissue(dark: float = 0.0) -> np.ndarray:
    """Correlated speckle in [10, 250]; a share of the rows on top is black."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 1.5)
    picture = 130 + 120 * noise / np.abs(noise).max()
    picture[: round(dark * SHAPE[0])] = 0
    return picture.astype(np.float32)


BLANK = {
    **{name: np.full(SHAPE, level, np.float32) for name, level in {"black": 0, "grey": 128, "white": 255}.items()},
    "one pixel": np.full((1, 1), 90, np.float32),
    "nearly black": _noise(3),
    "nearly white": 255 - _noise(3),
    "noise of a dark screen": _noise(9),
    "caption": _screen(),
    "dark caption on white": _screen(255, 0),
    "captions": _screen(lines=15),
    "caption on the noise of a frame grabber": np.clip(_screen(20) + _noise(3), 0, 255),
    "hot pixels": np.where(np.random.default_rng(0).random(SHAPE) < 0.002, 255.0, 0.0),
    "a strip": _tissue()[:4],
}


@pytest.mark.parametrize("name", BLANK)
def test_a_picture_of_nothing_is_unusable_and_says_why(name: str) -> None:
    assert why_unusable(BLANK[name])


@pytest.mark.parametrize("dark", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(("gain", "offset"), [(1, 0), (1 / 16, 0), (1 / 16, 200), (0.25, 20)])
def test_tissue_is_usable_however_dim_and_however_much_of_it_is_black(gain: float, offset: float, dark: float) -> None:
    assert why_unusable(gain * _tissue(dark) + offset) is None


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_tissue_is_usable_with_few_grey_levels_left(bits: int) -> None:
    assert why_unusable(np.floor(_tissue() / 2 ** (8 - bits))) is None


def test_captions_and_hot_pixels_on_tissue_change_nothing() -> None:
    picture = np.maximum(_tissue() / 16, _screen(lines=15))
    picture[0, 0] = 255
    assert why_unusable(picture) is None


BUSI = Path(os.environ.get("BUSI_DIR", ""))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("BUSI_DIR"), reason="BUSI_DIR names no folder of BUSI")
def test_every_image_of_busi_is_usable() -> None:
    images = [path for path in BUSI.glob("*/*.png") if "_mask" not in path.name]
    assert [path.name for path in images if why_unusable(read_image(path).tissue)] == []


def test_a_negative_is_told(tmp_path: Path) -> None:
    grey = speckle(120, 160)
    for values, is_negative in ((grey, False), (255 - grey, True), (grey // 4 + 30, False), (200 - grey // 4, True)):
        Image.fromarray(values).save(tmp_path / "a.png")
        assert any("not a negative" in note for note in read_image(tmp_path / "a.png").warnings) == is_negative


@pytest.mark.skipif("BUSI_DIR" not in os.environ, reason="needs BUSI")
def test_no_published_image_is_taken_for_a_negative() -> None:
    images = [path for path in sorted(Path(os.environ["BUSI_DIR"]).glob("*/*.png")) if "mask" not in path.name]
    assert not [path.name for path in images[::8] if describe_negative(count_grey(read_image(path).pixels))]


@pytest.mark.parametrize("step", [1.0, 0.25])
def test_percentiles_are_those_of_numpy_for_bytes_and_for_fractions(step: float) -> None:
    pixels = (np.random.default_rng(0).integers(0, 200, (37, 53)) * step).astype(np.float32)
    levels = count_grey(pixels)
    assert (levels.counts is None) == (step < 1)
    assert [levels.dark, levels.middle, levels.bright] == pytest.approx(np.percentile(pixels, (1, 50, 99)), rel=1e-6)


def test_what_was_counted_of_an_image_is_kept_when_more_is_known_of_it() -> None:
    image = UltrasoundImage(_tissue(), None, ())
    levels = image.grey
    warned = image.warned(["a line"])
    assert warned.grey is levels
    assert warned.warnings == ("a line",)
    assert image.warnings == ()
