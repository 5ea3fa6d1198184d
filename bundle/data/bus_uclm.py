# SPDX-License-Identifier: Apache-2.0
"""BUS-UCLM's layout: `INFO.csv` beside `images/ALWI_000.png` and `masks/ALWI_000.png`; the patient is the prefix.

Vallez N., Bueno G., Deniz O., Rienda M. A., Pastor C., BUS-UCLM: Breast ultrasound lesion segmentation dataset,
Scientific Data 12 (2025) 242. The masks are coloured: benign is green, malignant red, and a normal image's mask black.
"""

from __future__ import annotations

import re
from pathlib import Path

from bundle.data.cases import Listed
from bundle.data.named_files import Files, find_file
from bundle.data.tables import Row, read_csv, read_label
from bundle.errors import InputError
from bundle.readers.image import read_colours

TABLE = r"INFO\.csv"
FLAGS = ("doppler", "marks", "combined")
"""Columns that say what else than B-mode tissue is in an image: colour Doppler, drawn marks, two views side by side."""

_NO = ("", "no", "n", "false", "0", "none", "-")
_PATIENT = re.compile(r"(?P<patient>.*?)[ _-]*\d+", re.DOTALL)


def is_bus_uclm_layout(folder: Path) -> bool:
    """Whether the folder holds `INFO.csv` and a folder `masks`."""
    return find_file(folder, TABLE) is not None and any(
        path.name.lower() == "masks" and path.is_dir() for path in folder.iterdir()
    )


def list_bus_uclm(folder: Path) -> tuple[list[Listed], list[InputError]]:
    """List the images of BUS-UCLM, sorted, and what is wrong with single rows.

    The class is the table's; `contradicts` compares it with the colour of the mask. A flag that says neither yes nor
    no counts as yes.

    Raises:
        InputError: the table is missing or lacks a column.
    """
    path = find_file(folder, TABLE)
    if path is None:
        raise InputError(folder, "holds no INFO.csv", "give the folder that holds it, images and masks")
    table, files = read_csv(path), Files(folder)
    table.require("Image", "Label")

    def read_row(where: str, row: Row) -> Listed:
        label = read_label(where, row["label"])
        image = files.find(row["image"], "images")
        if image is None:
            raise InputError(where, f"the image '{row['image']}' is not in images", "add the file or remove the row")
        match = _PATIENT.fullmatch(Path(image).stem)
        if match is None or not match["patient"]:
            reason = "its name is no patient's prefix and a number, such as ALWI_000"
            raise InputError(folder / image, reason, "restore the name that the dataset's authors gave it")
        mask = files.find(row["image"], "masks")
        if mask is None and label != "normal":
            raise InputError(folder / image, "its mask is not in masks", "add the mask or remove the row")
        flags = tuple(name for name in FLAGS if row.get(name, "").lower() not in _NO)
        return Listed(image, (mask,) if mask else (), label, match["patient"], flags=flags)

    listed, problems = table.read(read_row)
    named = [image for _, row in table.rows if (image := files.find(row["image"], "images")) is not None]
    problems += files.unlisted(named, path, lambda stem: False)
    return [listed[image] for image in sorted(listed)], problems


def contradicts(mask: Path, label: str) -> str | None:
    """Why a mask's colour and the table's class cannot both be right; None where they can.

    A mask without green and red, such as a black or a white one, says nothing of the class.

    Raises:
        InputError: the mask cannot be read.
    """
    colours = read_colours(mask)
    red, green = colours[..., 0] > 127, colours[..., 1] > 127
    drawn = {"benign": int((green & ~red).sum()), "malignant": int((red & ~green).sum())}
    if not any(drawn.values()) or drawn.get(label, 0) > 0:
        return None
    colour = "red (malignant)" if drawn["malignant"] else "green (benign)"
    return f"the mask is {colour}, but INFO.csv says {label}"
