# SPDX-License-Identifier: Apache-2.0
"""BUS-BRA's layout: `bus_data.csv` beside `Images/bus_0001-l.png` and `Masks/mask_0001-l.png`; the patient is `Case`.

Gómez-Flores W., Gregorio-Calas M. J., Coelho de Albuquerque Pereira W., BUS-BRA: a breast ultrasound dataset for
assessing computer-aided diagnosis systems, Medical Physics 51 (2024) 3110-3123.
"""

from __future__ import annotations

import re
from pathlib import Path

from bundle.data.cases import DIAGNOSES, Listed
from bundle.data.named_files import Files, find_file
from bundle.data.tables import Row, read_csv, read_label
from bundle.errors import InputError

TABLE, FOLDS = r"bus_data\.csv", r"5-fold-cv\.csv"
_DETAILS = ("histology", "birads", "device", "side")


def is_bus_bra_layout(folder: Path) -> bool:
    """Whether the folder holds `bus_data.csv`."""
    return find_file(folder, TABLE) is not None


def list_bus_bra(folder: Path) -> tuple[list[Listed], list[InputError]]:
    """List the images of BUS-BRA, sorted, and what is wrong with single rows.

    `details` hold the histology, BI-RADS category, device and side, the size that the table states, and, as `fold`,
    the fold of `5-fold-cv.csv`.

    Raises:
        InputError: the table is missing or lacks a column.
    """
    path = find_file(folder, TABLE)
    if path is None:
        raise InputError(folder, "holds no bus_data.csv", "give the folder that holds it, Images and Masks")
    table, files, folds = read_csv(path), Files(folder), _read_folds(folder)
    table.require("ID", "Case", "Pathology")

    def read_row(where: str, row: Row) -> Listed:
        label = read_label(where, row["pathology"], DIAGNOSES)
        image = files.find(row["id"], "Images")
        if image is None:
            raise InputError(where, f"the image '{row['id']}' is not in Images", "add the file or remove the row")
        name = re.sub(r"^bus_?", "mask_", Path(image).stem, flags=re.IGNORECASE)
        mask = files.find(name, "Masks")
        if mask is None:
            raise InputError(folder / image, f"its mask '{name}' is not in Masks", "add the mask or remove the row")
        if not row["case"]:
            raise InputError(where, "names no patient: Case is empty", "fill it in")
        details = {key: row[key] for key in _DETAILS if row.get(key)}
        if row.get("height") and row.get("width"):
            details["stated_size"] = f"{row['height']}×{row['width']}"
        if folds.get(row["id"].lower()):
            details["fold"] = folds[row["id"].lower()]
        return Listed(image, (mask,), label, row["case"], details=details)

    listed, problems = table.read(read_row)
    problems += files.unlisted(
        [*listed, *_named(files, table.rows)], path, lambda stem: stem.lower().startswith("mask")
    )
    return [listed[image] for image in sorted(listed)], problems


def _named(files: Files, rows: tuple[tuple[int, Row], ...]) -> list[str]:
    """The images that rows name, good or bad."""
    return [image for _, row in rows if (image := files.find(row["id"], "Images")) is not None]


def _read_folds(folder: Path) -> dict[str, str]:
    """Each image's fold by its lower-case id; empty without the file or its columns."""
    path = find_file(folder, FOLDS)
    if path is None:
        return {}
    return {row["id"].lower(): row["kfold"] for _, row in read_csv(path).rows if row.get("id") and row.get("kfold")}
