# SPDX-License-Identifier: Apache-2.0
"""What compressed pixels and palettes claim of themselves, checked before anything is decoded."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from bundle.errors import InputError

from .dicom import whole
from .pydicom2 import encoding_of
from .ultrasound import REPLACE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SLACK = 1 << 16
"""Bytes of headers that a compressed frame may have beyond its raw size."""

_MAX_PALETTE = 65536


@dataclass(frozen=True)
class JpegClaims:
    """What the markers of a JPEG or JPEG-LS stream say.

    Args:
        size: (H, W).
        bits: of a sample.
        ids: of the components.
        subsampled: the first component has more samples than the others, as luma has.
        adobe: colour transform of Adobe's marker: 0 none, 1 YCbCr; None without the marker.
        jfif: whether the JFIF marker is there, which promises grey or YCbCr.
    """

    size: tuple[int, int]
    bits: int
    ids: tuple[int, ...]
    subsampled: bool
    adobe: int | None
    jfif: bool

    @property
    def space(self) -> str | None:
        """RGB or YBR, where the stream tells by what can not be otherwise; None where it does not."""
        if len(self.ids) != 3:
            return None
        if self.subsampled or self.adobe == 1:
            return "YBR"
        return "RGB" if self.adobe == 0 or bytes(self.ids) in (b"RGB", b"rgb") else None


def jpeg_claims(frame: bytes) -> JpegClaims | None:
    """Read the markers up to the frame header; None where there is none."""
    position, adobe, jfif = 2, None, False
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = struct.unpack(">H", frame[position + 2 : position + 4])[0]
        body = frame[position + 4 : position + 2 + length]
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        jfif = jfif or (marker == 0xE0 and body[:4] == b"JFIF")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # JPEG-LS or JPEG frame
            bits, height, width, count = struct.unpack(">BHHB", body[:6])
            parts = [body[6 + 3 * part : 9 + 3 * part] for part in range(count)]
            if any(len(part) < 3 for part in parts):
                return None
            factors = [(part[1] >> 4) * (part[1] & 15) for part in parts]
            is_luma = len(parts) == 3 and factors[0] > max(factors[1:])
            return JpegClaims((height, width), bits, tuple(part[0] for part in parts), is_luma, adobe, jfif)
        position += 2 + length
    return None


def stated_size(frame: bytes) -> tuple[int, int] | None:
    """The (H, W) that a JPEG, JPEG-LS or JPEG 2000 stream states for itself."""
    if frame[:2] != b"\xff\xd8":
        with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as image:  # lazy: only the header is parsed
            return image.size[1], image.size[0]
    claims = jpeg_claims(frame)
    return None if claims is None else claims.size


def check_run_lengths(path: str, frame: bytes, raw: int) -> None:
    """Refuse RLE that would unpack to more than the frame: two bytes may stand for 128."""
    segments = struct.unpack("<16L", frame[:64])
    count = segments[0]
    ends = [*segments[2 : count + 1], len(frame)]
    if not 1 <= count <= 15:
        raise InputError(path, f"claims {count} RLE segments", REPLACE)
    unpacked = 0
    for start, end in zip(segments[1 : count + 1], ends, strict=True):
        position = start
        while position < min(end, len(frame)):
            control = frame[position]
            position += control + 2 if control < 128 else 2
            unpacked += control + 1 if control < 128 else (257 - control) % 129
            if unpacked > raw + SLACK:
                raise InputError(path, f"its RLE unpacks to more than {raw} bytes", REPLACE)


def check_palette(path: str, header: Dataset) -> None:
    """Refuse segmented palettes that would unpack to more entries than a palette can have."""
    for colour in ("Red", "Green", "Blue"):
        data = header.get(f"Segmented{colour}PaletteColorLookupTableData")
        if data is None:
            continue
        descriptor = header.get(f"{colour}PaletteColorLookupTableDescriptor")
        wide = whole(descriptor[2], 16) > 8 if descriptor else True
        order = "<" if encoding_of(header)[1] else ">"
        entries = struct.unpack(f"{order}{len(data) // 2}H", data[: len(data) // 2 * 2]) if wide else tuple(data)
        total = _count_segments(entries, 0, None, wide)
        if total > _MAX_PALETTE:
            raise InputError(path, f"its {colour.lower()} palette unpacks to {total} entries or more", REPLACE)


def _count_segments(entries: tuple[int, ...], position: int, most: int | None, wide: bool) -> int:
    """Count what the segments from a position on unpack to; beyond the limit it stops."""
    total, read = 0, 0
    while position + 1 < len(entries) and total <= _MAX_PALETTE and read != most:
        kind, length = entries[position], entries[position + 1]
        position += 2
        if kind == 2:
            if most is not None:
                return _MAX_PALETTE + 1  # an indirect segment must not lead to another
            target = entries[position + 1] << 16 | entries[position] if wide else 0
            total += _count_segments(entries, target, length, wide) if wide else _MAX_PALETTE + 1
            position += 2
        else:
            total += length
            position += length if kind == 0 else 1
        read += 1
    return total
