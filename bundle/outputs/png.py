# SPDX-License-Identifier: Apache-2.0
"""Masks and overlays as PNG files."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from bundle.files import write_atomically
from bundle.finding import OVERLAY_RGB
from bundle.transforms.lesion import quantise

FILL_OPACITY = 0.25
HEAT_OPACITY = 0.6
THUMBNAIL_QUALITY = 82
HEAT_COLOURS = "viridis"  # lightness grows with the value, for colour-blind readers; far from the contour's orange


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
    write_picture(mask.astype(np.uint8) * 255, path)


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
    opacity = np.where(lesion, FILL_OPACITY, 0.0)[..., None]
    blended = np.clip(image, 0, 255)[..., None] * (1 - opacity) + np.asarray(OVERLAY_RGB) * opacity
    return _outline(blended, lesion, title)


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
    return _outline(np.moveaxis(np.asarray(blended), 0, -1) * 255, lesion, title)


def write_picture(pixels: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write (H, W) or (H, W, 3) uint8 pixels as a PNG, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


def encode_thumbnail(pixels: np.ndarray, side: int, quality: int = THUMBNAIL_QUALITY) -> bytes:
    """Return (H, W, 3) uint8 pixels as a JPEG whose longer side has at most ``side`` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _outline(colours: np.ndarray, lesion: np.ndarray, title: str | None) -> np.ndarray:
    """Draw contour and title on colours (H, W, 3) in [0, 255]."""
    # The line grows with the image, so that it is still seen when a large image is shown small.
    width = max(1, round(max(lesion.shape) / 300))
    contour = lesion & ~ndimage.binary_erosion(lesion, iterations=width)
    picture = Image.fromarray(np.rint(np.where(contour[..., None], OVERLAY_RGB, colours)).astype(np.uint8))
    if title:
        size = max(10, round(max(lesion.shape) / 28))
        ImageDraw.Draw(picture).text(
            (size / 3, size / 4), title, font_size=size, fill=OVERLAY_RGB, stroke_width=2, stroke_fill=(0, 0, 0)
        )
    return np.asarray(picture)
