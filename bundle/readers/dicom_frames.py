# SPDX-License-Identifier: Apache-2.0
"""Where the frames of a DICOM file lie. The class, Number of Frames, the bytes, the fragments and the offsets are
counted and must agree: a cine whose count is missing or whose offset table is wrong shows no frame in another's place.

Of a cine that was cut short, the frames that are whole can be read, with a warning.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from bundle.errors import InputError

from .dicom import MULTI_FRAME_CLASSES, whole
from .dicom_bytes import bytes_of_422, check_frame_bytes, raw_bytes
from .dicom_fragments import ITEM_TAG, Item, begins_stream, check_table, list_items
from .pydicom2 import encoding_of
from .ultrasound import REPLACE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
"""Transfer syntaxes without compression, but for the deflated one, which is inflated before."""

RLE = "1.2.840.10008.1.2.5"
_UNDEFINED = 0xFFFFFFFF
_CUT_SHORT = "the file was cut short"


@dataclass(frozen=True)
class Frames:
    """The frames of a file that are whole.

    Args:
        count: how many.
        start: first byte of the uncompressed pixels in the file.
        frame_bytes: of one uncompressed frame.
        fragments: of each compressed frame; empty where nothing is compressed.
        notes: what a reader of the result should know.
        vr: value representation of the pixel element, "" where none is written.
    """

    count: int
    start: int = 0
    frame_bytes: int = 0
    fragments: tuple[tuple[Item, ...], ...] = ()
    notes: tuple[str, ...] = ()
    vr: str = ""

    def read(self, content: BinaryIO, number: int) -> bytes:
        """Return the bytes of one frame as they are stored."""
        items = self.fragments[number] if self.fragments else ()
        parts = items or [(self.start + number * self.frame_bytes, self.frame_bytes)]
        data = []
        for offset, length in parts:
            content.seek(offset)
            data.append(content.read(length))
        return b"".join(data)


def locate_frames(path: str, header: Dataset, content: BinaryIO) -> Frames:
    """Find and count the frames.

    Args:
        path: for errors.
        header: read before, its rows, columns and kind of pixels checked.
        content: the file, positioned at the pixel element.

    Raises:
        InputError: there is no pixel element or no whole frame, or what is counted does not agree.
    """
    length, vr = enter(path, header, content)
    if str(header.file_meta.TransferSyntaxUID) in NATIVE:
        return replace(_locate_native(path, header, content, length), vr=vr)
    return replace(_locate_fragments(path, header, content), vr=vr)


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
        mend = "convert it with a DICOM tool to RGB or MONOCHROME2 of 8 bits, uncompressed"
        raise InputError(path, "its pixels are floating point numbers, which are not read", mend)
    if implicit:
        return struct.unpack(order + "L", start[4:])[0], ""
    return struct.unpack(order + "L", content.read(4))[0], start[4:6].decode("ascii")


def check_present(path: str, content: BinaryIO, length: int, expected: int) -> int:
    """Compare the bytes that the header claims with what the file holds; return how many there are.

    Raises:
        InputError: there are fewer.
    """
    present = _present(content, length)
    if present < expected:
        raise InputError(path, f"holds {present} bytes of pixels where its header claims {expected}", REPLACE)
    return present


def _claimed(header: Dataset) -> int | None:
    """Number of Frames, or None where the header says none or nonsense."""
    number = whole(header.get("NumberOfFrames"), 0)
    return number if number > 0 else None


def _locate_native(path: str, header: Dataset, content: BinaryIO, length: int) -> Frames:
    begins = content.read(4)
    content.seek(-len(begins), io.SEEK_CUR)
    if length == _UNDEFINED or begins == ITEM_TAG:
        reason = "its pixels are in fragments, as compressed ones are, but its transfer syntax is an uncompressed one"
        raise InputError(path, reason, REPLACE)
    start, claimed = content.tell(), _claimed(header)
    present = _present(content, length)
    frame = raw_bytes(header)
    if header.PhotometricInterpretation == "YBR_FULL_422":
        frame = bytes_of_422(path, header, present, claimed)
    count = present // frame
    if count < 1:
        check_present(path, content, length, frame * (claimed or 1))
    excess = present - count * frame
    odd = f"holds {excess} bytes more than its header claims: its rows and columns may be wrong, check the picture"
    notes = (odd,) if excess > 1 else ()
    if claimed is None:
        return Frames(count, start, frame, notes=(*_uncounted(path, header, count), *notes))
    if count > claimed:
        reason = f"claims {claimed} frame{'s'[: claimed > 1]} and holds the bytes of {count}"
        raise InputError(path, f"{reason}: rows, columns, bits or frames are not those of its pixels", REPLACE)
    if count < claimed:
        if not _is_cine(header):
            check_present(path, content, length, frame * claimed)
        check_frame_bytes(path, header, content, present, claimed)
        return Frames(count, start, frame, notes=(_short(count, claimed),))
    return Frames(count, start, frame, notes=notes)


def _uncounted(path: str, header: Dataset, count: int) -> tuple[str, ...]:
    """The warning for frames that only the data count.

    Raises:
        InputError: there are several in a class of single images.
    """
    if count == 1:
        return ()
    if not _is_cine(header):
        reason = f"is of a class of single images, says no Number of Frames and holds {count}"
        raise InputError(path, reason, "export it as Ultrasound Multi-frame Image, or one frame of it")
    return (f"does not say its Number of Frames: {count} are counted in it",)


def _locate_fragments(path: str, header: Dataset, content: BinaryIO) -> Frames:
    table, items = list_items(path, content)
    table = table or _extended_table(header)
    runs_only = str(header.file_meta.TransferSyntaxUID) == RLE  # of which one fragment is one frame
    starts = [number for number, item in enumerate(items) if runs_only or begins_stream(content, item)]
    if items and starts[:1] != [0]:
        raise InputError(path, "its first fragment of pixels begins no picture of its transfer syntax", REPLACE)
    claimed, notes = _claimed(header), check_table(path, table, items, starts, _claimed(header))
    groups = [tuple(items[first:end]) for first, end in zip(starts, [*starts[1:], len(items)], strict=True)]
    if items and items[-1][0] + items[-1][1] > content.seek(0, io.SEEK_END):
        del items[-1], groups[-1]
    count = len(groups)
    if not count:
        raise InputError(path, f"holds no whole frame of pixels: {_CUT_SHORT}", REPLACE)
    if claimed is None:
        return Frames(count, fragments=tuple(groups), notes=(*notes, *_uncounted(path, header, count)))
    if count > claimed or (count < claimed and not _is_cine(header)) or (count < claimed == len(items)):
        reason = f"claims {claimed} frame{'s'[: claimed > 1]} and holds {count} in {len(items)} fragments"
        raise InputError(path, reason, REPLACE)
    if count < claimed:
        notes.append(_short(count, claimed))
    return Frames(count, fragments=tuple(groups), notes=tuple(notes))


def _extended_table(header: Dataset) -> list[int]:
    """The offsets of an Extended Offset Table, which stands in the header; none where there is none."""
    raw = header.get("ExtendedOffsetTable") or b""
    return list(struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8]))


def _is_cine(header: Dataset) -> bool:
    return str(header.get("SOPClassUID", "")) in MULTI_FRAME_CLASSES


def _short(count: int, claimed: int) -> str:
    return f"holds {count} whole frames of the {claimed} that its header claims: {_CUT_SHORT}, or its cine interrupted"


def _present(content: BinaryIO, length: int) -> int:
    here = content.tell()
    present = min(content.seek(0, io.SEEK_END) - here, length)
    content.seek(here)
    return present
