# SPDX-License-Identifier: Apache-2.0
"""Read PNG, JPEG, BMP and TIFF files as grey images and lesion masks, H×W.

MONAI's PILReader returns W×H, ignores the EXIF orientation, takes a palette mask's index for its value and names no
file in its errors; every image and mask of the bundle is therefore read here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bundle.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""The formats that are decoded, known by their content. PIL's many others only widen what a bad file can reach."""

MAX_PIXELS = 25_000_000
"""Above this an image is refused before it is decoded: a PNG of 160 KB can hold 169 million pixels."""

COLOUR_DIFFERENCE = 16
"""Channels that differ by more than this show colour; below it, it is the chroma noise of a JPEG."""

EMPTY_JPEG_MASK = 64
"""A JPEG mask that stays below this is black with compression noise: nothing in it is a lesion."""

_CONVERT = "convert it to an 8-bit grey PNG"
_REPLACE = "replace it or leave it out with scripts/prepare_data.py --skip-bad"
_WHITE_IS_ZERO = 0
_PHOTOMETRIC_INTERPRETATION = 262


@dataclass(frozen=True)
class UltrasoundImage:
    """One image as the networks expect it.

    Args:
        pixels: (H, W), float32, grey values in [0, 255].
        spacing_mm: (row, column) distance of pixel centres in mm, or None where the file does not tell.
        warnings: what a reader of the result should know, one sentence each.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None
    warnings: tuple[str, ...]


def read_image(path: str | os.PathLike[str]) -> UltrasoundImage:
    """Read one image as grey (H, W), float32 in [0, 255]; EXIF orientation is applied, transparency is ignored.

    Colour becomes luma (ITU-R BT.601); 16 bits are scaled by 255 / 65535. The spacing is None: the dots per inch of
    these formats describe print, not tissue.

    Raises:
        InputError: the file is missing, empty, truncated, too large, multi-frame or no image of a known format.
    """
    image, warnings = _decode(path)
    if image.mode in ("I", "F"):
        pixels = _scale_unknown_range(path, np.asarray(image))
    elif image.mode.startswith("I;16"):
        pixels = np.asarray(image, dtype=np.float64) * (255.0 / 65535.0)
    elif image.mode in ("1", "L"):
        pixels = np.asarray(image.convert("L"))
    else:
        # By way of RGBA, since a palette with transparency converts to RGB with a complaint.
        colours = image.convert("RGBA").convert("RGB")
        red, green, blue = (np.asarray(channel) for channel in colours.split())
        highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        coloured = float((highest - lowest > COLOUR_DIFFERENCE).mean())
        if coloured > 0:
            warnings.append(f"{coloured:.2%} of the pixels are coloured: a drawn overlay or Doppler may hide tissue")
        # Pillow's integer luma leaves grey values exactly as they are; a float sum would not.
        pixels = np.asarray(colours.convert("L"))
    return UltrasoundImage(pixels.astype(np.float32), None, tuple(warnings))


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one lesion mask as bool (H, W): True where a value is above half of the mask's own maximum.

    So masks of 0/1, 0/255, 0/65535 and palettes read alike. A mask drawn in the alpha channel alone (constant colour)
    is taken from there.

    Raises:
        InputError: as `read_image`.
    """
    image, _ = _decode(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise InputError(path, "the mask has values that are not finite", _CONVERT)
    elif image.mode in ("1", "L"):
        values = np.asarray(image.convert("L"))
    else:
        channels = np.asarray(image.convert("RGBA"))
        # The brightest channel, since the luma of blue is too low to stand beside red in one mask.
        values, alpha = channels[..., :3].max(axis=2), channels[..., 3]
        if np.ptp(values) == 0 and np.ptp(alpha) > 0:
            values = alpha
    highest = float(values.max())
    if highest <= 0 or (image.format == "JPEG" and highest < EMPTY_JPEG_MASK):
        return np.zeros(values.shape, dtype=bool)
    return values > highest / 2


def read_colours(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one image as it is coloured, (H, W, 3) uint8; for masks whose colour has a meaning.

    Raises:
        InputError: as `read_image`.
    """
    image, _ = _decode(path)
    return np.asarray(image.convert("RGBA").convert("RGB"))


def _decode(path: str | os.PathLike[str]) -> tuple[Image.Image, list[str]]:
    """Open, check and decode one file; the image comes upright and keeps its `format`."""
    file = Path(path)
    if not file.exists():
        raise InputError(path, "no such file", "check the path")
    if not file.is_file():
        raise InputError(path, "is a folder or a device, not an image file", "name one image file")
    n_bytes = file.stat().st_size
    if n_bytes == 0:
        raise InputError(path, "the file is empty (0 bytes)", _REPLACE)
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_before_decoding(path, image)
            image.load()
            return _upright(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(path, f"too large to decode ({error})", _too_large_mend()) from error
    except UnidentifiedImageError as error:
        reason = f"its content ({n_bytes} bytes) is no readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
        raise InputError(path, reason, f"{_CONVERT}, or {_REPLACE}") from error
    except Exception as error:
        # Pillow's parsers raise OSError, SyntaxError, ValueError, struct.error, MemoryError and more on a bad file.
        reason = f"cannot be decoded: {error or type(error).__name__} ({n_bytes} bytes)"
        raise InputError(path, reason, _REPLACE) from error


def _check_before_decoding(path: str | os.PathLike[str], image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(
            path, f"{height}×{width} pixels are more than the limit of {MAX_PIXELS / 1e6:.0f} Mpx", _too_large_mend()
        )
    frames = getattr(image, "n_frames", 1)
    # A phone's JPEG of type MPO carries previews as further frames; its first is the picture.
    if frames > 1 and image.format != "MPO":
        raise InputError(path, f"holds {frames} frames, not one image", "save the wanted frame as a file of its own")
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I") and tags.get(_PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        # Pillow inverts such images of 8 bits, but not of more.
        raise InputError(path, "a TIFF of more than 8 bits whose zero is white", _CONVERT)


def _upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    warnings: list[str] = []
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception as error:
        # A damaged EXIF block says nothing of the pixels, which decoded well.
        upright = image.copy()
        warnings.append(f"the EXIF block is damaged ({error}): the image is taken as it is stored")
    upright.format = image.format
    return upright, warnings


def _scale_unknown_range(path: str | os.PathLike[str], values: np.ndarray) -> np.ndarray:
    """Map 32-bit values, whose range no header tells, to [0, 255] by the smallest usual range that holds them."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        reason = f"32-bit values from {values.min():g} to {values.max():g} are no grey values of 8 or 16 bits"
        raise InputError(path, reason, _CONVERT)
    if values.dtype.kind == "f" and values.max() <= 1:
        return values * 255.0
    return values if values.max() <= 255 else values * (255.0 / 65535.0)


def _too_large_mend() -> str:
    return f"scale it down to at most {MAX_PIXELS / 1e6:.0f} Mpx"
