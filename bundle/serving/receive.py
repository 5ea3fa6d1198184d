# SPDX-License-Identifier: Apache-2.0
"""Receiving images by C-STORE: who may send what, and the status that each object is answered with."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, StoragePresentationContexts, register_uid
from pynetdicom.events import Event
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from bundle.errors import InputError, UserError
from bundle.files import move_into_place
from bundle.outputs.dicom import MODEL_NAME
from bundle.readers.dicom import CAPTURE_CLASSES, IMAGE_CLASSES, check_geometry, opened
from bundle.readers.dicom_frame import READABLE
from bundle.readers.dicom_video import VIDEO
from bundle.serving.incoming import DISK_FULL
from bundle.serving.queue import PASSED_OVER, REFUSED, Image, Queue

logger = logging.getLogger(__name__)

SUCCESS, DUPLICATE, OWN_FAULT, INVALID_UID = 0x0000, 0x0111, 0x0110, 0x0117
OUT_OF_RESOURCES, OTHER_CLASS, NOT_UNDERSTOOD = 0xA700, 0xA900, 0xC000
"""Statuses of PS3.7 C and PS3.4 B.2.3 that an object is answered with."""

_DEFLATED = "1.2.840.10008.1.2.1.99"
_FIRST = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
SYNTAXES = (*_FIRST, *sorted((READABLE | VIDEO | {_DEFLATED}) - set(_FIRST)))
"""Transfer syntaxes that are accepted, in the order of preference: all that are read. A syntax that could not be
negotiated would make some archives send nothing of the study."""

CLASSES = sorted(
    {str(context.abstract_syntax) for context in (*StoragePresentationContexts, *AllStoragePresentationContexts)}
    | IMAGE_CLASSES
    | CAPTURE_CLASSES
)
"""SOP classes that are accepted: all of storage. What is no ultrasound image is passed over."""


def register_retired_classes() -> None:
    """Let pynetdicom serve the retired classes too: it negotiates them, and then ends the association at the object."""
    for uid in CLASSES:
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, f"Retired{uid.replace('.', '_')}", StorageServiceClass)


@dataclass(frozen=True)
class Sender:
    """Who may open an association.

    Args:
        ae_title: its calling AE title.
        network: addresses that it may come from; None for any.
    """

    ae_title: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None

    @classmethod
    def parse(cls, text: str) -> Sender:
        """Read "AETITLE" or "AETITLE@ADDRESS", the address one machine or a network such as 10.1.0.0/16.

        Raises:
            UserError: it is neither.
        """
        title, _, address = text.partition("@")
        check_ae_title(title, text)
        try:
            return cls(title, ipaddress.ip_network(address) if address else None)
        except ValueError as error:
            raise UserError(f"{text}: {error}; give AETITLE@ADDRESS, such as PACS@10.1.2.3") from None

    def admits(self, ae_title: str, address: str) -> bool:
        """Whether a caller is this one."""
        if ae_title.strip() != self.ae_title:
            return False
        try:
            return self.network is None or ipaddress.ip_address(address.removeprefix("::ffff:")) in self.network
        except ValueError:
            return False


def check_ae_title(title: str, text: str) -> None:
    """Refuse what is no AE title (PS3.5 6.2).

    Raises:
        UserError: it is empty, longer than 16 characters, or has others than printable ASCII.
    """
    if not (0 < len(title.strip()) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
        raise UserError(f"{text}: '{title}' is no AE title; give 1 to 16 characters, such as BUS_NODE")


class Receiver:
    """Puts received images into the queue.

    Args:
        queue: of the node.
        senders: who may send; empty for everybody.
        max_bytes: of one object.
        keep_free: bytes of the disk that are left free.
        received: called after each image that was kept.
    """

    def __init__(
        self, queue: Queue, senders: Sequence[Sender], max_bytes: int, keep_free: int, received: Callable[[], None]
    ) -> None:
        self.queue, self.senders = queue, tuple(senders)
        self.max_bytes, self.keep_free, self.received = max_bytes, keep_free, received
        self._lock = threading.Lock()

    def admit(self, event: Event) -> None:
        """Reject an association of somebody who is not on the list; bound to EVT_REQUESTED."""
        requestor: Any = event.assoc.requestor
        title, address = str(requestor.primitive.calling_ae_title), str(requestor.address)
        if self.senders and not any(sender.admits(title, address) for sender in self.senders):
            self._note(REFUSED, f"association from {address}: calling AE title and address are not allowed")
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # calling AE title not recognised
            event.assoc.kill()

    def forget(self, event: Event) -> None:
        """Delete what was received of an object whose association ended in its midst; bound to EVT_CONN_CLOSE."""
        message: Any = event.assoc.dimse.message
        if message is not None and message._data_set_path is not None:
            message._data_set_file.close()
            message._data_set_path.unlink(missing_ok=True)

    def store(self, event: Event) -> int | Dataset:
        """Answer a C-STORE; success means that the image is on the disk and will be answered; bound to EVT_C_STORE."""
        try:
            return self._store(event)
        except InputError as error:  # of the queue and of writing; what is wrong with the image is answered below
            logger.error("%s", error)
            return self._refuse(OUT_OF_RESOURCES, "the node cannot write to its disk")
        except Exception:
            logger.exception("an object could not be received")
            return self._refuse(OWN_FAULT, "an error of the node, which is in its log")

    def _store(self, event: Event) -> int | Dataset:
        request: Any = event.request
        path = event.dataset_path
        uid = str(request.AffectedSOPInstanceUID)
        if reason := request._dataset_file.reason:
            return self._refuse(OUT_OF_RESOURCES, reason)
        if not UID(uid).is_valid:
            return self._refuse(INVALID_UID, "its SOP Instance UID is malformed")
        try:
            with opened(path) as (header, _):
                refusal, image = self._judge(header, request, path)
        except InputError as error:
            return self._refuse(NOT_UNDERSTOOD, error.reason)
        if image is None:
            return refusal
        with self._lock:
            owner = self.queue.owner(uid)
            if owner not in (None, image.owner):
                return self._refuse(DUPLICATE, "this UID is known as of another patient or study")
            if owner is None:
                move_into_place(path, self.queue.path(uid))
                self.queue.add(image)
        self.received()
        return SUCCESS

    def _judge(self, header: Dataset, request: Any, path: Path) -> tuple[int | Dataset, Image | None]:
        """What an object is: an image to keep, or else the status to answer with.

        Raises:
            InputError: its header states what cannot be.
        """
        uids = {key: str(header.get(key, "")) for key in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")}
        named = (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        if (uids["SOPClassUID"], uids["SOPInstanceUID"]) != named:
            return self._refuse(OTHER_CLASS, "class or UID in the object differ from those it was sent as"), None
        if header.get("ManufacturerModelName") == MODEL_NAME:
            return self._pass_over("an object of this software"), None
        if uids["SOPClassUID"] not in IMAGE_CLASSES | CAPTURE_CLASSES or header.get("Modality") != "US":
            return self._pass_over("another class or modality than ultrasound images"), None
        if not UID(uids["StudyInstanceUID"]).is_valid:
            return self._refuse(NOT_UNDERSTOOD, "its Study Instance UID is missing or malformed"), None
        check_geometry(path, header)
        side = str(header.get("Laterality") or header.get("ImageLaterality") or "")
        whose = [
            str(header.get(key, "")) for key in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID")
        ]
        owner = hashlib.sha256("\0".join(whose).encode("utf-8", "backslashreplace")).hexdigest()
        known = side if side in ("L", "R") else ""
        return SUCCESS, Image(uids["SOPInstanceUID"], uids["StudyInstanceUID"], known, owner)

    def _pass_over(self, what: str) -> int:
        self._note(PASSED_OVER, what)
        return SUCCESS

    def _refuse(self, status: int, reason: str) -> Dataset:
        self._note(REFUSED, f"{reason} (status 0x{status:04X})")
        answer = Dataset()
        answer.Status = status
        answer.ErrorComment = reason.encode("ascii", "replace").decode()[:64]
        return answer

    def _note(self, kind: str, reason: str) -> None:
        logger.info("%s: %s", kind, reason)
        self.queue.note(kind, reason)

    def judge(self, size: int) -> str:
        """Why no object of a size in bytes can be taken; "" where it can."""
        if size > self.max_bytes:
            return f"larger than the limit of {self.max_bytes / 1e6:.0f} MB"
        return "" if shutil.disk_usage(self.queue.folder).free >= self.keep_free else DISK_FULL
