# SPDX-License-Identifier: Apache-2.0
"""Tables as people save them: any delimiter, a byte order mark, rows of nothing, names of columns in any spelling."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data.cases import LABELS, Listed
from bundle.errors import InputError

DELIMITERS = ",;\t|"
_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Characters without a width, which come along when a cell is copied from a page or a chat."""

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
        torn: lines with more or fewer fields than the header, as a field that holds the delimiter makes them.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Row], ...]
    torn: frozenset[int] = frozenset()

    def require(self, *names: str, mend: str = "restore the table as the dataset's authors published it") -> None:
        """Raise InputError where a column is missing or is there twice; case, spaces and `_` do not count."""
        found = Counter(fold(column) for column in self.columns)
        twice = [name for name in names if found[fold(name)] > 1]
        if twice:
            raise InputError(self.path, f"has {found[fold(twice[0])]} columns for {twice[0]}", "keep one of them")
        missing = [name for name in names if fold(name) not in found]
        if missing:
            reason = f"lacks the columns {', '.join(missing)}; its header has {', '.join(self.columns) or 'nothing'}"
            raise InputError(self.path, reason, mend)

    def read(
        self, read_row: Callable[[str, Row], Listed], whole: bool = False
    ) -> tuple[dict[str, Listed], list[InputError]]:
        """Read each row as an image, by its path; rows for which `read_row(where, row)` raises are told as problems.

        With `whole`, so are rows with more or fewer fields than the header.
        """
        listed: dict[str, Listed] = {}
        problems: list[InputError] = []
        for line, row in self.rows:
            where = f"{self.path} line {line}"
            try:
                if whole and line in self.torn:
                    mend = "quote fields that hold the delimiter"
                    raise InputError(where, "has more or fewer fields than the header", mend)
                item = read_row(where, row)
                if item.image in listed:
                    raise InputError(where, f"'{item.image}' is listed twice", "keep one row, with all its masks")
                listed[item.image] = item
            except InputError as error:
                problems.append(error)
        return listed, problems


def fold(name: str) -> str:
    """A column's name without case, accents, spaces and punctuation: "Mask_tumor_filename" -> "masktumorfilename"."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", name).casefold())


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
    """Read a CSV file; its delimiter is the one of `,`, `;`, tab and `|` that its header has most of.

    A first line `sep=;`, as Excel writes and reads it, has the last word on that. Text is UTF-8 or UTF-16 by its byte
    order mark, else UTF-8, else Windows-1252.

    Raises:
        InputError: the file cannot be read or is no such table, or a quote that is not closed swallows whole rows.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    try:
        text = as_text(content)
    except UnicodeDecodeError as error:
        raise InputError(path, f"is no text ({error.reason})", "save it as plain CSV") from error
    if "\0" in text:
        raise InputError(path, "is no text: it holds NUL, as workbooks and UTF-16 do", "save it as CSV in UTF-8")
    header, _, rest = text.partition("\n")
    said = re.fullmatch(r'"?sep=(.)"?\r?', header, re.IGNORECASE)
    if said:
        text = rest
    delimiter = said[1] if said else max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != " ")
    try:
        lines = [(reader.line_num + bool(said), fields) for fields in reader]
    except csv.Error as error:
        raise InputError(path, f"is no CSV table (line {reader.line_num}: {error})", "save it as plain CSV") from error
    width = next((len(fields) for _, fields in lines if fields), 0)
    for line, fields in lines:
        if any(_swallows_rows(field, delimiter, width) for field in fields):
            reason = f"a field that ends in line {line} holds whole rows, as a quote that is not closed makes it"
            raise InputError(path, reason, "close the quote or remove it")
    return _as_table(path, lines)


def _swallows_rows(field: str, delimiter: str, width: int) -> bool:
    """Whether a line inside a field has the delimiters of a row; one alone is usual in a remark."""
    return any(line.count(delimiter) >= max(width - 1, 2) for line in field.splitlines()[1:])


def as_text(content: bytes) -> str:
    """Decode a text file by its byte order mark, else as UTF-8, else as Windows-1252; the mark is taken off.

    Raises:
        UnicodeDecodeError: it is UTF-16 by its mark, and is not.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


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
    columns = tuple(map(_trim, filled[0][1])) if filled else ()
    rows, torn = [], []
    for number, fields in filled[1:]:
        if len(fields) < len(filled[0][1]) or any(field.strip() for field in fields[len(filled[0][1]) :]):
            torn.append(number)
        padded = [*fields, *[""] * (len(columns) - len(fields))]
        rows.append((number, {fold(name): _trim(padded[i]) for i, name in enumerate(columns) if name}))
    return Table(path, tuple(filter(None, columns)), tuple(rows), frozenset(torn))


def _trim(text: str) -> str:
    return text.strip().strip(_UNSEEN).strip()


def _cell(value: Any) -> str:
    """A cell as text; Excel keeps whole numbers as floats."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
