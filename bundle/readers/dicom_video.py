# SPDX-License-Identifier: Apache-2.0
"""Video in DICOM: MPEG-2, H.264 and HEVC, whose stream is the fragments joined, whatever frames the header counts."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from bundle.errors import InputError

from .clips import describe_complaint
from .dicom import MULTI_FRAME_CLASSES, whole
from .dicom_fragments import list_items
from .dicom_frames import enter
from .ultrasound import REPLACE
from .video import count_video_frames
from .video_process import Counted, Stream

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MPEG = "1.2.840.10008.1.2.4."
_STEREO = _MPEG + "106"
VIDEO = frozenset(
    _MPEG + kind
    for kind in (*(str(number) for number in range(100, 109)), *(f"{number}.1" for number in range(100, 107)))
)
"""Transfer syntaxes of MPEG-2 (100, 101), H.264 (102 to 106) and HEVC (107, 108); .1: the same, fragmentable."""

_END_TAG = b"\xfe\xff\xdd\xe0"
_COLOURS = ("YBR_PARTIAL_420", "YBR_FULL_422", "YBR_FULL", "YBR_PARTIAL_422", "RGB", "MONOCHROME2")


def is_video(header: Dataset) -> bool:
    """Whether a header's transfer syntax is one of `VIDEO`."""
    return str(header.file_meta.TransferSyntaxUID) in VIDEO


def locate_stream(path: str, header: Dataset, content: BinaryIO) -> tuple[Stream, list[str]]:
    """Return the stream of a file that is positioned at its pixel element, and what is doubtful about it.

    Raises:
        InputError: there is none, or its kind of pixels is not read.
    """
    photometric = str(header.get("PhotometricInterpretation", "not told"))
    if photometric not in _COLOURS:
        reason = f"its photometric interpretation is {photometric}, which is not read of a video"
        raise InputError(path, reason, "export it again")
    enter(path, header, content)
    _, items = list_items(path, content)
    size = content.seek(0, io.SEEK_END)
    parts = [(offset, min(length, size - offset)) for offset, length in items if offset < size]
    if not parts:
        raise InputError(path, "holds no video: the file was cut short", REPLACE)
    end = items[-1][0] + items[-1][1]
    content.seek(end)
    notes = []
    if end > size or content.read(4) != _END_TAG:
        notes.append("the file was cut short: its last frames are missing")
    if str(header.file_meta.TransferSyntaxUID).startswith(_STEREO):
        notes.append("is a stereo video: one of its two views is read")
    return Stream(path, tuple(parts)), notes


def count_frames_of(stream: Stream, header: Dataset) -> tuple[Counted, list[str]]:
    """Count the frames by decoding them, and compare them with the header.

    Raises:
        InputError: as `count_video_frames`; or the frames have another size than the header says.
    """
    counted = count_video_frames(stream)
    expected = (whole(header.get("Rows"), 0), whole(header.get("Columns"), 0))
    if counted.shape != expected:
        stated = f"decodes to {counted.shape[0]}×{counted.shape[1]} pixels"
        raise InputError(stream.path, f"{stated}, but its header says {expected[0]}×{expected[1]}", REPLACE)
    claimed = whole(header.get("NumberOfFrames"), 0)
    notes = describe_complaint(counted)
    if claimed <= 0 and counted.frames > 1:
        notes.append(f"does not say its Number of Frames: {counted.frames} are counted in it")
    elif claimed > 0 and counted.frames != claimed:
        notes.append(f"its header counts {claimed} frames and {counted.frames} are decoded")
    if counted.frames > 1 and str(header.get("SOPClassUID", "")) not in MULTI_FRAME_CLASSES:
        notes.append(f"is of a class of single images and holds {counted.frames} frames")
    return counted, notes
