# SPDX-License-Identifier: Apache-2.0
"""The process that decodes one video for `video`, and does nothing else: a stream is hostile input to a large decoder.

It is run as a script, apart from the package, so that nothing but OpenCV is loaded into it. Its memory, its processor
time and its files are limited before the stream is touched; the stream is handed to FFmpeg by reading, so that no name
and no address is ever opened for it. Numbers come in and pixels go out by pipes; nothing of either is executed.

    python -I video_decoder.py FILE MEMORY CPU PIXELS FRAMES SECONDS < requests > answers

Requests, little-endian: the number of parts of the file that make the stream, and of each its offset and length; then
any number of frames to give, counted from 0, or `COUNT`. Answers: see `Answers`.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
from typing import Any, BinaryIO

COUNT = -1
"""Asked for in place of a frame: decode all, and say how many there are."""

COUNTED, FRAME, ENDED, REFUSED = b"C", b"F", b"E", b"R"
"""Begin an answer: the number of frames and what the header claims; a frame; there is no such frame; a reason."""

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc"
DECODERS = "h264,hevc,mpeg1video,mpeg2video,mpeg4,mjpeg,vp8,vp9,rawvideo"
_FOURCC = (b"h264", b"hevc", b"mpg1", b"mpg2", b"FMP4", b"MJPG", b"VP80", b"VP90", b"\0\0\0\0")
"""The names that OpenCV gives to `DECODERS`, in their order: it opens others too, whatever FFmpeg is told."""

OPTIONS = f"format_whitelist;{FORMATS}|codec_whitelist;{DECODERS}|protocol_whitelist;none|fflags;discardcorrupt"
"""For FFmpeg, as OpenCV takes them from its environment: no playlists, no other files, no audio, no torn packets."""

_NO_TIME_OUT = 10**9
_MAX_LOG = 1 << 16
"""Bytes of complaints that FFmpeg may write."""


class Parts(io.BufferedIOBase):
    """Parts of a file as one stream, without a copy.

    Args:
        file: open for reading.
        parts: (offset, length) of each.
    """

    def __init__(self, file: BinaryIO, parts: list[tuple[int, int]]) -> None:
        self.file, self.parts = file, parts
        self.size, self.position = sum(length for _, length in parts), 0
        self._part, self._start = 0, 0  # the part at the position, and where it starts in the stream

    def read(self, count: int | None = -1, /) -> bytes:
        """Read as a file does."""
        wanted = self.size - self.position if count is None or count < 0 else count
        pieces = []
        while wanted > 0 and self._enter():
            offset, length = self.parts[self._part]
            inside = self.position - self._start
            self.file.seek(offset + inside)
            piece = self.file.read(min(wanted, length - inside))
            if not piece:
                break
            pieces.append(piece)
            self.position += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def _enter(self) -> bool:
        """Find the part at the position; false at the end."""
        if self.position < self._start:
            self._part, self._start = 0, 0
        while self._part < len(self.parts) and self.position >= self._start + self.parts[self._part][1]:
            self._start += self.parts[self._part][1]
            self._part += 1
        return self._part < len(self.parts)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move as a file does."""
        self.position = max(0, (0, self.position, self.size)[whence] + offset)
        return self.position

    def tell(self) -> int:
        """The position."""
        return self.position

    def readable(self) -> bool:
        """As of a file."""
        return True

    def seekable(self) -> bool:
        """As of a file."""
        return True


class RefusedError(Exception):
    """A stream that is not decoded, and why."""


