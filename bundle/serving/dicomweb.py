# SPDX-License-Identifier: Apache-2.0
"""A study out of a DICOMweb archive, and our objects into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydicom import dcmread
from pydicom.uid import UID

from bundle.errors import UserError
from bundle.files import make_folder
from bundle.outputs.dicom import quiet_dicom, write_dicom
from bundle.readers.dicom import CAPTURE_CLASSES, IMAGE_CLASSES

TOKEN = "DICOMWEB_TOKEN"
"""Environment variable with a bearer token; user and password belong into ~/.netrc, not into the address."""

_ANY_SYNTAX = (("application/dicom", "*"),)
_MODALITY, _CLASS, _INSTANCE, _SERIES = "00080060", "00080016", "00080018", "0020000E"


class DicomWeb:
    """An archive with QIDO-RS, WADO-RS and STOW-RS.

    Args:
        url: the root of its service, such as http://127.0.0.1:8042/dicom-web.

    Raises:
        UserError: dicomweb-client is missing, the address is none, or, from every method, the archive does not do as
            it is asked.
    """

    def __init__(self, url: str) -> None:
        try:
            from dicomweb_client import DICOMwebClient
        except ImportError as error:
            raise UserError(
                f"--dicomweb needs dicomweb-client ({error}); pip install -r requirements-clinic.txt"
            ) from None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UserError("the archive's address is none; give http(s)://HOST/PATH, user and password in ~/.netrc")
        token = os.environ.get(TOKEN)
        self.url = url
        with self._told("does not work"):
            self._client = DICOMwebClient(url, headers={"Authorization": f"Bearer {token}"} if token else None)

    def fetch(self, study: str, folder: Path, told: Callable[[int, int], None] = lambda *_: None) -> list[Path]:
        """Fetch the ultrasound images of a study, as they are stored; each is a file named by its UID.

        Args:
            study: its UID.
            folder: for the files.
            told: is called with how many images there are and how many are fetched.
        """
        if not UID(study).is_valid:
            raise UserError(f"{study}: no UID; give the Study Instance UID, digits and dots")
        make_folder(folder)
        with self._told(f"cannot list study {study}"):
            listed = self._client.search_for_instances(study, fields=["SOPClassUID", "Modality"])
            found = [pair for item in listed if (pair := _image(item)) is not None]
        if not found:
            raise UserError(f"{self.url}: study {study} has no ultrasound image, or is not there; check the UID")
        paths = []
        for series, uid in found:
            with self._told(f"cannot give image {uid}"), quiet_dicom():
                dataset = self._client.retrieve_instance(study, series, uid, media_types=_ANY_SYNTAX)
            paths.append(folder / f"{uid}.dcm")
            write_dicom(dataset, paths[-1])
            told(len(found), len(paths))
        return paths

    def store(self, files: Iterable[Path]) -> int:
        """Store DICOM objects, one after another; returns how many."""
        count = 0
        for path in files:
            with self._told(f"does not take {path.name}"), quiet_dicom():
                answer = self._client.store_instances([dcmread(path)])
            if answer.get("FailedSOPSequence"):
                reason = answer.FailedSOPSequence[0].get("FailureReason", 0)
                raise UserError(f"{self.url}: does not take {path.name} (0x{reason:04X}); see the archive's log")
            count += 1
        return count

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of requests, of JSON, of pydicom
            reason = " ".join((_reason_of_system(error) or str(error)).split())[:200] or type(error).__name__
            raise UserError(f"{self.url}: {what} ({reason}); check the address and the archive's log") from None


def _reason_of_system(error: BaseException) -> str | None:
    """What the system says of a connection that failed, such as "Connection refused": requests wraps it three times."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return None


def _image(item: dict[str, Any]) -> tuple[str, str] | None:
    """Series and UID of a listed instance, where it is an image that may be read."""
    values = {tag: (item.get(tag, {}).get("Value") or [""])[0] for tag in (_MODALITY, _CLASS, _INSTANCE, _SERIES)}
    uids = (str(values[_SERIES]), str(values[_INSTANCE]))
    # An archive need not tell the class or the modality of an instance; what is told must fit.
    fits = values[_CLASS] in IMAGE_CLASSES | CAPTURE_CLASSES | {""} and values[_MODALITY] in ("US", "")
    return uids if fits and all(UID(uid).is_valid for uid in uids) else None
