# SPDX-License-Identifier: Apache-2.0
"""Masks and overlays as PNG files."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from bundle.files import write_atomically
from bundle.finding import OVERLAY_RGB
from bundle.transforms.lesion import quantise
from bundle.transforms.shape import box_of

FILL_OPACITY = 0.25
HEAT_OPACITY = 0.6
THUMBNAIL_QUALITY = 82
HEAT_COLOURS = "viridis"  # lightness grows with the value, for colour-blind readers; far from the contour's orange


def _fast(filter_name: str, strategy: int) -> list[int]:
    """OpenCV's settings for fast deflate and one filter; OpenCV 4, which MONAI Label pins, has one."""
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, strategy]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        settings += [cv2.IMWRITE_PNG_FILTER, getattr(cv2, filter_name)]
    return settings


# A quarter of the time of Pillow's default, files a sixth larger.
_PICTURE = _fast("IMWRITE_PNG_FILTER_SUB", cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
# Of two values, runs are all there is: faster, and smaller than by any filter.
_MASK = _fast("IMWRITE_PNG_FILTER_NONE", cv2.IMWRITE_PNG_STRATEGY_RLE)


def write_mask(mask: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a binary mask as an 8-bit grey PNG: 0 is background, 255 is lesion.

    Args:
        mask: (H, W) bool.
        path: the PNG file, written atomically.

    Raises:
        ValueError: the mask is not two-dimensional and bool.
        InputError: the file cannot be written.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is a (H, W) bool array, not {mask.dtype} of shape {mask.shape}")
    write_atomically(path, _encode(".png", mask.astype(np.uint8) * 255, _MASK))


def write_probability(probability: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a probability map (H, W) float in [0, 1] as an 8-bit grey PNG, quantised as the classifier reads it.

    Raises:
        UserError: a value is not in [0, 1].
        InputError: the file cannot be written.
    """
    write_picture(quantise(probability), path)


def write_overlay(
    image: np.ndarray, lesion: np.ndarray, path: str | os.PathLike[str], title: str | None = None
) -> None:
    """Write what `draw_overlay` draws as an RGB PNG.

    Raises:
        ValueError: image and lesion differ in shape or are not two-dimensional.
        InputError: the file cannot be written.
    """
    write_picture(draw_overlay(image, lesion, title), path)


def write_explanation(
    image: np.ndarray, heat: np.ndarray, lesion: np.ndarray, path: str | os.PathLike[str], title: str | None = None
) -> None:
    """Write what `draw_explanation` draws as an RGB PNG.

    Raises:
        ValueError: the three differ in shape or are not two-dimensional.
        InputError: the file cannot be written.
    """
    write_picture(draw_explanation(image, heat, lesion, title), path)


def draw_overlay(image: np.ndarray, lesion: np.ndarray, title: str | None = None) -> np.ndarray:
    """Draw the image in grey with the lesion's contour and a semi-transparent fill, (H, W, 3) uint8.

    Args:
        image: (H, W) float32 grey levels in [0, 255].
        lesion: (H, W) bool.
        title: a line of text for the upper left corner.

    Raises:
        ValueError: image and lesion differ in shape or are not two-dimensional.
    """
    if image.ndim != 2 or image.shape != lesion.shape:
        raise ValueError(f"image {image.shape} and lesion {lesion.shape} must be (H, W) of one size")
    grey = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    colours = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    top, left, bottom, right = box_of(lesion)
    inside = lesion[top:bottom, left:right]
    covered = np.clip(image[top:bottom, left:right][inside], 0, 255).astype(np.float64)[:, None]
    filled = covered * (1 - FILL_OPACITY) + np.asarray(OVERLAY_RGB) * FILL_OPACITY
    colours[top:bottom, left:right][inside] = np.rint(filled).astype(np.uint8)
    return _outline(colours, lesion, title)


def draw_explanation(image: np.ndarray, heat: np.ndarray, lesion: np.ndarray, title: str | None = None) -> np.ndarray:
    """Draw the image in grey under the colours of a heat map, with the lesion's contour, (H, W, 3) uint8.

    Args:
        image: (H, W) float32 grey levels in [0, 255].
        heat: (H, W) uint8; where it is 0 the image stays as it is.
        lesion: (H, W) bool.
        title: a line of text for the upper left corner.

    Raises:
        ValueError: the three differ in shape or are not two-dimensional.
    """
    if image.ndim != 2 or not image.shape == heat.shape == lesion.shape:
        raise ValueError(f"image {image.shape}, heat {heat.shape} and lesion {lesion.shape} must be (H, W) of one size")
    from monai.visualize import blend_images  # which takes seconds to import, and few ask for an explanation

    grey, warmth = image[None].clip(0, 255) / 255, heat[None] / 255
    blended = blend_images(grey, warmth, alpha=HEAT_OPACITY * warmth, cmap=HEAT_COLOURS, rescale_arrays=False)
    colours = np.rint(np.moveaxis(np.asarray(blended), 0, -1) * 255).astype(np.uint8)
    return _outline(np.ascontiguousarray(colours), lesion, title)


def write_picture(pixels: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write (H, W) or (H, W, 3) uint8 pixels as a PNG, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomically(path, _encode(".png", pixels, _PICTURE))


def encode_thumbnail(pixels: np.ndarray, side: int, quality: int = THUMBNAIL_QUALITY) -> bytes:
    """Return (H, W, 3) uint8 pixels as a JPEG whose longer side has at most ``side`` pixels."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smaller = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return _encode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, quality]).tobytes()


def _encode(ending: str, pixels: np.ndarray, settings: list[int]) -> memoryview:
    """(H, W) or (H, W, 3) uint8 as a file's content."""
    stored = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode(ending, stored, settings)
    if not done:  # never so with these formats; its type says it could
        raise RuntimeError(f"no {ending} of an array {pixels.shape}")
    encoded: Any = content
    return memoryview(encoded)


def _outline(colours: np.ndarray, lesion: np.ndarray, title: str | None) -> np.ndarray:
    """Draw contour and title on colours (H, W, 3) uint8, which are changed."""
    # The line grows with the image, so that it is still seen when a large image is shown small.
    width = max(1, round(max(lesion.shape) / 300))
    top, left, bottom, right = box_of(lesion)
    inside = lesion[top:bottom, left:right]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    # What lies outside the image counts as outside the lesion, and so does all around its box.
    kept = (
        cv2.erode(inside.view(np.uint8), cross, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        if inside.size
        else inside
    )
    colours[top:bottom, left:right][inside & (kept == 0)] = OVERLAY_RGB
    if not title:
        return colours
    size = max(10, round(max(lesion.shape) / 28))
    strip = colours[: 2 * size]  # Pillow packs pixels otherwise: what it is not given, it does not copy
    picture = Image.fromarray(strip)
    ImageDraw.Draw(picture).text(
        (size / 3, size / 4), title, font_size=size, fill=OVERLAY_RGB, stroke_width=2, stroke_fill=(0, 0, 0)
    )
    strip[:] = np.asarray(picture)
    return colours
