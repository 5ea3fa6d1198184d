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

import difflib
import functools
import logging
import re
from collections import Counter
from pathlib import Path

from bundle.data.cases import LABELS, UNCLASSED, Listed, relative_path
from bundle.data.patients import FROM_HEADER
from bundle.data.tables import Row, Table, fold, read_csv, read_label
from bundle.errors import InputError

logger = logging.getLogger(__name__)

REQUIRED_COLUMNS = ("image", "mask", "label")
PATIENT_COLUMNS = ("patient", "patient_id")
COLUMNS = (*REQUIRED_COLUMNS, *PATIENT_COLUMNS, "frame")
MASK_SEPARATOR = ";"

_PERSON = re.compile(
    r"patient|^pat(id|no|nr|num|code|key)?$|患者|病人|пациент|subj(?!ective)|suje|soggett|person(?!al)|participant"
    r"|teilnehm|individu|proband|wom[ae]n|client|volunteer|donor|malade|mrn|^pid$|^case|^caso|^fall|pseudonym"
)
"""In the folded name of a column that tells whose an image is; what is spelt much like "patient" does too."""
_OCCASION = re.compile(
    r"^name$|^(study|exam|accession|visit|encounter|session|series|lesion|untersuchung|record|dossier|group|code|key"
    r"|hash|anon|birth)|identif|dob$|^(ssn|ipp|hn)$|(id|ids|nr|no|num|number|nummer|numero)$"
)
"""The same, of one that tells two images of a person apart from all others where its values repeat."""
_ATTRIBUTE = re.compile(r"(age|sex|gender|type)$|device|scanner|reader|class|label|categ|birads")
"""The same, of one that describes people or files, whatever else its name says."""
_MOST_IMAGES = 20
"""Of a value of such a column, in the mean: a hospital or a probe has more, a person has not."""


def list_manifest(path: Path) -> tuple[list[Listed], list[InputError]]:
    """List the rows of a manifest, sorted by image, and what is wrong with single rows.

    Paths are relative to the CSV's folder. The columns `patient` (or `patient_id`) and `frame` are optional; others
    are told and ignored, unless one seems to say whose the images are and none is the patient's. The file is read as
    `bundle.data.tables.read_csv` does. An image of a `frame` is named `cine.dcm[12]` from here on.

    Raises:
        InputError: the file cannot be read as such a table at all, two columns have one name, or a column that seems
            to tell whose the images are would be ignored.
    """
    table = read_csv(path)
    table.require(*REQUIRED_COLUMNS, mend=f"name the columns {', '.join(REQUIRED_COLUMNS)} and, if known, patient")
    _check_columns(table)
    listed, problems = table.read(_read_row, whole=True)
    nameless = sum(item.patient is None for item in listed.values())
    if 0 < nameless < len(listed):
        _tell_nameless(path, nameless, len(listed))
    return [listed[image] for image in sorted(listed)], problems


def _check_columns(table: Table) -> None:
    counts = Counter("patient" if fold(name) in map(fold, PATIENT_COLUMNS) else fold(name) for name in table.columns)
    for name in ("patient", "frame"):
        if counts[fold(name)] > 1:
            raise InputError(table.path, f"has {counts[fold(name)]} columns for {name}", "keep one of them")
    unknown = [name for name in table.columns if fold(name) not in map(fold, COLUMNS)]
    if not any(_patient(row) for _, row in table.rows):
        for name in unknown:
            if _tells_whose(table, name):
                reason = f"its column '{name}' seems to tell whose the images are, and is not one that is read"
                mend = (
                    "name it 'patient', or one of a person's images can stand in training and another in the test; if "
                    "it tells something else, rename or remove it"
                )
                raise InputError(table.path, reason, mend)
    if unknown:
        _tell_unknown(table.path, tuple(unknown))


@functools.cache  # a run lists its dataset more than once
def _tell_unknown(path: Path, columns: tuple[str, ...]) -> None:
    told = ", ".join(f"'{name}'{_resembling(name)}" for name in columns)
    logger.warning("%s: columns that are not read: %s", path, told)


@functools.cache
def _tell_nameless(path: Path, count: int, total: int) -> None:
    logger.warning(
        "%s: %d of %d rows name no patient: each of these images may come to stand apart from its patient's others; in "
        "a spreadsheet of merged cells fill them all",
        *(path, count, total),
    )


def _tells_whose(table: Table, column: str) -> bool:
    name = fold(column)
    values = [row[name] for _, row in table.rows if row.get(name)]
    if _ATTRIBUTE.search(name):
        return False
    if _PERSON.search(name) or difflib.get_close_matches(name, [*map(fold, PATIENT_COLUMNS)], n=1, cutoff=0.7):
        return bool(values)
    return _OCCASION.search(name) is not None and len(values) / _MOST_IMAGES <= len(set(values)) < len(values)


def _resembling(name: str) -> str:
    close = difflib.get_close_matches(fold(name), COLUMNS, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _patient(row: Row) -> str | None:
    patient = next((row[fold(name)] for name in PATIENT_COLUMNS if row.get(fold(name))), None)
    return FROM_HEADER if patient and fold(patient) == fold(FROM_HEADER) else patient


def _read_row(where: str, row: Row) -> Listed:
    label = read_label(where, row["label"], (*LABELS, UNCLASSED))
    try:
        image = relative_path(row["image"])
        masks = tuple(relative_path(mask) for mask in row["mask"].split(MASK_SEPARATOR) if mask.strip())
    except ValueError as error:
        raise InputError(where, str(error), "give it relative to the manifest's folder, without '..'") from error
    return Listed(with_frame(where, image, row.get("frame", "")), masks, label, _patient(row))


def with_frame(where: str, image: str, frame: str) -> str:
    """The name of one frame of a file, `cine.dcm[12]`, or the file's own where no frame is given.

    Raises:
        InputError: the frame is no number.
    """
    if not frame:
        return image
    number = re.fullmatch(r"([0-9]{1,6})(?:\.0+)?", frame)  # spreadsheets make 12.0 of a column with empty cells
    if number is None:
        raise InputError(where, f"frame '{frame}' is no number", "count frames from 0, or leave the field empty")
    return f"{image}[{int(number[1])}]"
