# SPDX-License-Identifier: Apache-2.0
"""The record by which a rerun knows that a case is done, and from which tables and reports are made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import UserError
from bundle.files import read_json, write_json

CASES = ".cases"
"""Folder of the records, below the output folder."""

RECORD, OUTLINE, HEAT = ".json", ".jpg", ".cam.jpg"
"""Endings of a record and of its pictures: the outlined image, and the heat map of one that is explained."""


@dataclass(frozen=True)
class Written:
    """What was written of one image.

    Args:
        files: below the output folder.
        refused: {"output", "reason"} of what its source does not allow.
    """

    files: tuple[str, ...]
    refused: tuple[dict[str, str], ...]


class Records:
    """The records of finished cases in an output folder: one JSON each, written after all else of its case.

    Args:
        folder: the output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, ending: str = RECORD) -> Path:
        """Where the record of a case lies, or a picture of its report."""
        return self.folder / CASES / f"{name}{ending}"

    def read(self, name: str) -> dict[str, Any]:
        """Return a record.

        Raises:
            InputError: it is missing or damaged.
        """
        return read_json(self.path(name), "run the command again")

    def write(
        self, name: str, key: str, finding: dict[str, Any], parts: Collection[str], written: Written, run: str
    ) -> None:
        """Record that a case is done, and by which run."""
        content = {
            **{"key": key, "parts": sorted(parts), "files": list(written.files), "refused": list(written.refused)},
            **{"run": run, "finding": finding},
        }
        write_json(self.path(name), content)

    def find(self, name: str, key: str, parts: Collection[str]) -> dict[str, Any] | None:
        """Return the record of a case if it is done: of equal input, models and options, and every file still there."""
        try:
            record = self.read(name)
        except UserError:
            return None
        done = record.get("key") == key and set(parts) <= set(record["parts"])
        return record if done and all((self.folder / file).is_file() for file in record["files"]) else None


@dataclass(frozen=True)
class Findings:
    """Findings that are read one at a time from their records whenever they are gone through."""

    records: Records
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for name in self.names:
            yield self.records.read(name)["finding"]
