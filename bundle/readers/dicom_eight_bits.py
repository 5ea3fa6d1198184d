# SPDX-License-Identifier: Apache-2.0
"""Colour of 8 bits of DICOM colours and palettes, whatever depth they are stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .depth import describe_depth, usual_depth
from .dicom import whole
from .pydicom2 import encoding_of, lookup_tables

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def eight_bits(values: np.ndarray, header: Dataset, photometric: str) -> tuple[Image.Image, list[str]]:
    """RGB of 8 bits of palette (H, W) or RGB (H, W, 3) pixels, and a warning where the depth is not the header's."""
    depth, notes = whole(header.BitsStored, 8), []
    if photometric == "PALETTE COLOR":
        _swap_big_endian_palette(header)
        values = lookup_tables().apply_color_lut(values, header)[..., :3]
        depth = _palette_depth(header, values)
        values = np.minimum(values, 2**depth - 1)
    elif depth > 8:
        used = usual_depth(values, depth)
        notes, depth = describe_depth(values, used, depth), used
        values = np.minimum(values, 2**depth - 1)
    if depth > 8:
        values = values >> (depth - 8)
    return Image.fromarray(np.ascontiguousarray(values, dtype=np.uint8), "RGB"), notes


def _palette_depth(header: Dataset, values: np.ndarray) -> int:
    """Bits of a palette's entries: some scanners call entries 16 bits deep that hold 8. All tell, not a frame's."""
    stated = whole(header.RedPaletteColorLookupTableDescriptor[2], 16)
    tables = [header.get(f"{colour}PaletteColorLookupTableData") for colour in ("Red", "Green", "Blue")]
    if stated <= 8 or None in tables:
        return 8 if values.max() < 256 else stated
    entries = np.concatenate([np.frombuffer(table[: len(table) // 2 * 2], dtype="<u2") for table in tables])
    return usual_depth(np.append(entries, values.max()), stated)


def _swap_big_endian_palette(header: Dataset) -> None:
    """Put the words of a big-endian palette in order: pydicom takes them as they lie in the file."""
    for colour in ("Red", "Green", "Blue"):
        key = f"{colour}PaletteColorLookupTableData"
        if not encoding_of(header)[1] and key in header:
            header[key].value = np.frombuffer(header[key].value, dtype=">u2").astype("<u2").tobytes()
