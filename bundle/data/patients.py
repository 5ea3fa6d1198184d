# SPDX-License-Identifier: Apache-2.0
"""Whose an image is: ids from DICOM headers, kept as keyed hashes, and ids that a table spells in several ways."""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bundle.data.cases import Listed
from bundle.errors import InputError, UserError
from bundle.files import write_atomically
from bundle.readers import DICOM, kind_of, split_frame
from bundle.readers.dicom import read_header

logger = logging.getLogger(__name__)

FROM_HEADER = "from-header"
"""As the patient of a manifest's row: take the Patient ID of the DICOM file."""

SALT_FILE, SALT_VARIABLE = "patient_salt.txt", "BUNDLE_PATIENT_SALT"
_SHORTEST_SALT = 16


def join_spellings(listed: Iterable[Listed]) -> list[Listed]:
    """One spelling of each patient: `P7`, `p 7`; `7`, `7.0`, `007` are one person, in the spelling that comes first.

    Two people taken for one stand in one part of a split and do no harm; one taken for two would be torn.
    """
    first: dict[str, str] = {}
    joined: list[Listed] = []
    for item in listed:
        if item.patient is not None:
            spelling = first.setdefault(_plain(item.patient), item.patient)
            if spelling != item.patient:
                _tell_joined(item.patient, spelling)
                item = replace(item, patient=spelling)
        joined.append(item)
    return joined


def _plain(patient: str) -> str:
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", patient)).casefold()
    number = re.fullmatch(r"0*(\d+)(\.0+)?", text)
    return number[1] if number else text


@functools.cache  # a run lists its dataset more than once
def _tell_joined(patient: str, spelling: str) -> None:
    logger.warning("the patients '%s' and '%s' are taken as one", spelling, patient)


def new_salt() -> bytes:
    """A random key, for a check whose result is not kept."""
    return secrets.token_hex(32).encode()


def patient_salt(prepared_dir: Path) -> bytes:
    """Return the key for the patients of a prepared dataset.

    It is the environment variable ``BUNDLE_PATIENT_SALT``, which gives the same hashes in every prepared folder; or
    ``patient_salt.txt`` in this folder, made at random when it is missing. Who has the key can try all ids of a
    hospital: do not pass it on with the data, or delete it when nothing is to be prepared again.

    Raises:
        UserError: the variable is too short to protect anything, or the file can not be read or written.
    """
    given = os.environ.get(SALT_VARIABLE)
    if given is not None:
        if len(given) < _SHORTEST_SALT:
            raise UserError(f"{SALT_VARIABLE}: {len(given)} characters are too few; give {_SHORTEST_SALT} or more")
        return given.encode()
    path = prepared_dir / SALT_FILE
    if not path.exists():
        write_atomically(path, new_salt())
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, f"can not be read ({error.strerror})", "restore it or delete it") from error


def hashed_patient(image: str | os.PathLike[str], salt: bytes) -> str:
    """Return the keyed hash of the Patient ID, with its issuer, of a DICOM file: 16 hexadecimal digits.

    Raises:
        InputError: the file is no DICOM, or its header names no patient.
    """
    file = split_frame(image)[0]
    if kind_of(file) != DICOM:
        raise InputError(
            file, f"is no DICOM file, so no header tells its patient ('{FROM_HEADER}')", "name the patient"
        )
    header = read_header(file)
    patient, issuer = (str(header.get(key) or "").strip() for key in ("PatientID", "IssuerOfPatientID"))
    if not patient:
        raise InputError(file, "its header names no patient (0010,0020)", "name the patient in the manifest")
    return hmac.new(salt, f"{patient}\n{issuer}".encode(), hashlib.sha256).hexdigest()[:16]
