# SPDX-License-Identifier: Apache-2.0
"""The front door of the readers: which reader a file needs, and which of its frames is meant."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from .image import count_picture_frames, read_picture, read_picture_mask
from .ultrasound import UltrasoundImage


def read_image(path: str | os.PathLike[str], frame: int | None = None) -> UltrasoundImage:
    """Read one image as grey (H, W), float32 in [0, 255]; the format is known by the content, not by the name.

    Args:
        path: the file; `cine.dcm[3]` names frame 3 of `cine.dcm`, unless there is a file of that very name.
        frame: of a file of several, from 0.

    Raises:
        InputError: the file is missing, damaged, too large, of no known format, or holds several frames and none is
            named.
    """
    file, named = split_frame(path)
    return read_picture(file, named if frame is None else frame)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one lesion mask as bool (H, W) at its stored size.

    Raises:
        InputError: as `read_image`.
    """
    return read_picture_mask(path)


def count_frames(path: str | os.PathLike[str]) -> int:
    """Return how many frames a file holds by its header; no pixel is decoded.

    Raises:
        InputError: the header can not be read.
    """
    file, named = split_frame(path)
    return count_picture_frames(file) if named is None else 1


def split_frame(path: str | os.PathLike[str]) -> tuple[str, int | None]:
    """Split `cine.dcm[3]` into the file and the frame; the frame is None where none is named.

    A manifest, a datalist and a result name one frame of a file so; it keeps "one name, one image" true.
    """
    name = os.fspath(path)
    match = re.fullmatch(r"(.+)\[(\d{1,6})\]", name, flags=re.DOTALL)
    if match is None or Path(name).is_file():
        return name, None
    return match[1], int(match[2])
