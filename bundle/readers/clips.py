# SPDX-License-Identifier: Apache-2.0
"""Clips as hand-held scanners store them: MP4, QuickTime, AVI, Matroska and WebM files as grey frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from PIL import Image

from .image import to_grey
from .ultrasound import UltrasoundImage, check_file, choose_frame
from .video import check_bytes, count_video_frames, decode_video_frame
from .video_process import Counted, Stream

_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot")
"""What a QuickTime file begins with; MP4 is one, and so are some still pictures, known by their brand."""

_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1", b"crx ")
_MATROSKA = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_CUT = "the file was cut short: its last frames are missing"


def is_clip(start: bytes) -> bool:
    """Whether a file begins as a clip does."""
    if start[4:8] in _BOXES:
        return not (start[4:8] == b"ftyp" and start[8:12] in _STILL_BRANDS)
    return start[:4] == _MATROSKA or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")


def read_clip(path: str, frame: int | None = None, upcoming: Sequence[int] = ()) -> UltrasoundImage:
    """Read one frame of a clip as grey (H, W), float32 in [0, 255]; colour becomes luma, the spacing is not known.

    Args:
        path: the file.
        frame: from 0; may be None for a clip of one.
        upcoming: frames that will be asked for as well, see `decode_video_frame`.

    Raises:
        InputError: it is above a limit, can not be decoded, has no such frame; or several and none is named.
    """
    stream = _stream_of(path)
    counted = count_video_frames(stream)
    number = choose_frame(path, counted.frames, frame)
    grey, notes = to_grey(Image.fromarray(decode_video_frame(stream, number, upcoming)))
    return UltrasoundImage(
        grey.astype("float32"),
        None,
        (*_describe_damage(path, counted), *notes),
        frame=None if counted.frames == 1 else number,
        frames=counted.frames,
    )


def count_clip_frames(path: str) -> int:
    """Return how many frames can be decoded.

    Raises:
        InputError: as `read_clip`.
    """
    return count_video_frames(_stream_of(path)).frames


def _stream_of(path: str) -> Stream:
    stream = Stream(path, ((0, check_file(path)),))
    check_bytes(stream)
    return stream


def _describe_damage(path: str, counted: Counted) -> list[str]:
    """Warnings of frames that are missing or may show what was never there."""
    notes = []
    with open(path, "rb") as file:
        start = file.read(12)
    if _is_cut(path, start):
        notes.append(f"holds {counted.frames} frames: {_CUT}")
    elif (start[4:8] in _BOXES or start[:4] == b"RIFF") and counted.frames < counted.claimed:
        notes.append(
            f"its header counts {counted.claimed} frames and {counted.frames} are decoded: "
            "an edit list hides the others, or they are damaged"
        )
    return notes + describe_complaint(counted)


def describe_complaint(counted: Counted) -> list[str]:
    """The warning of a stream that its decoder complained about."""
    if not counted.complaint:
        return []
    return [f"its decoder complains ({counted.complaint}): frames may be damaged, check the picture"]


def _is_cut(path: str, start: bytes) -> bool:
    """Whether the container says that it goes on behind the end of the file."""
    size = check_file(path)
    if start[:4] == b"RIFF":
        return 8 + struct.unpack("<I", start[4:8])[0] > size + 1  # a byte of padding may be missing
    with open(path, "rb") as file:
        if start[:4] == _MATROSKA:
            return _segment_end(file.read(4096)) > size
        end, head = 0, start
        while len(head) >= 8:
            length = struct.unpack(">I", head[:4])[0]
            if length == 1 and len(head) >= 16:
                length = struct.unpack(">Q", head[8:16])[0]
            if length < 8:  # the last one, to the end of the file
                return False
            end += length
            file.seek(end)
            head = file.read(16) if end <= size else b""
    return end > size


def _segment_end(start: bytes) -> int:
    """Where the segment of a Matroska file ends by its own length; 0 where it does not tell."""
    place = start.find(_MATROSKA_SEGMENT)
    if place < 0 or len(start) < place + 12:
        return 0
    first = start[place + 4]
    length = 9 - first.bit_length()
    if length > 8:
        return 0
    value = int.from_bytes(start[place + 4 : place + 4 + length], "big") & ((1 << 7 * length) - 1)
    return 0 if value == (1 << 7 * length) - 1 else place + 4 + length + value
