# SPDX-License-Identifier: Apache-2.0
"""Files of published datasets, found by name whatever their case, suffix and folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from bundle.data.cases import IMAGE_SUFFIXES
from bundle.data.walk import files_below, is_named_file
from bundle.errors import InputError


class Files:
    """The image files below a folder, found by name whatever their case and suffix; hidden ones are passed over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = [
            path.relative_to(folder).as_posix()
            for path in files_below(folder)
            if path.name.lower().endswith(IMAGE_SUFFIXES) and not path.name.startswith(".")
        ]
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        for text in self.paths:
            path = PurePosixPath(text)
            self._by_name[path.name.lower()].append(text)
            self._by_name[path.stem.lower()].append(text)

    def find(self, name: str, inside: str | None = None) -> str | None:
        """The relative path of a file, or None.

        Args:
            name: its name; another suffix, or none, will do where no file has just this name.
            inside: the name of the folder that it lies in. Of several the one nearest to the top is taken.
        """
        wanted = PurePosixPath(name.strip().replace("\\", "/")).name.lower()
        stem = PurePosixPath(wanted).stem if PurePosixPath(wanted).suffix in IMAGE_SUFFIXES else wanted
        for key in (wanted, stem):
            places = ((PurePosixPath(path).parent.name.lower(), path) for path in self._by_name.get(key, ()))
            found = [path for place, path in places if inside is None or place == inside.lower()]
            if found:
                return min(found, key=lambda path: (path.count("/"), path))
        return None

    def unlisted(self, images: Iterable[str], table: Path, is_mask: Callable[[str], bool]) -> list[InputError]:
        """The files beside the listed images that the table does not name.

        Args:
            images: relative paths of the listed ones.
            table: named in the message.
            is_mask: of a file's stem; such files are none that a table would have to name.
        """
        known = set(images)
        folders = {PurePosixPath(path).parent for path in known}
        return [
            InputError(self.folder / path, f"is not in {table.name}", "add its row or move the file elsewhere")
            for path in self.paths
            if path not in known and PurePosixPath(path).parent in folders and not is_mask(PurePosixPath(path).stem)
        ]


def find_file(folder: Path, pattern: str) -> Path | None:
    """The file directly in the folder whose name matches a regular expression, whatever its case.

    None without one, or where the folder cannot be read.
    """
    try:
        names = sorted(folder.iterdir())
    except OSError:
        return None
    matches = (path for path in names if re.fullmatch(pattern, path.name, re.IGNORECASE))
    return next((path for path in matches if is_named_file(path) and not path.name.startswith((".", "~"))), None)
