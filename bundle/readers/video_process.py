# SPDX-License-Identifier: Apache-2.0
"""A process of its own that decodes one video, as its owner sees it: asked for the count or a frame, within limits."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from bundle.errors import InputError

from .ultrasound import MAX_PIXELS, REPLACE, plain
from .video_decoder import COUNT, COUNTED, ENDED, FRAME, OPTIONS, REFUSED

MAX_VIDEO_SECONDS = 600.0
MAX_VIDEO_FRAMES = 36_000
"""Ten minutes at 60 frames a second."""

SHORTEN = "cut it into shorter clips"


@dataclass(frozen=True)
class DecoderLimits:
    """What the process that decodes may cost.

    Args:
        memory: bytes of its address space.
        cpu: seconds of processor time for one answer, which is a frame or the count of all.
        wall: seconds until one answer.
    """

    memory: int = 2 << 30
    cpu: int = 240
    wall: float = 600.0


_SCRIPT = Path(__file__).with_name("video_decoder.py")
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "LANG")
"""All that the process sees of ours: no tokens."""

_KEPT = 8
"""Frames that were passed on the way to a later one, and are kept until they are asked for."""

_TOO_MUCH_MEMORY = "needs more memory than its decoder is allowed"
_MEMORY_WORDS = ("Cannot allocate memory", "get_buffer() failed", "Failed to allocate")

_INTERLACED_WORDS = ("Cannot convert interlaced to progressive",)
_INTERLACED = "its frames are interlaced, which OpenCV's decoder gives as black pictures"
_MAKE_PROGRESSIVE = "convert it to progressive frames, such as by ffmpeg -i VIDEO -vf yadif"


@dataclass(frozen=True)
class Stream:
    """What is decoded.

    Args:
        path: of the file.
        parts: (offset, length) of the parts of it that make the stream when they are joined.
    """

    path: str
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Counted:
    """What decoding a whole stream shows.

    Args:
        frames: how many there are, one at least.
        claimed: what the container's header says, or FFmpeg guesses; 0 where nothing is said.
        shape: (H, W) of the first.
        complaint: FFmpeg's first words about damage, "" where there is none.
    """

    frames: int
    claimed: int
    shape: tuple[int, int]
    complaint: str


class Decoder:
    """One process that decodes one stream, asked from any thread.

    Args:
        stream: to decode.
        limits: of the process.
    """

    def __init__(self, stream: Stream, limits: DecoderLimits) -> None:
        self.stream, self.limits = stream, limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._next, self._late = 0, False

    def count(self) -> Counted:
        """Decode all.

        Raises:
            InputError: no frame can be decoded, or a limit is passed.
        """
        with self._lock:
            kind, content = self._ask(COUNT)
            if kind != COUNTED:
                raise self._broken("its decoder answers another question")
            self._next = MAX_VIDEO_FRAMES + 1  # whatever is asked next begins anew
            frames, claimed, height, width = struct.unpack("<4q", content)
            complaint = self._complaint()
            if not frames:
                raise InputError(self.stream.path, f"no frame of it can be decoded{_in_brackets(complaint)}", REPLACE)
            if any(words in complaint for words in _MEMORY_WORDS):
                raise self._broken(_TOO_MUCH_MEMORY)
            self._refuse_interlaced(complaint)
            return Counted(frames, claimed, (height, width), complaint)

    def frame(self, number: int, shape: tuple[int, int], upcoming: Sequence[int] = ()) -> np.ndarray:
        """Return frame `number`, (H, W, 3) uint8 RGB.

        Args:
            number: from 0.
            shape: (H, W) that it must have.
            upcoming: frames that will be asked for as well, rising; those before it are kept until then.

        Raises:
            InputError: it can not be decoded, has another size, or a limit is passed.
        """
        with self._lock:
            if number in self._kept:
                return self._kept.pop(number)
            if number < self._next:
                self._next = 0
            for passed in (other for other in range(self._next, number) if other in upcoming):
                self._kept[passed] = self._decode(passed, shape)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return self._decode(number, shape)

    def _decode(self, number: int, shape: tuple[int, int]) -> np.ndarray:
        kind, content = self._ask(number, shape)
        if kind == ENDED:
            raise InputError(self.stream.path, f"frame {number} of it can not be decoded a second time", REPLACE)
        if kind != FRAME:
            raise self._broken("its decoder answers another question")
        self._next = number + 1
        pixels = np.frombuffer(content, dtype=np.uint8).reshape(*shape, 3)
        return np.ascontiguousarray(pixels[..., ::-1])

    def _ask(self, request: int, shape: tuple[int, int] = (0, 0)) -> tuple[bytes, bytes]:
        """Send one request and return the letter and the content of its answer.

        Raises:
            InputError: the process refuses the stream, passes a limit, or ends.
        """
        process = self._start()
        assert process.stdin is not None
        self._late = False
        timer = threading.Timer(self.limits.wall, self._give_up)
        timer.start()
        try:
            process.stdin.write(struct.pack("<q", request))
            process.stdin.flush()
            return self._receive(request, shape)
        except (OSError, EOFError):
            raise self._ended() from None
        finally:
            timer.cancel()

    def _receive(self, request: int, shape: tuple[int, int]) -> tuple[bytes, bytes]:
        kind = self._read(1)
        if kind == COUNTED:
            return kind, self._read(32)
        if kind == ENDED:
            return kind, b""
        if kind == REFUSED:
            reason = self._read(struct.unpack("<H", self._read(2))[0]).decode("utf-8", "replace")
            complaint = self._complaint()
            self.close()
            if any(words in complaint for words in _MEMORY_WORDS):
                reason, complaint = _TOO_MUCH_MEMORY, ""
            mend = SHORTEN if "limit" in reason else REPLACE
            raise InputError(self.stream.path, plain(f"{reason}{_in_brackets(complaint)}"), mend)
        if kind != FRAME:
            raise self._broken("its decoder gives no answer")
        number, *size = struct.unpack("<III", self._read(12))
        if number != request or tuple(size) != shape:
            expected = f"{shape[0]}×{shape[1]} as the first"
            raise self._broken(f"its frame {request} comes as {number} of {size[0]}×{size[1]} pixels, not {expected}")
        self._refuse_interlaced(self._complaint())
        return kind, self._read(3 * shape[0] * shape[1])

    def _refuse_interlaced(self, complaint: str) -> None:
        if any(words in complaint for words in _INTERLACED_WORDS):
            self.close()
            raise InputError(self.stream.path, _INTERLACED, _MAKE_PROGRESSIVE)

    def _read(self, count: int) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        data = self._process.stdout.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        limits = [self.limits.memory, self.limits.cpu, MAX_PIXELS, MAX_VIDEO_FRAMES, MAX_VIDEO_SECONDS]
        environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
        environment |= {"OPENCV_FFMPEG_CAPTURE_OPTIONS": OPTIONS, "OPENCV_LOG_LEVEL": "SILENT"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), os.path.abspath(self.stream.path), *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        parts = b"".join(struct.pack("<QQ", *part) for part in self.stream.parts)
        with contextlib.suppress(OSError):  # that it has ended is told when it is asked
            assert self._process.stdin is not None
            self._process.stdin.write(struct.pack("<I", len(self.stream.parts)) + parts)
            self._process.stdin.flush()
        self._next = 0
        return self._process

    def _give_up(self) -> None:
        self._late = True
        if self._process is not None:
            self._process.kill()

    def _complaint(self) -> str:
        """The first line that FFmpeg has written about damage."""
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read(4096).decode("utf-8", "replace").splitlines()
        told = [line.partition("] ")[2] for line in lines if line.startswith("[") and " @ 0x" in line]
        grave = [line for line in told if any(words in line for words in (*_MEMORY_WORDS, *_INTERLACED_WORDS))]
        return plain(next(iter([*grave, *told]), ""))

    def _ended(self) -> InputError:
        """What the end of the process says."""
        assert self._process is not None
        code = self._process.wait()
        complaint = self._complaint()
        late = self._late
        self.close()
        if late:
            reason = f"is not decoded within the limit of {self.limits.wall:g} seconds"
            return InputError(self.stream.path, reason, SHORTEN)
        if code == -getattr(signal, "SIGXCPU", 24):
            reason = f"is not decoded within the limit of {self.limits.cpu} seconds of processor time"
            return InputError(self.stream.path, reason, SHORTEN)
        if code < 0:
            name = signal.Signals(-code).name if -code in {number.value for number in signal.Signals} else f"{-code}"
            reason = f"its decoder was ended by signal {name}, as damaged or hostile streams do"
            return InputError(self.stream.path, reason, REPLACE)
        return InputError(self.stream.path, f"its decoder ended with code {code}{_in_brackets(complaint)}", REPLACE)

    def _broken(self, reason: str) -> InputError:
        self.close()
        return InputError(self.stream.path, reason, REPLACE)

    def is_done_with(self, frames: Sequence[int]) -> bool:
        """Whether all of these frames were given."""
        with self._lock:
            return len(frames) > 0 and self._next > frames[-1] and not self._kept

    def retire(self) -> None:
        """End the process once it has answered."""
        with self._lock:
            self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._kept.clear()
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
        if self._log is not None:
            self._log.close()
            self._log = None


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
