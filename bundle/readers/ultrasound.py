# SPDX-License-Identifier: Apache-2.0
"""What every reader returns, and the limits that every reader keeps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import ImageFile

from bundle.errors import InputError

from .contrast import GreyLevels, count_grey, why_unusable

MAX_PIXELS = 25_000_000
"""Above this an image is refused before it is decoded: a PNG of 160 KB can hold 169 million pixels."""

CONVERT = "convert it to an 8-bit grey PNG"
REPLACE = "replace it or leave it out (of a dataset by scripts/prepare_data.py --skip-bad)"
SCALE_DOWN = f"scale it down to at most {MAX_PIXELS / 1e6:.0f} Mpx"


@dataclass(frozen=True)
class UltrasoundImage:
    """One image as it was stored, and what is known of it.

    Args:
        pixels: (H, W), float32, grey values in [0, 255]: the whole frame, upright.
        spacing_mm: (row, column) distance of pixel centres in mm, or None where the file does not tell.
        warnings: what a reader of the result should know, one sentence each.
        region: (top, left, bottom, right), half-open, of the 2-D tissue in the frame; None where all of it is taken.
        frame: of a file of several frames, from 0; None for a file of one.
        frames: how many the file holds.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None
    warnings: tuple[str, ...]
    region: tuple[int, int, int, int] | None = None
    frame: int | None = None
    frames: int = 1

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The region, or the whole frame where there is none: (top, left, bottom, right), half-open."""
        return self.region or (0, 0, self.pixels.shape[0], self.pixels.shape[1])

    @property
    def tissue(self) -> np.ndarray:
        """The pixels of the region, (h, w): what the networks see."""
        return self.cut(self.pixels)

    @functools.cached_property
    def unusable(self) -> str | None:
        """Why the tissue shows nothing, see `why_unusable`; it is looked at once."""
        return why_unusable(self.tissue, self.grey)

    @functools.cached_property
    def grey(self) -> GreyLevels:
        """The grey levels of the tissue; they are counted once."""
        return count_grey(self.tissue)

    def warned(self, warnings: Sequence[str]) -> UltrasoundImage:
        """The same image, of which more is known; what was counted of it is kept."""
        image = replace(self, warnings=(*self.warnings, *warnings))
        vars(image).update({name: value for name, value in vars(self).items() if name not in vars(image)})
        return image

    def cut(self, values: np.ndarray) -> np.ndarray:
        """The region of a map (…, H, W) of the whole frame, such as a mask."""
        top, left, bottom, right = self.box
        return values[..., top:bottom, left:right]


def check_file(path: str) -> int:
    """Return the size of a file in bytes; every reader calls it before it opens one.

    Raises:
        InputError: it is missing, no regular file, or empty.
    """
    # Some libraries (WeasyPrint) turn it on for the whole process: half an image would be read as one.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    file = Path(path)
    try:
        if not file.exists():
            raise InputError(path, "no such file", "check the path")
        if not file.is_file():
            raise InputError(path, "is a folder or a device, not an image file", "name one image file")
        n_bytes = file.stat().st_size
    except (OSError, ValueError) as error:  # a name that the file system refuses
        raise InputError(path, f"can not be opened ({error})", "check the path and its permissions") from error
    if n_bytes == 0:
        raise InputError(path, "the file is empty (0 bytes)", REPLACE)
    return n_bytes


def plain(text: str) -> str:
    """A file's own words on one line of at most 200 characters, without what a terminal would take for a command."""
    line = " ".join(text.split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def choose_frame(path: str, frames: int, frame: int | None) -> int:
    """Return the index of the frame to read, 0 for a file of one.

    Raises:
        InputError: the file holds several and none is named, or the named one is not there.
    """
    if frame is None:
        if frames > 1:
            mend = f"name one of them, 0 to {frames - 1}: {path}[0] is the first"
            raise InputError(path, f"holds {frames} frames, not one image", mend)
        return 0
    if not 0 <= frame < frames:
        raise InputError(path, f"has no frame {frame}", f"it holds {frames}, counted from 0")
    return frame
