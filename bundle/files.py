# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or absent: atomic writes, strict JSON and checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from bundle.errors import InputError

_CHUNK = 1 << 20


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the old content or the new one, never a part.

    Args:
        path: the file; missing parent folders are made.
        data: the whole content; text is encoded as UTF-8.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    # Not tempfile: it makes files of mode 0600, and the final file would keep that instead of the user's umask.
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            target, f"cannot be written ({error.strerror})", "choose a writable place with free space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write an object as strict JSON, atomically and with the order of its keys kept.

    Args:
        path: the file; missing parent folders are made.
        obj: dicts, lists, tuples, strings, numbers, None; NumPy scalars and arrays become numbers and lists.
            NaN and infinities become null, because strict readers refuse them.

    Raises:
        InputError: the file cannot be written.
        TypeError: an object of another type.
    """
    write_atomically(path, json.dumps(_plain(obj), indent=2, allow_nan=False) + "\n")


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
