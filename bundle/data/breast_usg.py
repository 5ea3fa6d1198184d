# SPDX-License-Identifier: Apache-2.0
"""BrEaST's layout: an Excel table, and one folder of `case001.png`, `case001_tumor.png`, `case001_other1.png`.

Pawłowska A. et al., Curated benchmark dataset for ultrasound based breast lesion analysis, Scientific Data 11 (2024)
148. One image per patient. The masks of other findings (`_other1`) are not lesions to segment and are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path

from bundle.data.cases import Listed
from bundle.data.named_files import Files, find_file
from bundle.data.tables import Row, read_label, read_xlsx
from bundle.errors import InputError

TABLE = r"BrEaST-Lesions-USG.*\.xlsx"
_DETAILS = {"birads": "birads", "diagnosis": "diagnosis", "verification": "verification", "pixelsize": "pixel_size"}
_SPACING_RANGE_MM = (0.01, 1.0)
"""Of a breast scan; a Pixel_size outside is a slip of the table."""

_MASK_SUFFIX = re.compile(r".+_(tumor|other)\d*", re.IGNORECASE)


def is_breast_layout(folder: Path) -> bool:
    """Whether BrEaST's Excel table lies in the folder, or beside it."""
    return _find(folder) is not None


def list_breast(folder: Path) -> tuple[list[Listed], list[InputError]]:
    """List the images of BrEaST, sorted, and what is wrong with single rows.

    `details` hold the BI-RADS category, the diagnosis, how it was verified, `pixel_size` as the table states it, and
    `spacing_mm`, the distance of pixel centres both ways. Nothing in the table says in which unit `pixel_size` is. It
    is cm: in 115 of the 256 images, of seven pixel sizes, the width of the picture is 3.78 or 3.79 of them, which is
    the aperture of a probe of 38 mm.

    Raises:
        InputError: the table is missing, cannot be read, or lacks a column.
    """
    path = _find(folder)
    if path is None:
        raise InputError(folder, "no BrEaST-Lesions-USG-….xlsx is in it or beside it", "put the table there")
    table, files = read_xlsx(path, "Image_filename"), Files(folder)
    table.require("CaseID", "Image_filename", "Mask_tumor_filename", "Classification")

    def read_row(where: str, row: Row) -> Listed:
        label = read_label(where, row["classification"])
        image = files.find(row["imagefilename"])
        if image is None:
            reason = f"the image '{row['imagefilename']}' is not in the folder"
            raise InputError(where, reason, "add the file or remove the row")
        if not row["caseid"]:
            raise InputError(where, "names no patient: CaseID is empty", "fill it in")
        # Several tumours of one image are named in one cell, joined by "&".
        names = [name.strip() for name in re.split(r"[&;,]", row["masktumorfilename"]) if name.strip()]
        masks = [files.find(name) for name in names]
        if None in masks:
            reason = f"its mask '{names[masks.index(None)]}' is not in the folder"
            raise InputError(folder / image, reason, "add the mask or remove the row")
        details = {name: row[key] for key, name in _DETAILS.items() if row.get(key)} | _spacing(
            row.get("pixelsize", "")
        )
        return Listed(image, tuple(mask for mask in masks if mask), label, row["caseid"], details=details)

    listed, problems = table.read(read_row)
    named = [image for _, row in table.rows if (image := files.find(row["imagefilename"])) is not None]
    problems += files.unlisted(named, path, lambda stem: _MASK_SUFFIX.fullmatch(stem) is not None)
    return [listed[image] for image in sorted(listed)], problems


def _spacing(pixel_size: str) -> dict[str, str]:
    """The spacing in mm of a Pixel_size in cm, as a detail; nothing where it is no plausible number."""
    try:
        spacing = 10 * float(pixel_size.replace(",", "."))
    except ValueError:
        return {}
    low, high = _SPACING_RANGE_MM
    return {"spacing_mm": f"{spacing:g}"} if low <= spacing <= high else {}


def _find(folder: Path) -> Path | None:
    """The table in the folder, or, where the folder holds BrEaST's images, beside it: other datasets may lie there."""
    inside = find_file(folder, TABLE)
    if inside is not None or find_file(folder, r"case\d+\.\w+") is None:
        return inside
    return find_file(folder.resolve().parent, TABLE)
