# SPDX-License-Identifier: Apache-2.0
"""One frame of a DICOM file, decoded by pydicom and permissively licensed decoders after its claims were checked.

The size that a compressed frame states for itself is compared with the header's before it is decoded, and each
transfer syntax has one decoder: what a damaged file can reach is a known list.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from bundle.errors import InputError

from .dicom import name_of, whole
from .pydicom2 import decode_alone, encapsulated_frame, encoding_of, has_decoders
from .ultrasound import REPLACE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
_RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
PLUGINS = {
    _RLE: "pydicom",
    **{_JPEG + kind: "pillow" for kind in ("50", "51")},
    **{_JPEG + kind: "pyjpegls" for kind in ("80", "81")},
    **{_JPEG + kind: "pylibjpeg" for kind in ("90", "91", "201", "202", "203")},
}
"""Transfer syntax -> pydicom's name of the decoder: RLE, JPEG baseline and LS, JPEG 2000 and HTJ2K."""

LOSSLESS = {_JPEG + kind for kind in ("57", "70")}
"""JPEG lossless, which Pillow decodes without pydicom. GDCM does too, but it ends the process at a damaged stream."""


MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MAX_PALETTE = 65536
_SLACK = 1 << 16
"""Bytes of headers that a compressed frame may have beyond its raw size."""


def decode_frame(path: str, header: Dataset, content: BinaryIO, number: int) -> tuple[np.ndarray, str]:
    """Return the pixels of one frame, (H, W) or RGB (H, W, 3), and what they are: see `MONOCHROME`, PALETTE COLOR, RGB.

    Args:
        path: for errors.
        header: read before, its rows, columns and frames checked.
        content: the file, positioned at the pixel element.
        number: of the frame, from 0.

    Raises:
        InputError: a syntax or kind of pixels that is not read, or less data than the header claims.
    """
    check_is_read(path, header)
    syntax = str(header.file_meta.TransferSyntaxUID)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        _check_palette(path, header)
    length, vr = enter(path, header, content)
    frames = whole(header.get("NumberOfFrames") or 1, 1)
    if syntax in NATIVE:
        check_present(path, content, length, _raw_bytes(header) * frames)
    if syntax in LOSSLESS:
        values, photometric = _decode_lossless(path, header, _encoded_frame(path, header, content, number, syntax))
    elif has_decoders():
        values, photometric = _decode(path, header, content, number, vr)
    elif syntax in NATIVE:
        content.seek(number * _raw_bytes(header), io.SEEK_CUR)
        values, photometric = decode_alone(path, header, content.read(_raw_bytes(header)), syntax)
    else:
        values, photometric = decode_alone(path, header, _encoded_frame(path, header, content, number, syntax), syntax)
    expected = (whole(header.Rows, 0), whole(header.Columns, 0))
    if values.shape[:2] != expected:
        raise InputError(path, f"decodes to {values.shape}, but its header says {expected}", REPLACE)
    return values, photometric


def _decode(path: str, header: Dataset, content: BinaryIO, number: int, vr: str) -> tuple[np.ndarray, str]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    syntax = str(header.file_meta.TransferSyntaxUID)
    options = {**as_pixel_options(header), "pixel_keyword": "PixelData"}
    options.pop("extended_offsets", None)
    if vr:
        options["pixel_vr"] = vr
    decoder = get_decoder(syntax)
    if syntax in NATIVE:
        values, found = decoder.as_array(content, index=number, **options)
    else:
        encoded = encapsulate([_encoded_frame(path, header, content, number, syntax)])
        options["number_of_frames"] = 1
        values, found = decoder.as_array(encoded, index=0, decoding_plugin=PLUGINS[syntax], **options)
    return values, str(found["photometric_interpretation"])


def _unread(path: str, reason: str) -> InputError:
    return InputError(path, reason, "convert it with a DICOM tool to RGB or MONOCHROME2 of 8 bits, uncompressed")


def check_is_read(path: str, header: Dataset) -> None:
    """Refuse transfer syntaxes and kinds of pixels that are not read, and numbers that contradict each other.

    Raises:
        InputError: it is one of these.
    """
    syntax = str(header.file_meta.TransferSyntaxUID)
    if syntax not in NATIVE and syntax not in PLUGINS and syntax not in LOSSLESS:
        raise _unread(path, f"its transfer syntax {name_of(syntax)} ({syntax}) is not read")
    photometric = str(header.get("PhotometricInterpretation", "not told"))
    if photometric not in (*MONOCHROME, *COLOUR, "PALETTE COLOR"):
        raise _unread(path, f"its photometric interpretation is {photometric}, which is not read")
    samples, allocated, stored = (
        whole(header.get(key), 0) for key in ("SamplesPerPixel", "BitsAllocated", "BitsStored")
    )
    if samples != (3 if photometric in COLOUR else 1):
        raise InputError(path, f"claims {samples} samples per pixel of {photometric}", REPLACE)
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise _unread(path, f"has {stored} bits stored in {allocated}; 8 and 16 are read")


