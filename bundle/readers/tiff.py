# SPDX-License-Identifier: Apache-2.0
"""Kinds of TIFF that Pillow opens without complaint and reads wrongly: negative, wrapped, torn, black or in part."""

from __future__ import annotations

from typing import Any

from bundle.errors import InputError

from .ultrasound import CONVERT

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _COLOUR_MAP, _SAMPLE_FORMAT, _DEPTH = 258, 262, 284, 320, 339, 32997
_WHITE_IS_ZERO, _SEPARATE_PLANES, _SIGNED = 0, 2, 2


def check_tiff(path: str, image: Any) -> None:
    """Refuse an opened image whose tags are those of such a TIFF; others have no tags.

    Raises:
        InputError: it is one.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode[0] in "IF" and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # Pillow inverts such images of 8 bits, but not of more.
        raise InputError(path, "a TIFF of more than 8 bits whose zero is white", CONVERT)
    if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise InputError(path, "a TIFF of signed numbers of 8 bits, which Pillow takes for unsigned", CONVERT)
    if max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8 and tags.get(_PLANAR) == _SEPARATE_PLANES:
        raise InputError(path, "a TIFF of 16 bits per channel in planes, which Pillow tears", CONVERT)
    if image.mode == "P" and 0 < max(tags.get(_COLOUR_MAP, (0,))) < 256:
        reason = "a TIFF whose palette has 8 bits where the format has 16: all of it would be black"
        raise InputError(path, reason, CONVERT)
    if tags.get(_DEPTH, 1) > 1:
        raise InputError(path, f"a TIFF volume of {tags[_DEPTH]} slices", "save the wanted slice as a file of its own")
