# SPDX-License-Identifier: Apache-2.0
"""The node: what receives, predicts, delivers, summarises and deletes, started and stopped together."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pynetdicom import AE, evt
from pynetdicom.events import EventHandlerType
from pynetdicom.transport import ThreadedAssociationServer

from bundle.errors import UserError
from bundle.files import lock_folder, make_folder
from bundle.outputs.case import check_installed
from bundle.serving.commitment import PUSH_MODEL, Commitments, take_report
from bundle.serving.delivery import Courier
from bundle.serving.incoming import clear_incoming, receiving_into
from bundle.serving.predictions import Predictions
from bundle.serving.queue import Queue
from bundle.serving.receive import CLASSES, SYNTAXES, Receiver, Sender, register_retired_classes
from bundle.serving.retention import delete_old
from bundle.serving.study import summarise_quiet_studies
from bundle.serving.targets import Peer, Target
from bundle.serving.worker import Worker

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_VERIFICATION = "1.2.840.10008.1.1"
_BETWEEN_DELETIONS = 60.0
_ACSE, _NETWORK = 30, 120
"""Seconds that a caller has to ask for an association, and may be silent in one."""


@dataclass(frozen=True)
class Settings:
    """What a node does.

    Args:
        folder: of the queue, one node at a time.
        ae_title: its own.
        host: address that it listens at.
        port: that it listens at; 0 for any free one.
        outputs: what answers an image, of ``seg sr sc`` …
        targets: who gets the answers.
        senders: who may send; empty for everybody, which only a loopback address may have.
        max_bytes: of one object.
        max_associations: at a time.
        keep_free: bytes of the disk that are left free.
        days: after which what was delivered is deleted.
        quiet: seconds after its last image until a study is summarised; None for no summaries.
        commit: seconds that a peer has to report its storage commitment; None not to ask.
        server_tls: for associations that are opened with the node.
    """

    folder: Path
    ae_title: str
    host: str = "127.0.0.1"
    port: int = 11112
    outputs: tuple[str, ...] = ("seg", "sr", "sc")
    targets: tuple[Target, ...] = ()
    senders: tuple[Sender, ...] = ()
    max_bytes: int = 1 << 30
    max_associations: int = 10
    keep_free: int = 2 << 30
    days: float = 7.0
    quiet: float | None = 120.0
    commit: float | None = None
    server_tls: ssl.SSLContext | None = field(default=None, repr=False)

    def check(self) -> None:
        """Refuse what cannot work or must not be.

        Raises:
            UserError: it says what.
        """
        if not self.targets:
            raise UserError("nobody gets the answers; give --peer AETITLE@HOST:PORT or --deliver-to FOLDER")
        if not self.senders and self.host not in LOOPBACK:
            raise UserError(
                f"listening at {self.host} needs a list of who may send; give --allow AETITLE@ADDRESS for each, "
                "or listen at 127.0.0.1"
            )
        check_installed(self.outputs)


class Node:
    """A DICOM node; `start` returns once it listens, `stop` once all of it has ended.

    Args:
        settings: what it does.
        predictions: makes the answers.

    Raises:
        UserError: the settings cannot work, the folder is used by another node, or cannot be written.
    """

    def __init__(self, settings: Settings, predictions: Predictions) -> None:
        settings.check()
        self.settings = settings
        make_folder(settings.folder)
        lock_folder(settings.folder)
        self.incoming = clear_incoming(settings.folder)
        self.queue = Queue(settings.folder, [target.name for target in settings.targets])
        self.started = time.time()
        self.couriers = [Courier(self.queue, target, self._commitments(target)) for target in settings.targets]
        self.worker = Worker(self.queue, predictions, settings.outputs, self._wake_couriers, self._tidy)
        limits = (settings.max_bytes, settings.keep_free)
        self.receiver = Receiver(self.queue, settings.senders, *limits, self.worker.wake.set)
        self._last_deletion = 0.0
        self._ae = AE(ae_title=settings.ae_title)
        self._server: ThreadedAssociationServer | None = None
        self._receiving = contextlib.ExitStack()

    def _commitments(self, target: Target) -> Commitments | None:
        if self.settings.commit is None or not isinstance(target, Peer):
            return None
        return Commitments(self.queue, target, self.settings.commit)

    @property
    def port(self) -> int:
        """That it listens at."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, predict and deliver, each in threads of its own.

        Raises:
            UserError: the address cannot be listened at.
        """
        self._receiving.enter_context(receiving_into(self.incoming, self.receiver.judge))
        ae = self._ae
        ae.maximum_associations = self.settings.max_associations
        ae.require_called_aet = True
        ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = _ACSE, None, _NETWORK
        register_retired_classes()
        for uid in CLASSES:
            ae.add_supported_context(uid, list(SYNTAXES))
        ae.add_supported_context(_VERIFICATION)
        # A peer that reports a storage commitment is the one that provides the service.
        ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        receiver = self.receiver
        handlers: list[EventHandlerType] = [
            (evt.EVT_REQUESTED, receiver.admit),
            (evt.EVT_CONN_CLOSE, receiver.forget),
            (evt.EVT_C_STORE, receiver.store),
            (evt.EVT_N_EVENT_REPORT, lambda event: take_report(self.queue, event)),
        ]
        address = (self.settings.host, self.settings.port)
        try:
            self._server = ae.start_server(
                address, block=False, ssl_context=self.settings.server_tls, evt_handlers=handlers
            )
        except OSError as error:
            raise UserError(
                f"{address[0]}:{address[1]} cannot be listened at ({error.strerror}); give another --host or --port"
            ) from None
        for thread in (self.worker, *self.couriers):
            thread.start()

    def stop(self) -> None:
        """Take no more, end what is being done, and let go of the folder's queue; the rest waits for the next start."""
        self._ae.shutdown()
        threads: Sequence[Worker | Courier] = (self.worker, *self.couriers)
        for thread in threads:
            thread.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        self.queue.close()
        self._receiving.close()

    def _wake_couriers(self) -> None:
        for courier in self.couriers:
            courier.wake.set()

    def _tidy(self) -> None:
        """What is done while no image waits: summaries of studies, and deletions."""
        if self.settings.quiet is None:
            if self.queue.one("select 1 from studies where is_open"):
                self.queue.write("update studies set is_open = 0")
        elif summarise_quiet_studies(self.queue, self.settings.quiet, self.worker.predictions.card):
            self._wake_couriers()
        if time.monotonic() - self._last_deletion > _BETWEEN_DELETIONS or not self._last_deletion:
            self._last_deletion = time.monotonic()
            if count := delete_old(self.queue, self.settings.days):
                logger.info("deleted %d image(s) by the rule of %g days", count, self.settings.days)
