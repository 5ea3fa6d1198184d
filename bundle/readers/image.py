# SPDX-License-Identifier: Apache-2.0
"""Read PNG, JPEG, BMP and TIFF files as grey images and lesion masks, H×W.

MONAI's PILReader returns W×H, ignores the EXIF orientation, takes a palette mask's index for its value and names no
file in its errors; every image and mask of the bundle is therefore read here.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bundle.errors import InputError

from .depth import scale_integers, scale_unknown_range
from .masks import lesion_of, lesion_of_colours
from .tiff import check_tiff
from .ultrasound import CONVERT, MAX_PIXELS, REPLACE, SCALE_DOWN, UltrasoundImage, check_file, choose_frame

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""The formats that are decoded, known by their content. PIL's many others only widen what a bad file can reach."""

COLOUR_DIFFERENCE = 16
"""Channels that differ by more than this show colour; below it, it is the chroma noise of a JPEG."""

# Every damaged tag would be a line on the screen.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

_FLAT_ROWS = 16
"""Two blocks of a JPEG."""

_MAP = "give the grey PNG that the segmentation wrote"


def read_picture(path: str, frame: int | None = None) -> UltrasoundImage:
    """Read one image as grey (H, W), float32 in [0, 255]; EXIF orientation is applied, transparency is ignored.

    Colour becomes luma (ITU-R BT.601); 16 bits are scaled by the depth that their values use, see `depth`. The spacing
    is None: the dots per inch of these formats describe print, not tissue.

    Raises:
        InputError: the file is missing, empty, truncated, too large or no image of a known format; or it holds several
            frames and none is named.
    """
    image, frames, warnings = _decode(path, frame)
    if image.mode in ("I", "F"):
        pixels, notes = scale_unknown_range(path, np.asarray(image))
        warnings += notes
    elif image.mode.startswith("I;16"):
        pixels, notes = scale_integers(np.asarray(image), 16)
        warnings += notes
    elif image.mode in ("1", "L"):
        pixels = np.asarray(image.convert("L"))
    else:
        pixels, notes = to_grey(image)
        warnings += notes
    if image.format in ("JPEG", "MPO"):
        warnings += describe_flat_end(np.asarray(image.convert("L")))
    number = (frame or 0) if frames > 1 else None
    return UltrasoundImage(pixels.astype(np.float32), None, tuple(warnings), frame=number, frames=frames)


def to_grey(image: Image.Image, box: tuple[int, int, int, int] | None = None) -> tuple[np.ndarray, list[str]]:
    """Return the luma (H, W) uint8 of a colour image, and a warning where colour shows.

    Args:
        image: of a colour mode.
        box: (top, left, bottom, right) that is looked at for colour; all by default.
    """
    # By way of RGBA, since a palette with transparency converts to RGB with a complaint.
    colours = image if image.mode == "RGB" else image.convert("RGBA").convert("RGB")
    top, left, bottom, right = box or (0, 0, image.height, image.width)
    red, green, blue = (np.asarray(channel)[top:bottom, left:right] for channel in colours.split())
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    coloured = float((highest - lowest > COLOUR_DIFFERENCE).mean())
    # Pillow's integer luma leaves grey values exactly as they are; a float sum would not.
    pixels = np.asarray(colours.convert("L"))
    if coloured == 0:
        return pixels, []
    return pixels, [f"{coloured:.2%} of the pixels are coloured: a drawn overlay or Doppler may hide tissue"]


def describe_flat_end(pixels: np.ndarray) -> list[str]:
    """The warning for a JPEG (H, W) uint8 whose last rows are of one grey: so libjpeg fills what was cut off.

    It says so to nobody, if only the end marker is there. Black or white ends are parts of many pictures.
    """
    last = int(pixels[-1, -1])
    same = (pixels == last).all(axis=1)
    rows = len(same) if same.all() else int(np.argmin(same[::-1]))
    if not (_FLAT_ROWS <= rows < len(same)) or last <= COLOUR_DIFFERENCE or last >= 255 - COLOUR_DIFFERENCE:
        return []
    return [f"its last {rows} rows are of one grey: the JPEG data may have been cut short, check the picture"]


def read_fractions(path: str) -> np.ndarray:
    """Read a grey map as (H, W) float32 in [0, 1] of the file's full depth: there a dark map means low values.

    Raises:
        InputError: as `read_picture`; or it is coloured.
    """
    image, _, _ = _decode(path, None)
    if image.mode.startswith("I;16"):
        return np.asarray(image, dtype=np.float32) / 65535
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"), dtype=np.float32) / 255
    if image.mode in ("I", "F"):
        raise InputError(path, "is no probability map: of values of 32 bits the range is not known", _MAP)
    pixels, notes = to_grey(image)
    if notes:
        raise InputError(path, f"is no probability map: {notes[0]}", _MAP)
    return pixels.astype(np.float32) / 255