def enter(path: str, header: Dataset, content: BinaryIO) -> tuple[int, str]:
    """Move to the first byte of the pixel element's value; return its length and its VR, "" where none is written.

    Raises:
        InputError: there is no pixel element, or one of floating point numbers.
    """
    implicit, little = encoding_of(header)
    order = "<" if little else ">"
    start = content.read(8)
    if len(start) < 8:
        raise InputError(path, "holds no pixels", "give a file with an image")
    group, element = struct.unpack(order + "HH", start[:4])
    if (group, element) != (0x7FE0, 0x0010):
        raise _unread(path, "its pixels are floating point numbers, which are not read")
    if implicit:
        return struct.unpack(order + "L", start[4:])[0], ""
    return struct.unpack(order + "L", content.read(4))[0], start[4:6].decode("ascii")


def _raw_bytes(header: Dataset) -> int:
    """The size of one frame, uncompressed."""
    pixels = whole(header.Rows, 0) * whole(header.Columns, 0)
    samples = 2 if header.PhotometricInterpretation == "YBR_FULL_422" else whole(header.SamplesPerPixel, 1)
    return pixels * samples * whole(header.BitsAllocated, 8) // 8


def check_present(path: str, content: BinaryIO, length: int, expected: int) -> None:
    """Compare the bytes that the header claims with what the file holds: less is refused, padding is normal.

    Raises:
        InputError: there are fewer.
    """
    here = content.tell()
    present = min(content.seek(0, io.SEEK_END) - here, length)
    content.seek(here)
    if present < expected:
        raise InputError(path, f"holds {present} bytes of pixels where its header claims {expected}", REPLACE)


def _encoded_frame(path: str, header: Dataset, content: BinaryIO, number: int, syntax: str) -> bytes:
    """Take one compressed frame out of the file and check it."""
    offsets = (header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths"))
    frames = whole(header.get("NumberOfFrames") or 1, 1)
    if has_decoders():
        from pydicom.encaps import get_frame

        frame = get_frame(content, number, number_of_frames=frames, extended_offsets=offsets if all(offsets) else None)
    else:
        frame = encapsulated_frame(content, number, frames)
    raw = _raw_bytes(header) * (3 if header.PhotometricInterpretation == "YBR_FULL_422" else 2) // 2
    if len(frame) > 2 * raw + _SLACK:
        raise InputError(path, f"frame {number} has {len(frame)} bytes for {raw} bytes of pixels", REPLACE)
    if syntax == _RLE:
        _check_run_lengths(path, frame, raw)
    else:
        size, expected = _stated_size(frame), (whole(header.Rows, 0), whole(header.Columns, 0))
        if size != expected:
            stated = "no size" if size is None else f"{size[0]}×{size[1]} pixels"
            reason = f"frame {number} states {stated} where the header says {expected[0]}×{expected[1]}"
            raise InputError(path, reason, REPLACE)
    return frame


def _decode_lossless(path: str, header: Dataset, frame: bytes) -> tuple[np.ndarray, str]:
    photometric = str(header.PhotometricInterpretation)
    if whole(header.BitsAllocated, 0) != 8 or photometric.startswith("YBR"):
        raise _unread(
            path, f"is JPEG lossless of {header.BitsAllocated} bits, {photometric}; 8 bits, not YBR, are read"
        )
    with Image.open(io.BytesIO(frame), formats=("JPEG",)) as image:
        if image.mode != ("RGB" if photometric == "RGB" else "L"):
            raise InputError(path, f"its JPEG stream is {image.mode} where its header says {photometric}", REPLACE)
        return np.array(image), photometric


def _stated_size(frame: bytes) -> tuple[int, int] | None:
    """The (H, W) that a JPEG, JPEG-LS or JPEG 2000 stream states for itself."""
    if frame[:2] != b"\xff\xd8":
        with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as image:  # lazy: only the header is parsed
            return image.size[1], image.size[0]
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # JPEG-LS or JPEG frame
            height, width = struct.unpack(">HH", frame[position + 5 : position + 9])
            return height, width
        position += 2 + struct.unpack(">H", frame[position + 2 : position + 4])[0]
    return None


def _check_run_lengths(path: str, frame: bytes, raw: int) -> None:
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
            if unpacked > raw + _SLACK:
                raise InputError(path, f"its RLE unpacks to more than {raw} bytes", REPLACE)


def _check_palette(path: str, header: Dataset) -> None:
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
