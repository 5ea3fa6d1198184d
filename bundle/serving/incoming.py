# SPDX-License-Identifier: Apache-2.0
"""Files of objects that are being received: as large as they may be, on a disk that may be full."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pynetdicom import _config, dimse_messages

DISK_FULL = "the node's disk is full"


class IncomingFile:
    """What pynetdicom writes one received object into, in place of a named temporary file.

    It never raises. An error would end the thread of the association, whose sender would then wait for an answer that
    never comes. What cannot be kept is received to its end and thrown away, and `reason` says why: so it can be
    answered with a status.

    Args:
        folder: where it lies.
        judge: says of a size in bytes why an object cannot be as large; "" where it can.
    """

    def __init__(self, folder: Path, judge: Callable[[int], str]) -> None:
        self.name = str(folder / f"{secrets.token_hex(8)}.dcm")
        self.reason, self._size, self._judge = "", 0, judge
        self.file = self  # which pynetdicom flushes
        try:
            self._descriptor = os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            self._descriptor, self.reason = -1, DISK_FULL

    def write(self, data: bytes) -> int:
        """Add to it, or throw it all away."""
        self._size += len(data)
        self.reason = self.reason or self._judge(self._size)
        rest = memoryview(data)
        try:
            while rest and not self.reason:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.reason = DISK_FULL
        if self.reason:
            self._empty()
        return len(data)

    def flush(self) -> None:
        """Nothing: each write has gone to the operating system."""

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _empty(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)


@contextlib.contextmanager
def receiving_into(folder: Path, judge: Callable[[int], str]) -> Any:
    """Let pynetdicom, in the whole process, write what it receives into `IncomingFile`; memory stays flat so."""
    former = _config.STORE_RECV_CHUNKED_DATASET, dimse_messages.NamedTemporaryFile
    _config.STORE_RECV_CHUNKED_DATASET = True
    dimse_messages.NamedTemporaryFile = lambda **_: IncomingFile(folder, judge)  # type: ignore[assignment]
    try:
        yield
    finally:
        _config.STORE_RECV_CHUNKED_DATASET, dimse_messages.NamedTemporaryFile = former


def clear_incoming(folder: Path) -> Path:
    """Return the folder for what is being received, emptied of what a killed node left there."""
    incoming = folder / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    os.makedirs(incoming, mode=0o700)
    return incoming
