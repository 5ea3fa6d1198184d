# SPDX-License-Identifier: Apache-2.0
"""Storage commitment (PS3.4 J) as its user: peers are asked whether they will keep what they took."""

from __future__ import annotations

import logging
import time

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import build_context
from pynetdicom.events import Event

from bundle.errors import InputError
from bundle.serving.outgoing import open_association
from bundle.serving.queue import SENT, Queue
from bundle.serving.targets import Peer

logger = logging.getLogger(__name__)

PUSH_MODEL, _INSTANCE = UID("1.2.840.10008.1.20.1"), UID("1.2.840.10008.1.20.1.1")
"""Storage Commitment Push Model, and the well-known instance of it that is asked."""

ASKED, COMMITTED, NOT_COMMITTED = "asked", "committed", "not committed"
MOST = 500
"""Objects per request."""

_ANSWER = 30
_NO_SUCH_ACTION, _PROCESSING_FAILURE = 0x0123, 0x0110


class Commitments:
    """Asks one peer to commit to what it took, and counts the time in which it may.

    Args:
        queue: of the node.
        peer: that is asked.
        timeout: seconds after which what was not reported is not committed.
    """

    def __init__(self, queue: Queue, peer: Peer, timeout: float) -> None:
        self.queue, self.peer, self.timeout = queue, peer, timeout

    def round(self) -> None:
        """Ask for what was sent and not asked for, and give up on what was asked too long ago."""
        self.queue.write(
            "update deliveries set commitment = ?, reason = 'no report in time' "
            "where peer = ? and commitment = ? and requested < ?",
            *(NOT_COMMITTED, self.peer.name, ASKED, time.time() - self.timeout),
        )
        rows = self.queue.all(
            "select a.uid, a.sop_class from deliveries d join answers a on a.uid = d.answer "
            "where d.peer = ? and d.state = ? and d.commitment = '' limit ?",
            *(self.peer.name, SENT, MOST),
        )
        if rows:
            self._ask([(str(uid), str(sop_class)) for uid, sop_class in rows])

    def _ask(self, objects: list[tuple[str, str]]) -> None:
        request = Dataset()
        request.TransactionUID = generate_uid()
        request.ReferencedSOPSequence = []
        for uid, sop_class in objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = UID(sop_class), UID(uid)
            request.ReferencedSOPSequence.append(item)
        # The report may come before the answer to the request: the request is on the disk before it is sent.
        for uid, _ in objects:
            self.queue.write(
                "update deliveries set commitment = ?, request = ?, requested = ? where peer = ? and answer = ?",
                *(ASKED, request.TransactionUID, time.time(), self.peer.name, uid),
            )
        if reason := self._send(request):
            logger.warning("%s: %s", self.peer.name, reason)
            self.queue.write(
                "update deliveries set commitment = ?, reason = ? where peer = ? and request = ?",
                *(NOT_COMMITTED, reason, self.peer.name, request.TransactionUID),
            )

    def _send(self, request: Dataset) -> str:
        """Send a request; returns "" or why it was not taken."""
        peer, contexts = self.peer, [build_context(PUSH_MODEL)]
        address = (peer.host, peer.port)
        association = open_association(peer.own_title, address, peer.ae_title, contexts, peer.tls, _ANSWER)
        if not association.is_established:
            # An association without one accepted context is none.
            refused = bool(association.rejected_contexts)
            return "does not do storage commitment" if refused else "cannot be asked for storage commitment"
        try:
            status, _ = association.send_n_action(request, 1, PUSH_MODEL, _INSTANCE)
            code = status.get("Status")
            return "" if code == 0x0000 else "refuses to be asked for storage commitment"
        finally:
            if association.is_established:
                association.release()


def take_report(queue: Queue, event: Event) -> tuple[int, None]:
    """Note what a peer reports to have committed to; bound to EVT_N_EVENT_REPORT."""
    if event.event_type not in (1, 2):
        return _NO_SUCH_ACTION, None
    try:
        report = event.event_information
        request = str(report.get("TransactionUID", ""))
        lists = (("ReferencedSOPSequence", COMMITTED, ""), ("FailedSOPSequence", NOT_COMMITTED, "the peer reports so"))
        for keyword, state, reason in lists:
            for item in report.get(keyword) or () if request else ():
                queue.write(
                    "update deliveries set commitment = ?, reason = ? where request = ? and answer = ?",
                    *(state, reason, request, str(item.get("ReferencedSOPInstanceUID", ""))),
                )
    except InputError as error:
        logger.error("%s", error)
        return _PROCESSING_FAILURE, None
    return 0x0000, None
