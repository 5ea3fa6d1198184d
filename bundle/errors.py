# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend: one line that names the thing, the reason and the mend."""

from __future__ import annotations

import os


class UserError(Exception):
    """A user's mistake. Command lines print it as one line and exit with code 2, without a traceback."""


class InputError(UserError):
    """One file that cannot be used.

    Args:
        path: the file, as the user named it.
        reason: what is wrong with it, with the values that show it.
        mend: what the user can do about it.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, mend: str) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        self.mend = mend
        super().__init__(f"{self.path}: {reason}; {mend}")

    def as_dict(self) -> dict[str, str]:
        """The three parts, for a list of what was skipped."""
        return {"path": self.path, "reason": self.reason, "mend": self.mend}

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        # Exceptions cross process borders (DataLoader workers); the default reduce would lose two arguments.
        return type(self), (self.path, self.reason, self.mend)
