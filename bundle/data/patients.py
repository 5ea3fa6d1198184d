# SPDX-License-Identifier: Apache-2.0
"""Patient ids from DICOM headers, kept as keyed hashes: they tell that two images are of one patient, not of whom."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from bundle.errors import InputError, UserError
from bundle.files import write_atomically
from bundle.readers import DICOM, kind_of, split_frame
from bundle.readers.dicom import read_header

FROM_HEADER = "from-header"
"""As the patient of a manifest's row: take the Patient ID of the DICOM file."""

SALT_FILE, SALT_VARIABLE = "patient_salt.txt", "BUNDLE_PATIENT_SALT"
_SHORTEST_SALT = 16


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
