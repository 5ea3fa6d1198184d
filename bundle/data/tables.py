# SPDX-License-Identifier: Apache-2.0
"""Tables and files of datasets as their authors left them: any delimiter, a byte order mark, names in another case."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bundle.data.cases import IMAGE_SUFFIXES, LABELS, Listed
from bundle.errors import InputError

MAX_TABLE_BYTES = 50_000_000
"""An .xlsx file is a ZIP archive; one that unpacks to more than this is no table of a dataset of images."""

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table as text.

    Args:
        path: its file.
        columns: names as the file spells them.
        rows: line number in the file, and the fields by `fold`ed name.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Row], ...]

    def require(self, *names: str) -> None:
        """Raise InputError, with what was found, where a column is missing; case, spaces and `_` do not count."""
        found = {fold(column) for column in self.columns}
        missing = [name for name in names if fold(name) not in found]
        if missing:
            reason = f"lacks the columns {', '.join(missing)}; its header has {', '.join(self.columns) or 'nothing'}"
            raise InputError(self.path, reason, "restore the table as the dataset's authors published it")

    def read(self, read_row: Callable[[str, Row], Listed]) -> tuple[dict[str, Listed], list[InputError]]:
        """Read each row as an image, by its path; rows for which `read_row(where, row)` raises are told as problems."""
        listed: dict[str, Listed] = {}
        problems: list[InputError] = []
        for line, row in self.rows:
            where = f"{self.path} line {line}"
            try:
                item = read_row(where, row)
                if item.image in listed:
                    raise InputError(where, f"'{item.image}' is listed twice", "remove one of the rows")
                listed[item.image] = item
            except InputError as error:
                problems.append(error)
        return listed, problems


class Files:
    """The image files below a folder, found by name whatever their case and suffix; hidden ones are passed over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
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


def fold(name: str) -> str:
    """A column's name without case, spaces and punctuation: "Mask_tumor_filename" -> "masktumorfilename"."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def find_file(folder: Path, pattern: str) -> Path | None:
    """The file directly in the folder whose name matches a regular expression, whatever its case.

    None without one, or where the folder cannot be read.
    """
    try:
        names = sorted(folder.iterdir())
    except OSError:
        return None
    matches = (path for path in names if re.fullmatch(pattern, path.name, re.IGNORECASE))
    return next((path for path in matches if path.is_file() and not path.name.startswith((".", "~"))), None)


def read_label(where: str, text: str, allowed: Iterable[str] = LABELS) -> str:
    """A class in lower case.

    Raises:
        InputError: it is none that is allowed.
    """
    label = text.strip().lower()
    if label not in allowed:
        raise InputError(where, f"unknown class '{text}'", f"only {', '.join(allowed)} can be used; correct the row")
    return label


def read_csv(path: Path) -> Table:
    """Read a CSV file; its delimiter is the one of `,`, `;` and tab that its header has most of.

    Text that is not UTF-8, with or without a byte order mark, is read as Windows-1252.

    Raises:
        InputError: the file cannot be read or is no such table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        lines = [(reader.line_num, fields) for fields in reader]
    except csv.Error as error:
        raise InputError(path, f"is no CSV table (line {reader.line_num}: {error})", "save it as plain CSV") from error
    return _as_table(path, lines)


def read_xlsx(path: Path, column: str) -> Table:
    """Read the first sheet of an Excel workbook that has a column; stored values only, no formula is evaluated.

    Raises:
        InputError: openpyxl is not installed, the file cannot be read, or no sheet has the column.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError(path, "reading it needs the package openpyxl", "run: pip install openpyxl==3.1.5") from error
    mend = "restore the workbook as the dataset's authors published it"
    tables = []
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_TABLE_BYTES:
            raise InputError(path, f"unpacks to {size / 1e6:.0f} MB, more than {MAX_TABLE_BYTES / 1e6:.0f}", mend)
        workbook = load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            for sheet in workbook.worksheets:
                rows = sheet.iter_rows(values_only=True)
                tables.append(_as_table(path, [(number, [*map(_cell, row)]) for number, row in enumerate(rows, 1)]))
        finally:
            workbook.close()
    except InputError:
        raise
    except Exception as error:
        # openpyxl's parsers raise KeyError, ValueError, BadZipFile, ParseError and more on a bad file.
        raise InputError(path, f"is no readable Excel workbook ({error or type(error).__name__})", mend) from error
    for table in tables:
        if fold(column) in map(fold, table.columns):
            return table
    headers = "; ".join(", ".join(table.columns) or "nothing" for table in tables) or "nothing"
    raise InputError(path, f"no sheet has the column {column}; the headers are {headers}", mend)


def _as_table(path: Path, lines: list[tuple[int, list[str]]]) -> Table:
    filled = [(number, fields) for number, fields in lines if any(field.strip() for field in fields)]
    columns = tuple(name.strip() for name in filled[0][1]) if filled else ()
    rows = []
    for number, fields in filled[1:]:
        padded = [*fields, *[""] * (len(columns) - len(fields))]
        rows.append((number, {fold(name): padded[i].strip() for i, name in enumerate(columns) if name}))
    return Table(path, tuple(filter(None, columns)), tuple(rows))


def _cell(value: Any) -> str:
    """A cell as text; Excel keeps whole numbers as floats."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
