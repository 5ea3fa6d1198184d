# SPDX-License-Identifier: Apache-2.0
"""Videos that tests encode for themselves: each frame says its number, so that none can stand in another's place."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset

from tests.readers.fabricate import encapsulated, even, put_stream, ultrasound

HEIGHT, WIDTH, RATE = 96, 128, 25
_BITS, _BLOCK = 8, 16

CODES = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "MJPG", ".webm": "VP80", ".mpg": "mpg2", ".ts": "mpg2"}
"""What OpenCV can encode: MPEG-4, JPEG, VP8 and MPEG-2, in the container of each suffix."""


def numbered(number: int) -> np.ndarray:
    """Grey (H, W) uint8: patches of grey, and the frame's number in black and white blocks along the top."""
    rng = np.random.default_rng(7)
    grey = rng.integers(30, 200, (HEIGHT // 8, WIDTH // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    for bit in range(_BITS):
        grey[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = 235 if number >> bit & 1 else 16
    return grey


def number_of(pixels: np.ndarray) -> int:
    """The number that a frame (H, W) shows."""
    top = pixels[_BLOCK // 2, _BLOCK // 2 : _BITS * _BLOCK : _BLOCK]
    return sum(int(value > 128) << bit for bit, value in enumerate(top))


def encode(path: Path, frames: int | Sequence[np.ndarray] = 30, code: str = "") -> Path:
    """Write a clip of numbered frames, or of these (H, W) uint8, coded as its suffix says."""
    pictures = [numbered(number) for number in range(frames)] if isinstance(frames, int) else list(frames)
    height, width = pictures[0].shape
    name = cv2.VideoWriter.fourcc(*(code or CODES[path.suffix]))
    writer = cv2.VideoWriter(os.fspath(path), cv2.CAP_FFMPEG, name, RATE, (width, height))
    assert writer.isOpened()
    for grey in pictures:
        writer.write(np.repeat(grey[..., None], 3, axis=2))
    writer.release()
    return path


def video_dicom(
    stream: bytes, syntax: str, frames: int | None = 30, parts: int = 1, end: bool = True, **elements: Any
) -> Dataset:
    """An ultrasound cine whose pixels are a video stream, in so many fragments."""
    dataset = ultrasound(np.zeros((HEIGHT, WIDTH), np.uint8), "YBR_FULL_422", **elements)
    dataset.PhotometricInterpretation = elements.get("PhotometricInterpretation", "YBR_PARTIAL_420")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    if frames is not None:
        dataset.NumberOfFrames = frames
    return put_stream(dataset, encapsulated(_pieces(stream, parts), [], end), syntax)


def _pieces(stream: bytes, parts: int) -> list[bytes]:
    length = len(stream) // parts // 2 * 2
    starts = [length * number for number in range(parts)]
    return [even(stream[start:end]) for start, end in zip(starts, [*starts[1:], len(stream)], strict=True)]


def hide_first_frames(path: Path, frames: int) -> None:
    """Let the edit list of an MP4 file begin so many frames later; its header goes on counting them."""
    data = bytearray(path.read_bytes())
    scale = data.index(b"mdhd") + 16
    timescale = struct.unpack(">I", data[scale : scale + 4])[0]
    start = data.index(b"elst") + 16  # behind version, count and the duration of the one entry
    data[start : start + 4] = struct.pack(">I", frames * timescale // RATE)
    path.write_bytes(data)


def turn_clockwise(path: Path) -> None:
    """Let the header of an MP4 file say that its frames are shown turned by a quarter, as phones write it."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # behind version, times, numbers, layer and volume
    data[start : start + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(data)
