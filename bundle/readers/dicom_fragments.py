# SPDX-License-Identifier: Apache-2.0
"""The fragments of compressed DICOM pixels (PS3.5, A.4), and whether their offset table is to be believed."""

from __future__ import annotations

import io
import itertools
import struct
from typing import BinaryIO, TypeAlias

from bundle.errors import InputError

from .ultrasound import REPLACE

Item: TypeAlias = tuple[int, int]
"""Where the value of one fragment begins in the file, and its length in bytes."""

ITEM_TAG = b"\xfe\xff\x00\xe0"
_MAX_ITEMS = 400_000
_STREAM_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
"""JPEG and JPEG-LS, JPEG 2000 and HTJ2K, and the same in a JP2 file."""


def list_items(path: str, content: BinaryIO) -> tuple[list[int], list[Item]]:
    """Return the offset table's entries, and the fragments; the last may reach beyond the end of the file.

    Raises:
        InputError: there are none, or more than the limit.
    """
    items: list[Item] = []
    end = content.tell()
    size = content.seek(0, io.SEEK_END)
    while len(items) <= _MAX_ITEMS:
        content.seek(end)
        head = content.read(8)
        if len(head) < 8 or head[:4] != ITEM_TAG:
            break
        length = struct.unpack("<L", head[4:])[0]
        items.append((end + 8, length))
        end += 8 + length
        if end > size:
            break
    else:
        raise InputError(path, f"has more than {_MAX_ITEMS} fragments of pixels", REPLACE)
    if not items:
        raise InputError(path, "its transfer syntax is a compressed one, but its pixels are not in fragments", REPLACE)
    content.seek(items[0][0])
    raw = content.read(min(items[0][1], 4 * _MAX_ITEMS))
    table = list(struct.unpack(f"<{len(raw) // 4}L", raw[: len(raw) // 4 * 4]))
    return table, [item for item in items[1:] if item[1]]


def check_table(path: str, table: list[int], items: list[Item], starts: list[int], claimed: int | None) -> list[str]:
    """Compare the offset table with where frames begin: it is believed if it grows and each offset is an item's.

    Raises:
        InputError: it is to be believed, and says something else.
    """
    places = [offset - items[0][0] for offset, _ in items]
    if not table or [places[start] for start in starts] == table[: len(starts)]:
        return []
    grows = table[0] == 0 and all(one < other for one, other in itertools.pairwise(table))
    if grows and set(table) <= set(places) and len(table) == claimed:
        raise InputError(path, "its offset table and its fragments give the frames other beginnings", REPLACE)
    return ["its offset table is wrong: the frames are taken as they follow each other"]


def begins_stream(content: BinaryIO, item: Item) -> bool:
    """Whether a fragment begins with a picture, rather than going on with one."""
    content.seek(item[0])
    return content.read(min(8, item[1])).startswith(_STREAM_STARTS)
