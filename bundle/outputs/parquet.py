# SPDX-License-Identifier: Apache-2.0
"""Write the table of all findings as Parquet, for tables too long for a spreadsheet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bundle.errors import InputError, UserError
from bundle.files import open_atomically
from bundle.outputs.findings import flat_row

ROWS = 20_000
"""Rows of a part at most: what is held in memory at once, some tens of MB."""

_INTEGERS = ("schema_version", "frame", "top", "left", "bottom", "right")
_TEXTS = ("image", "lesion_state", "reason", "call", "warnings", "site", "notice", "skipped")


def load_pyarrow() -> Any:
    """Import what reads and writes Parquet.

    Raises:
        UserError: it is missing.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"parquet needs pyarrow ({error}); pip install -r requirements-ray.txt") from None
    return pyarrow


def write_findings_parquet(findings: Iterable[dict[str, Any]], skipped: Iterable[dict[str, str]], folder: Path) -> None:
    """Write a folder of parts, which readers of Parquet take for one table.

    One row per finding, with the columns of the CSV; then one per file without a finding, with its name as ``image``,
    the reason as ``skipped`` and no other value.

    Args:
        findings: as `Finding.as_dict` gives them.
        skipped: {"path", "reason", "mend"}.
        folder: gets ``part-00000.parquet`` and so on; it is replaced as a whole, when all parts are written.

    Raises:
        InputError: it cannot be written.
    """
    arrow = load_pyarrow()
    rows = chain(
        ({**flat_row(finding), "skipped": None} for finding in findings),
        ({"image": bad["path"], "skipped": f"{bad['reason']}; {bad['mend']}"} for bad in skipped),
    )
    new = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)  # of a run that was killed here
        schema = None
        for number, part in enumerate(_in_parts(rows)):
            schema = schema or _schema(arrow, part[0])
            with open_atomically(new / f"part-{number:05d}.parquet") as file:
                arrow.parquet.write_table(arrow.Table.from_pylist(part, schema), file)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    except OSError as error:
        mend = "choose a writable place with free space"
        raise InputError(folder, f"cannot be written ({error.strerror})", mend) from error


def _in_parts(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Text that is no UTF-8, as file names can be, is written with escapes, as in the CSV."""
    while part := list(islice(rows, ROWS)):
        yield [{name: _clean(value) for name, value in row.items()} for row in part]


def _clean(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _schema(arrow: Any, row: dict[str, Any]) -> Any:
    """Types by column, not by value: they must not depend on which images are in a part."""

    def kind(name: str) -> Any:
        if name in _TEXTS or name.startswith("decision at ") or name.endswith("_sha256"):
            return arrow.string()
        if name in _INTEGERS:
            return arrow.int64()
        return arrow.float64()

    return arrow.schema([(name, kind(name)) for name in row])
