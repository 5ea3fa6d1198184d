# SPDX-License-Identifier: Apache-2.0
"""What tests of the node work with: images to send, a peer that keeps what it gets, sending, waiting."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.readers.fabricate import ultrasound


def scan(seed: int = 0, **elements: Any) -> Dataset:
    """A small ultrasound image with a dark oval in speckle; equal seeds give equal pixels under new UIDs."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:60, :80]
    pixels = random.integers(90, 190, (60, 80))
    pixels[((rows - 30) / 12) ** 2 + ((columns - 40) / 20) ** 2 < 1] //= 4
    return ultrasound(pixels.astype(np.uint8), **elements)


class Archive:
    """A peer that keeps what it gets; `answer` may be set to what it says."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: list[Dataset] = []
        self.answer: Callable[[Dataset], int] = lambda _: 0x0000
        self._tls = tls
        self._ae = AE("ARCHIVE")
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(context.abstract_syntax)
        self._server: Any = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, at the port of the first time."""
        self._server = self._ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=self.handlers(), ssl_context=self._tls
        )
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        """Listen no more."""
        self._ae.shutdown()

    def handlers(self) -> list[Any]:
        """What it does with requests."""
        return [(evt.EVT_C_STORE, self._store)]

    def take_only(self, sop_class: str) -> None:
        """Negotiate one class alone from now on."""
        self.stop()
        self._ae = AE("ARCHIVE")
        self._ae.add_supported_context(sop_class)
        self.start()

    def _store(self, event: Any) -> int:
        dataset = event.dataset
        status = self.answer(dataset)
        if status == 0x0000:
            self.objects.append(dataset)
        return status

    def of(self, source: Dataset) -> list[Dataset]:
        """What it got that refers to an image."""
        uid = str(source.SOPInstanceUID)
        return [each for each in self.objects if uid in references(each)]


def references(dataset: Dataset) -> set[str]:
    """The instances that a dataset refers to, by their UIDs."""
    return {str(e.value) for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID"}


def send(
    port: int, *datasets: Dataset, ae_title: str = "SCANNER", called: str = "BUS_NODE", **more: Any
) -> list[Dataset]:
    """Send datasets over one association; returns the status of each, none where there is no association."""
    ae = AE(ae_title=ae_title)
    for kind, syntax in {(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in datasets}:
        ae.add_requested_context(kind, syntax)
    association = ae.associate("127.0.0.1", port, ae_title=called, **more)
    if not association.is_established:
        return []
    try:
        return [association.send_c_store(dataset) for dataset in datasets]
    finally:
        association.release()


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError("it did not come to pass in time")
        time.sleep(0.02)
    return result


def statuses(answers: list[Dataset]) -> list[int]:
    """The status of each."""
    return [answer.Status for answer in answers]
