# SPDX-License-Identifier: Apache-2.0
"""One dataset, or several at once: their names, and where their relative paths start.

Of one dataset, paths are relative to its folder. Of several, the name of a dataset goes before its own paths, as if
all lay in one folder: `BUSBRA/Images/bus_0001-l.png`, wherever BUSBRA lies.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import UserError

Dataset = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
JOINED = "+"
"""Between the names of datasets that are used together."""


@dataclass(frozen=True)
class Roots:
    """The folders that a dataset's relative paths start from.

    Args:
        datasets: name -> folder or manifest as it was given; the name is "" of one dataset alone.
    """

    datasets: dict[str, Path]

    @property
    def name(self) -> str:
        """The folder's name, or the names joined by "+"."""
        if "" in self.datasets:
            return Path(os.path.abspath(self.datasets[""])).name
        return JOINED.join(self.datasets)

    def absolute(self, relative: str) -> Path:
        """The file of a relative path, with symbolic links of the dataset's folder resolved.

        Raises:
            ValueError: of several datasets, none has the name that the path begins with.
        """
        name, inside = self._divide(relative)
        if name not in self.datasets:
            raise ValueError(f"'{relative}' begins with none of the datasets {', '.join(self.datasets)}")
        return dataset_folder(self.datasets[name]).resolve() / inside

    def relative(self, file: str | os.PathLike[str]) -> str:
        """The relative path, with "/" between its parts, of a file in one of the folders.

        Raises:
            ValueError: it is in none.
        """
        for name, path in self.datasets.items():
            for folder in (dataset_folder(path), dataset_folder(path).resolve()):
                if Path(file).is_relative_to(folder):
                    inside = Path(file).relative_to(folder).as_posix()
                    return f"{name}/{inside}" if name else inside
        raise ValueError(f"'{file}' is in none of the folders {', '.join(map(str, self.datasets.values()))}")

    def dataset_of(self, relative: str) -> str:
        """The name of the dataset that a relative path belongs to; "" of one dataset alone."""
        return self._divide(relative)[0]

    def _divide(self, relative: str) -> tuple[str, str]:
        if "" in self.datasets:
            return "", relative
        name, _, inside = relative.partition("/")
        return name, inside


def find_roots(dataset: Dataset | Roots) -> Roots:
    """The roots of one dataset or of several; an empty name marks one alone.

    Args:
        dataset: a folder or a CSV manifest, or a list of such.

    Raises:
        UserError: the list is empty, or two of its folders have one name.
    """
    if isinstance(dataset, Roots):
        return dataset
    if isinstance(dataset, (str, os.PathLike)):
        return Roots({"": Path(dataset)})
    paths = [Path(path) for path in dataset]
    if not paths:
        raise UserError("dataset_dir: an empty list; name one or more folders")
    if len(paths) == 1:
        return Roots({"": paths[0]})
    names = [_folder_name(path) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"dataset_dir: two folders are named '{twice[0]}', so nothing tells them apart; rename one")
    return Roots(dict(sorted(zip(names, paths, strict=True))))


def dataset_name(dataset: Dataset) -> str:
    """Name one dataset, or several joined by "+", after their folders; for configs."""
    return find_roots(dataset).name


def dataset_folder(dataset: str | os.PathLike[str]) -> Path:
    """The folder that a dataset's relative paths start from: itself, or that of its manifest."""
    path = Path(dataset)
    return path if path.is_dir() else path.parent


def _folder_name(path: Path) -> str:
    absolute = Path(os.path.abspath(path))
    return absolute.parent.name if absolute.is_file() else absolute.name
