# SPDX-License-Identifier: Apache-2.0
"""Where answers go: peers, by C-STORE, or a folder."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context

from bundle.errors import InputError, UserError
from bundle.files import write_atomically
from bundle.serving.outgoing import open_association
from bundle.serving.queue import Answer
from bundle.serving.receive import check_ae_title

_ANSWER = 120
"""Seconds that a peer has to answer an object."""


class Target(ABC):
    """Where answers go; its name stands in the queue."""

    name: str

    @abstractmethod
    def deliver(self, answers: Sequence[Answer], folder: Path, told: Callable[[Answer, str], None]) -> None:
        """Deliver answers one after another.

        Args:
            answers: their files lie below the folder.
            folder: of the node.
            told: is called for each that was tried, with "" or with why it was not taken.

        Raises:
            ConnectionError: the target cannot be reached; what was not told of was not tried.
        """


@dataclass(frozen=True)
class FolderTarget(Target):
    """A folder that gets every answer as STUDY/UID.dcm."""

    folder: Path

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its path."""
        return str(self.folder)

    def deliver(self, answers: Sequence[Answer], folder: Path, told: Callable[[Answer, str], None]) -> None:
        """Copy answers; a file bears its name when it is whole."""
        for answer in answers:
            try:
                write_atomically(self.folder / answer.study / f"{answer.uid}.dcm", (folder / answer.file).read_bytes())
            except InputError as error:
                raise ConnectionError(error.reason) from error
            told(answer, "")


@dataclass(frozen=True)
class Peer(Target):
    """An application entity that takes objects by C-STORE.

    Args:
        ae_title: its AE title.
        host: its name or address.
        port: its port.
        own_title: ours.
        tls: for a connection by TLS; None for none.
    """

    ae_title: str
    host: str
    port: int
    own_title: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """As it was given: AETITLE@HOST:PORT."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, own_title: str = "", tls: ssl.SSLContext | None = None) -> Peer:
        """Read "AETITLE@HOST:PORT".

        Raises:
            UserError: it is not of this form.
        """
        title, _, address = text.partition("@")
        host, _, port = address.rpartition(":")
        check_ae_title(title, text)
        if not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise UserError(f"{text}: no host and port; give AETITLE@HOST:PORT, such as PACS@10.1.2.3:104")
        return cls(title, host.strip("[]"), int(port), own_title, tls)

    def deliver(self, answers: Sequence[Answer], folder: Path, told: Callable[[Answer, str], None]) -> None:
        """Send answers over one association."""
        syntaxes: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        contexts = [build_context(uid, syntaxes) for uid in sorted({answer.sop_class for answer in answers})]
        address = (self.host, self.port)
        association = open_association(self.own_title, address, self.ae_title, contexts, self.tls, _ANSWER)
        if not association.is_established:
            if association.rejected_contexts:  # an association without one accepted context is none
                for answer in answers:
                    told(answer, _refuses(answer))
                return
            raise ConnectionError("rejects the association" if association.is_rejected else "cannot be reached")
        try:
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
            for answer in answers:
                if answer.sop_class not in accepted:
                    told(answer, _refuses(answer))
                    continue
                status = association.send_c_store(folder / answer.file)
                if "Status" not in status:
                    raise ConnectionError("does not answer")
                # Warnings (0xB000 and on) say that the object was stored.
                stored = status.Status == 0x0000 or status.Status >> 12 == 0xB
                told(answer, "" if stored else f"refuses an object with status 0x{status.Status:04X}")
        finally:
            if association.is_established:
                association.release()


def _refuses(answer: Answer) -> str:
    return f"refuses objects of class {answer.sop_class}"
