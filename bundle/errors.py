# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend: one line that names the thing, the reason and the mend."""

from __future__ import annotations

import os
from typing import Any


class UserError(Exception):
    """A user's mistake. Command lines print it as one line and exit with code 2, without a traceback."""


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed and written: bytes of its name that are no UTF-8 become `\\udcf6`."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


class InputError(UserError):
    """One file that cannot be used.

    Args:
        path: the file, as the user named it.
        reason: what is wrong with it, with the values that show it.
        mend: what the user can do about it.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, mend: str) -> None:
        self.path = printable(path)
        self.reason = reason
        self.mend = mend
        super().__init__(f"{self.path}: {reason}; {mend}")

    def as_dict(self) -> dict[str, str]:
        """The three parts, for a list of what was skipped."""
        return {"path": self.path, "reason": self.reason, "mend": self.mend}

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        # Exceptions cross process borders (DataLoader workers); the default reduce would lose two arguments.
        return type(self), (self.path, self.reason, self.mend)


class NotAnImageError(InputError):
    """A file that holds no image and was not meant to: a report, a mask or a picture of ours, filed into a study.

    Where it was found in a folder it is counted, not called bad; where a user named it, it is an error like any other.

    Args:
        path: the file.
        reason: what it is.
        mend: what the user can do about it.
        kind: what such files are called where they are counted, in the plural, such as "DICOM structured reports".
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, mend: str, kind: str) -> None:
        super().__init__(path, reason, mend)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return type(self), (self.path, self.reason, self.mend, self.kind)
