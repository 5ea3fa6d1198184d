# SPDX-License-Identifier: Apache-2.0
"""The `per_image.csv` that an evaluation wrote, read again: perhaps after a spreadsheet saved it in its own way."""

from __future__ import annotations

import math
import os
from pathlib import Path

from bundle.data.tables import fold, read_csv
from bundle.errors import InputError

Cells = dict[str, str]
REQUIRED = ("image", "class", "group")


def read_per_image(path: str | os.PathLike[str], mend: str) -> dict[str, Cells]:
    """Read the rows of an evaluation's table: image -> cells as text, under the names that the header gives them.

    Delimiters and encodings are as in `bundle.data.tables.read_csv`.

    Raises:
        InputError: the file is no such table, a row has too few or too many fields, or an image has two rows.
    """
    table = read_csv(Path(path))
    if not {fold(name) for name in REQUIRED} <= {fold(name) for name in table.columns} or not table.rows:
        raise InputError(path, f"is no table of an evaluation (it lacks {', '.join(REQUIRED)} or rows)", mend)
    table.require(*REQUIRED)
    rows: dict[str, Cells] = {}
    for line, row in table.rows:
        if line in table.torn:
            raise InputError(f"{os.fspath(path)} line {line}", "has more or fewer fields than the header", mend)
        if row["image"] in rows:
            raise InputError(f"{os.fspath(path)} line {line}", f"'{row['image']}' has a row already", "keep one")
        rows[row["image"]] = {name: row[fold(name)] for name in table.columns}
    return rows


def read_number(path: str | os.PathLike[str], image: str, text: str) -> float:
    """A cell as a finite number.

    Raises:
        InputError: it is none, as where a spreadsheet wrote a decimal comma.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(path, f"'{text}' of '{image}' is no number", "give the table as the evaluation wrote it")
    return number
