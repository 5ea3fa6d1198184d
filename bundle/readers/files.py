# SPDX-License-Identifier: Apache-2.0
"""The front door of the readers: which reader a file needs, and which of its frames is meant."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle.errors import InputError, NotAnImageError

from .clips import count_clip_frames, is_clip, read_clip
from .contrast import describe_negative
from .depth import describe_levels
from .dicom_image import count_dicom_frames, read_dicom
from .dicom_seg import read_segmentation
from .image import count_picture_frames, read_picture, read_picture_mask
from .nifti import GZIP, count_nifti_frames, is_nifti, read_nifti, read_nifti_mask
from .ultrasound import UltrasoundImage

DICOM, NIFTI, PICTURE, CLIP = "DICOM", "NIfTI", "picture", "clip"

_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""How `._scan.png` begins, in which macOS keeps what other file systems can not hold of `scan.png`."""


def read_image(path: str | os.PathLike[str], frame: int | None = None, upcoming: Sequence[int] = ()) -> UltrasoundImage:
    """Read one image as grey (H, W), float32 in [0, 255]; the format is known by the content, not by the name.

    Args:
        path: the file; `cine.dcm[3]` names frame 3 of `cine.dcm`, unless there is a file of that very name.
        frame: of a file of several, from 0.
        upcoming: frames of a video that will be asked for as well: in their order, it is decoded once for all of them.

    Raises:
        InputError: the file is missing, damaged, too large, of no known format, or holds several frames and none is
            named.
        NotAnImageError: it is whole, and something else: a report, a mask or a result of ours, or a side file.
    """
    file, named = split_frame(path)
    number = named if frame is None else frame
    kind = _image_kind(file)
    if kind in (DICOM, CLIP):
        image = (read_dicom if kind == DICOM else read_clip)(file, number, upcoming)
    else:
        image = (read_nifti if kind == NIFTI else read_picture)(file, number)
    return image.warned([*describe_levels(image.tissue, image.grey.counts), *describe_negative(image.grey)])


def read_mask(path: str | os.PathLike[str], image: str | os.PathLike[str] | None = None) -> np.ndarray:
    """Read one lesion mask as bool (H, W) at its stored size: a picture, a NIfTI slice or a BINARY DICOM SEG.

    What of its values is lesion: see `masks.lesion_of`.

    Args:
        path: the file, or one frame of it as in `read_image`.
        image: that it belongs to, as `read_image` would be given it; tells which frames of a DICOM SEG are meant, and
            whether a NIfTI mask is turned as its image is.

    Raises:
        InputError: as `read_image`; or a DICOM SEG belongs to another image.
    """
    file, number = split_frame(path)
    kind = _image_kind(file)
    source, frame = (None, None) if image is None else split_frame(image)
    if source is not None and kind_of(source) != kind:
        source = None
    if kind == DICOM:
        return read_segmentation(file, source, frame)
    if kind == CLIP:
        raise InputError(path, "is a video, not a mask", "give a picture, a NIfTI slice or a DICOM SEG")
    return read_nifti_mask(file, number, source) if kind == NIFTI else read_picture_mask(file, number)


def count_frames(path: str | os.PathLike[str]) -> int:
    """Return how many frames can be read of a file: what its header claims and what it holds must agree.

    No picture is decoded, but of a video all are: nothing else tells how many there are.

    Raises:
        InputError: the header can not be read, or they do not agree.
        NotAnImageError: as `read_image`.
    """
    file, named = split_frame(path)
    if named is not None:
        return 1
    count = {
        **{DICOM: count_dicom_frames, NIFTI: count_nifti_frames},
        **{PICTURE: count_picture_frames, CLIP: count_clip_frames},
    }
    return count[_image_kind(file)](file)


def _image_kind(path: str) -> str:
    """`kind_of`, once it is known that the file is no macOS side file.

    Raises:
        NotAnImageError: it is one.
    """
    try:
        with open(path, "rb") as file:
            is_side_file = file.read(4) == _APPLE_DOUBLE
    except (OSError, ValueError):
        is_side_file = False  # the readers say what is wrong with it
    if is_side_file:
        reason = "is a side file of macOS (AppleDouble), not an image"
        raise NotAnImageError(path, reason, "leave it out", "side files of macOS")
    return kind_of(path)


def kind_of(path: str | os.PathLike[str]) -> str:
    """Return `DICOM`, `NIFTI`, `CLIP` or `PICTURE` by a file's first bytes; what can not be opened is a picture."""
    try:
        with open(path, "rb") as file:
            start = file.read(540)
    except (OSError, ValueError):
        return PICTURE
    if start[128:132] == b"DICM":
        return DICOM
    if is_clip(start):
        return CLIP
    # Nothing else that is read begins as gzip does.
    return NIFTI if start[:2] == GZIP or is_nifti(start) else PICTURE


def split_frame(path: str | os.PathLike[str]) -> tuple[str, int | None]:
    """Split `cine.dcm[3]` into the file and the frame; the frame is None where none is named.

    A manifest, a datalist and a result name one frame of a file so; it keeps "one name, one image" true.
    """
    name = os.fspath(path)
    match = re.fullmatch(r"(.+)\[(\d{1,6})\]", name, flags=re.DOTALL)
    if match is None or Path(name).is_file():
        return name, None
    return match[1], int(match[2])
