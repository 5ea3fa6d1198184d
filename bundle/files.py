# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or absent: atomic writes, strict JSON, CSV, checksums, and a lock for a folder."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import logging
import math
import os
import platform
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bundle.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"
_CHUNK = 1 << 20
_locks: dict[Path, int] = {}
"""Lock files that this process holds -> their descriptors, which must stay open."""


def write_atomically(path: str | os.PathLike[str], data: bytes | memoryview | str) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the old content or the new one, never a part.

    Args:
        path: the file; missing parent folders are made.
        data: the whole content; text is encoded as UTF-8.

    Raises:
        InputError: the file cannot be written.
    """
    with open_atomically(path) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write bytes to piece by piece, which gets its name when the block ends without an error.

    Args:
        path: the file; missing parent folders are made.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path)
    # Not tempfile: it makes files of mode 0600, and the final file would keep that instead of the user's umask.
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
        move_into_place(temporary, target)
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def move_into_place(temporary: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a finished file its final name, in the same file system, so that content and name outlast a power cut.

    Raises:
        InputError: it cannot be.
    """
    try:
        with open(temporary, "r+b") as file:  # which Windows flushes, unlike one open for reading
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _flush_folder(Path(target).parent)
    except OSError as error:
        raise _not_written(Path(target), error) from error


def _not_written(target: Path, error: OSError) -> InputError:
    return InputError(target, f"cannot be written ({error.strerror})", "choose a writable place with free space")


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut; Windows and some network file systems have no such call."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and its parents unless it is there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot be made ({error.strerror})", "choose a writable place") from error


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete the temporary files of processes that were killed while they wrote; only where nobody writes now."""
    for path in Path(folder).glob(".*.tmp"):
        if re.fullmatch(r"\.[0-9a-f]{16}\.tmp", path.name):
            path.unlink(missing_ok=True)


def lock_folder(folder: str | os.PathLike[str]) -> None:
    """Keep other processes out of a folder until this process ends; a second call of the same process passes.

    The operating system holds the lock and drops it with the process, even after kill -9, so that none is left behind.
    It is a POSIX record lock: forked data workers do not inherit it, and it works over NFS. Windows has none.

    Args:
        folder: made if need be; gets the file ``.lock``, which names the owner.

    Raises:
        InputError: another process holds it, or the folder cannot be written.
    """
    path = Path(folder).resolve() / LOCK
    if path in _locks or fcntl is None:
        return
    make_folder(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(folder, f"cannot be written ({error.strerror})", "choose a writable place") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 300).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning("%s: no lock (%s); let no second run write here", folder, error.strerror)
            return
        mend = "wait until it has ended, or name another folder"
        raise InputError(folder, f"another run writes here ({owner or 'owner unknown'})", mend) from error
    _locks[path] = descriptor
    with contextlib.suppress(OSError):  # on a full disk the lock holds without its owner's name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write an object as strict JSON, atomically and with the order of its keys kept.

    Args:
        path: the file; missing parent folders are made.
        obj: as `to_json` takes it.

    Raises:
        InputError: the file cannot be written.
        TypeError: an object of another type.
    """
    write_atomically(path, to_json(obj) + "\n")


def to_json(obj: Any) -> str:
    """Format an object as strict JSON.

    Args:
        obj: dicts, lists, tuples, strings, numbers, None; NumPy scalars and arrays become numbers and lists.
            NaN and infinities become null, because strict readers refuse them.

    Raises:
        TypeError: an object of another type.
    """
    return json.dumps(_plain(obj), indent=2, allow_nan=False)


def to_csv(rows: Sequence[Mapping[str, Any]], header: bool = True) -> str:
    """Format rows with the same keys as CSV text; None becomes an empty cell.

    Text that a spreadsheet would run as a formula gets a leading quote: names of files come from outside.
    """
    buffer = io.StringIO()
    if rows:
        # The writer's own "\r\n" ends the rows: with any other, Python before 3.13 leaves a "\r" in a name unquoted.
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]))
        if header:
            writer.writeheader()
        writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def read_json(path: str | os.PathLike[str], mend: str = "restore it") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        mend: what the user can do when it can not be read.

    Raises:
        InputError: the file cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", mend) from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is no JSON file ({error})", mend) from error
    if not isinstance(content, dict):
        raise InputError(path, f"holds a JSON {type(content).__name__}, not an object", mend)
    return content


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 lower-case hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    return digest.hexdigest()


def _plain(obj: Any) -> Any:
    """Return the object with NumPy types made plain and numbers that are not finite replaced by None."""
    if isinstance(obj, (np.generic, np.ndarray)):
        obj = obj.tolist()
    if isinstance(obj, dict):
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