def read_picture_mask(path: str, frame: int | None = None) -> np.ndarray:
    """Read one lesion mask as bool (H, W): label maps, masks of one value, soft masks; see `masks.lesion_of`.

    So masks of 0/1, 0/255, 0/65535 and palettes read alike. Transparent parts are background; a mask that only its
    alpha channel, or only the indices of its palette tell is taken from there.

    Raises:
        InputError: as `read_picture`; or its values are no mask's.
    """
    image, _, _ = _decode(path, frame)
    is_jpeg = image.format in ("JPEG", "MPO")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return lesion_of(path, np.asarray(image))
    if image.mode in ("1", "L"):
        return lesion_of(path, np.asarray(image.convert("L")), is_jpeg)
    channels = np.asarray(image.convert("RGBA"))
    colours, alpha = channels[..., :3], channels[..., 3]
    opaque = np.where(alpha[..., None] == 0, 0, colours)
    if np.ptp(alpha) > 0 and (_is_one_colour(colours) or not opaque.any()):
        return lesion_of(path, alpha)
    if image.mode == "P" and _is_one_colour(colours):
        return lesion_of(path, np.asarray(image))
    return lesion_of_colours(path, opaque, is_jpeg)


def _is_one_colour(colours: np.ndarray) -> bool:
    return bool(np.ptp(colours.reshape(-1, 3), axis=0).max() == 0)


def read_colours(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one image as it is coloured, (H, W, 3) uint8; for masks whose colour has a meaning.

    Raises:
        InputError: as `read_picture`.
    """
    image, _, _ = _decode(os.fspath(path), None)
    return np.asarray(image.convert("RGBA").convert("RGB"))


def count_picture_frames(path: str) -> int:
    """Return how many frames a file holds, without decoding them.

    Raises:
        InputError: as `read_picture`.
    """
    with _opened(path) as image:
        return _count(image)


def _decode(path: str, frame: int | None) -> tuple[Image.Image, int, list[str]]:
    """Open, check and decode one frame of a file: the upright image, which keeps its `format`; frames; warnings."""
    with _opened(path) as image:
        frames = _count(image)
        number = choose_frame(path, frames, frame)
        if number:
            image.seek(number)
        _check_before_decoding(path, image)
        is_deep = _is_deep_colour(image)
        image.load()
        _check_deep_colour(path, image, is_deep)
        upright, warnings = _upright(image)
        return upright, frames, warnings


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """The file as a lazy image; whatever goes wrong inside becomes one InputError."""
    n_bytes = check_file(path)
    try:
        # Given a file and not its name, Pillow does not map it into memory: so it tears a TIFF that lies on its side.
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            _check_size(path, image)
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(path, f"too large to decode ({error})", SCALE_DOWN) from error
    except UnidentifiedImageError as error:
        reason = f"its content ({n_bytes} bytes) is no readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
        raise InputError(path, reason, f"{CONVERT}, or {REPLACE}") from error
    except Exception as error:
        # Pillow's parsers raise OSError, SyntaxError, ValueError, struct.error, MemoryError and more on a bad file.
        reason = f"cannot be decoded: {error or type(error).__name__} ({n_bytes} bytes)"
        raise InputError(path, reason, REPLACE) from error


def _count(image: Image.Image) -> int:
    # A phone's JPEG of type MPO carries previews as further frames; its first is the picture.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _check_size(path: str, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        reason = f"{height}×{width} pixels are more than the limit of {MAX_PIXELS / 1e6:.0f} Mpx"
        raise InputError(path, reason, SCALE_DOWN)


def _check_before_decoding(path: str, image: Image.Image) -> None:
    _check_size(path, image)  # each page of a TIFF has a size of its own
    check_tiff(path, image)


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether a lazy image has more channels than one, of 16 bits, of which Pillow gives the upper 8."""
    return image.mode not in ("I", "F", "L", "1") and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _check_deep_colour(path: str, image: Image.Image, is_deep: bool) -> None:
    """Refuse deep colour whose values use the lower bits alone: little is left of them.

    Raises:
        InputError: it is one.
    """
    if not is_deep or image.mode.startswith("I;16"):
        return
    highest = max(int(np.asarray(image.getchannel(band)).max()) for band in image.getbands() if band != "A")
    if highest < 64:
        reason = f"holds colour of 16 bits whose values end at {highest} of 255: they use fewer bits than the file"
        raise InputError(path, reason, CONVERT)


def _upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    notes: list[str] = []
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception as error:
        # A damaged EXIF block says nothing of the pixels, which decoded well.
        upright = image.copy()
        notes.append(f"the EXIF block is damaged ({error}): the image is taken as it is stored")
    upright.format = image.format
    if upright.mode in ("RGBA", "LA", "PA") and len(set(upright.getchannel("A").getextrema())) > 1:
        notes.append("parts of it are transparent: they are taken as they are stored, and may look different elsewhere")
    return upright, notes
