# SPDX-License-Identifier: Apache-2.0
"""Video: its frames are counted by decoding them in order, in a process of its own with limits.

No header's count is believed and no seek is made: FFmpeg counts samples that an edit list hides, and seeks to another
frame of a bare stream without an error. What the process may cost is limited, and however it ends is one line.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from bundle.errors import InputError

from .video_process import SHORTEN, Counted, Decoder, DecoderLimits, Stream

MAX_VIDEO_BYTES = 1_000_000_000
LIMITS = DecoderLimits()

_OPEN, _KNOWN = 2, 256
"""Processes that wait for a further question about their file, and files whose count is remembered."""


class _Memory:
    """The decoders that wait, and what is known of files; emptied in a forked child, whose parent owns the pipes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.decoders: OrderedDict[tuple[object, ...], Decoder] = OrderedDict()
        self.counts: OrderedDict[tuple[object, ...], Counted] = OrderedDict()
        self.left: list[Decoder] = []

    def forget_after_fork(self) -> None:
        self.lock = threading.Lock()
        self.left += self.decoders.values()  # never closed here, which would kill the parent's
        self.decoders = OrderedDict()

    def close(self) -> None:
        while self.decoders:
            self.decoders.popitem()[1].close()


_memory = _Memory()
atexit.register(_memory.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_memory.forget_after_fork)


def count_video_frames(stream: Stream) -> Counted:
    """Count the frames of a stream by decoding all of them; a file that has not changed since is not decoded again.

    Raises:
        InputError: there are none, the stream is above a limit, or its decoder ends before it has answered.
    """
    check_bytes(stream)
    key = _key(stream)
    with _memory.lock:
        known = _memory.counts.get(key)
    if known is None:
        with _decoder(key, stream) as decoder:
            known = decoder.count()
        with _memory.lock:
            _memory.counts[key] = known
            while len(_memory.counts) > _KNOWN:
                _memory.counts.popitem(last=False)
    return known


def decode_video_frame(stream: Stream, number: int, upcoming: Sequence[int] = ()) -> np.ndarray:
    """Return one frame, (H, W, 3) uint8 RGB, upright where the container says how it is turned.

    Frames that are asked for in order are decoded once; going back begins anew.

    Args:
        stream: counted before.
        number: from 0.
        upcoming: frames that will be asked for as well, rising, by several threads perhaps; `number` may be of them.

    Raises:
        InputError: as `count_video_frames`; or the frame's size is not that of the first.
    """
    shape, key = count_video_frames(stream).shape, _key(stream)
    with _decoder(key, stream) as decoder:
        pixels = decoder.frame(number, shape, upcoming)
        if decoder.is_done_with(upcoming):
            _drop(key)
    return pixels


def check_bytes(stream: Stream) -> None:
    """Refuse a stream of more bytes than the limit.

    Raises:
        InputError: it has more.
    """
    size = sum(length for _, length in stream.parts)
    if size > MAX_VIDEO_BYTES:
        reason = f"its video of {size / 1e6:.0f} MB is larger than the limit of {MAX_VIDEO_BYTES / 1e6:.0f} MB"
        raise InputError(stream.path, reason, SHORTEN)


def _key(stream: Stream) -> tuple[object, ...]:
    try:
        status = os.stat(stream.path)
    except OSError as error:
        raise InputError(stream.path, f"can not be opened ({error.strerror})", "check the path") from error
    return os.path.realpath(stream.path), status.st_ino, status.st_size, status.st_mtime_ns, stream.parts


@contextlib.contextmanager
def _decoder(key: tuple[object, ...], stream: Stream) -> Iterator[Decoder]:
    """The decoder of a stream; of those that wait, the one used longest ago makes room for a new one."""
    with _memory.lock:
        decoder = _memory.decoders.pop(key, None) or Decoder(stream, LIMITS)
        _memory.decoders[key] = decoder
        old = [_memory.decoders.popitem(last=False)[1] for _ in range(len(_memory.decoders) - _OPEN)]
    for other in old:
        other.retire()
    try:
        yield decoder
    except InputError:
        _drop(key)
        raise


def _drop(key: tuple[object, ...]) -> None:
    with _memory.lock:
        decoder = _memory.decoders.pop(key, None)
    if decoder is not None:
        decoder.retire()