class Capture:
    """The frames of a stream, decoded in order.

    Args:
        stream: see `Parts`.
        pixels, frames, seconds: the limits.
    """

    def __init__(self, stream: Parts, pixels: int, frames: int, seconds: float) -> None:
        self.stream, self.pixels, self.frames, self.seconds = stream, pixels, frames, seconds
        self.next, self.shape = 0, (0, 0)
        self._open()

    def _open(self) -> None:
        import cv2

        self.stream.seek(0)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _NO_TIME_OUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _NO_TIME_OUT]
        source: Any = self.stream
        self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *limits])
        if not self._capture.isOpened():
            raise RefusedError("is no readable video")
        self.next = 0
        name = int(self._get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        if name.to_bytes(4, "little") not in _FOURCC:
            told = "".join(chr(byte) if 32 < byte < 127 else "?" for byte in name.to_bytes(4, "little"))
            raise RefusedError(f"its video is coded as {told}, which is not read")
        self._check_size(int(self._get(cv2.CAP_PROP_FRAME_HEIGHT)), int(self._get(cv2.CAP_PROP_FRAME_WIDTH)))
        claimed, rate = self.claimed, self._get(cv2.CAP_PROP_FPS)
        if claimed > self.frames:
            raise RefusedError(f"claims {claimed} frames, more than the limit of {self.frames}")
        if rate > 0 and claimed / rate > self.seconds:
            raise RefusedError(f"claims {claimed / rate:.0f} seconds, more than the limit of {self.seconds:g}")

    @property
    def claimed(self) -> int:
        """Frames that the container's header claims, or that FFmpeg guesses; 0 where nothing is said."""
        import cv2

        number = self._get(cv2.CAP_PROP_FRAME_COUNT)
        return int(number) if 0 < number < 1e12 else 0

    def _get(self, key: int) -> float:
        value = float(self._capture.get(key))
        return value if abs(value) < 1e15 else 0.0  # also false of what is no number

    def _check_size(self, height: int, width: int) -> None:
        if height * width > self.pixels:
            raise RefusedError(f"{height}×{width} pixels are more than the limit of {self.pixels / 1e6:g} Mpx")

    def count(self) -> int:
        """Decode to the end; then ``shape`` is (H, W) of the first frame."""
        first = self.frame(0)
        if first is not None:
            self.shape = first.shape[:2]
        while self._step():
            pass
        return self.next

    def _step(self) -> bool:
        """Decode the next frame; false at the end.

        Raises:
            RefusedError: it is beyond a limit.
        """
        import cv2

        if not self._capture.grab():
            return False
        self.next += 1
        if self.next > self.frames:
            raise RefusedError(f"holds more frames than the limit of {self.frames}")
        if self._get(cv2.CAP_PROP_POS_MSEC) > 1000 * self.seconds:
            raise RefusedError(f"plays for longer than the limit of {self.seconds:g} seconds")
        return True

    def frame(self, number: int) -> Any:
        """Frame `number`, (H, W, 3) uint8, blue first; None where there is none. An earlier one begins anew.

        Raises:
            RefusedError: it is beyond a limit.
        """
        if number < self.next:
            self._open()
        while self.next <= number:
            if not self._step():
                return None
        found, pixels = self._capture.retrieve()
        if not found:
            raise RefusedError(f"frame {number} can not be converted to pixels")
        self._check_size(*pixels.shape[:2])
        return pixels


class Answers:
    """Writes answers: one letter, then of `COUNTED` four numbers of 8 bytes, the frames, those that the header claims,
    and their height and width; of `FRAME` its number, height and width, 4 bytes each, and its pixels; of `REFUSED` the
    length, 2 bytes, and the reason in UTF-8.

    Args:
        file: to write to.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def counted(self, capture: Capture) -> None:
        """Decode all, and say how many there are."""
        frames = capture.count()
        self._write(COUNTED + struct.pack("<4q", frames, capture.claimed, *capture.shape))

    def frame(self, number: int, pixels: Any) -> None:
        """Give a frame; None for one that is not there."""
        if pixels is None:
            self._write(ENDED)
        else:
            self._write(FRAME + struct.pack("<III", number, *pixels.shape[:2]), pixels.tobytes())

    def refused(self, reason: str) -> None:
        """Give a reason."""
        text = reason.encode()[:500]
        self._write(REFUSED + struct.pack("<H", len(text)) + text)

    def _write(self, *parts: bytes) -> None:
        for part in parts:
            self.file.write(part)
        self.file.flush()


def _limit(memory: int, file: BinaryIO) -> None:
    """Allow so many bytes of memory, no further file or connection, short complaints, no core dump; on Unix."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_LOG, _MAX_LOG))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 1, file.fileno() + 1))


def _allow(seconds: int) -> None:
    """Allow so many further seconds of processor time; on Unix."""
    with contextlib.suppress(ImportError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    """Answer requests until there are no more, or one is refused."""
    path, memory, cpu, pixels, frames, seconds = sys.argv[1:]
    requests, answers = sys.stdin.buffer, Answers(sys.stdout.buffer)
    # What OpenCV writes to the standard output would be taken for an answer.
    answers.file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        import cv2  # noqa: F401, before the limits: it opens libraries

        with open(path, "rb") as file:
            _limit(int(memory), file)
            count = struct.unpack("<I", requests.read(4))[0]
            parts = [struct.unpack("<QQ", requests.read(16)) for _ in range(count)]
            _allow(int(cpu))
            capture = Capture(Parts(file, parts), int(pixels), int(frames), float(seconds))
            while len(request := requests.read(8)) == 8:
                _allow(int(cpu))
                wanted = struct.unpack("<q", request)[0]
                if wanted == COUNT:
                    answers.counted(capture)
                else:
                    answers.frame(wanted, capture.frame(wanted))
    except RefusedError as error:
        answers.refused(str(error))
    except MemoryError:
        answers.refused("needs more memory than its decoder is allowed")
    except OSError as error:
        answers.refused(f"can not be read ({error.strerror})")
    except Exception as error:  # OpenCV raises its own error for whatever it met, memory included
        text = " ".join(str(error).split())
        memory_short = "Insufficient memory" in text or "allocate" in text
        answers.refused("needs more memory than its decoder is allowed" if memory_short else f"is not decoded ({text})")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
