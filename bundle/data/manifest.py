# SPDX-License-Identifier: Apache-2.0
"""A CSV manifest: one row per image, for datasets that are not laid out like BUSI.

image,mask,label,patient
scans/001.png,masks/001.png,benign,P1
scans/002.png,masks/002a.png;masks/002b.png,malignant,P2
scans/003.png,,normal,P2

An archive's own files serve as they are; `frame` names one of several, `from-header` takes the patient from DICOM:

image,frame,mask,label,patient
US/IM0001,,SEG/IM0001.dcm,benign,from-header
US/cine.dcm,12,masks/cine_12.nii.gz,malignant,from-header
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from bundle.data.cases import LABELS, UNCLASSED, Listed, relative_path
from bundle.errors import InputError

REQUIRED_COLUMNS = ("image", "mask", "label")
MASK_SEPARATOR = ";"


def list_manifest(path: Path) -> tuple[list[Listed], list[InputError]]:
    """List the rows of a manifest, sorted by image, and what is wrong with single rows.

    Paths are relative to the CSV's folder. The columns `patient` and `frame` are optional, others are ignored. UTF-8,
    with or without a byte order mark; fields are separated by `,`, or by `;` where the header has no comma. An image
    of a `frame` is named `cine.dcm[12]` from here on.

    Raises:
        InputError: the file cannot be read as such a table at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(
            path, f"is not UTF-8 text ({error.reason} at byte {error.start})", "save it as UTF-8"
        ) from error
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="," if "," in header else ";")
    found = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    missing = [name for name in REQUIRED_COLUMNS if name not in found]
    if missing:
        reason = f"lacks the columns {', '.join(missing)}; its header has {', '.join(found) or 'nothing'}"
        raise InputError(path, reason, f"name the columns {', '.join(REQUIRED_COLUMNS)} and, if known, patient")
    reader.fieldnames = found
    listed: dict[str, Listed] = {}
    problems: list[InputError] = []
    try:
        for row in reader:
            where = f"{path} line {reader.line_num}"
            try:
                item = _read_row(where, row)
                if item.image in listed:
                    raise InputError(where, f"'{item.image}' is listed twice", "join its masks by ';' in one row")
                listed[item.image] = item
            except InputError as error:
                problems.append(error)
    except csv.Error as error:
        raise InputError(path, f"is no CSV table (line {reader.line_num}: {error})", "save it as plain CSV") from error
    return [listed[image] for image in sorted(listed)], problems


def _read_row(where: str, row: dict[str | None, str | list[str] | None]) -> Listed:
    if None in row or None in row.values():
        raise InputError(where, "has more or fewer fields than the header", "quote fields that hold the delimiter")
    fields = {name: str(value).strip() for name, value in row.items()}
    label = fields["label"].lower()
    if label not in (*LABELS, UNCLASSED):
        raise InputError(where, f"unknown class '{fields['label']}'", f"use {', '.join((*LABELS, UNCLASSED))}")
    try:
        image = relative_path(fields["image"])
        masks = tuple(relative_path(mask) for mask in fields["mask"].split(MASK_SEPARATOR) if mask.strip())
    except ValueError as error:
        raise InputError(where, str(error), "give it relative to the manifest's folder, without '..'") from error
    frame = fields.get("frame", "")
    if frame:
        if not (frame.isascii() and frame.isdigit() and len(frame) < 7):
            raise InputError(where, f"frame '{frame}' is no number", "count frames from 0, or leave the field empty")
        image = f"{image}[{int(frame)}]"
    return Listed(image, masks, label, fields.get("patient") or None)
