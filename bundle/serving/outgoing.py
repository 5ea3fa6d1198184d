# SPDX-License-Identifier: Apache-2.0
"""Associations that the node opens with others."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

_CONNECT = 10
"""Seconds that a peer has to take a connection, and to answer the request for an association."""


def open_association(
    own_title: str,
    address: tuple[str, int],
    ae_title: str,
    contexts: Sequence[PresentationContext],
    tls: ssl.SSLContext | None,
    answer: float,
) -> Association:
    """Ask for an association; it may have been refused, which its attributes tell.

    Args:
        own_title: calling AE title.
        address: host and port of the peer.
        ae_title: called AE title.
        contexts: that are proposed.
        tls: for a connection by TLS; None for none.
        answer: seconds that the peer has to answer a message.
    """
    ae = AE(ae_title=own_title)
    ae.connection_timeout = ae.acse_timeout = _CONNECT
    ae.dimse_timeout = ae.network_timeout = answer
    tls_args = (tls, address[0]) if tls else None
    association = ae.associate(*address, list(contexts), ae_title=ae_title, tls_args=tls_args)
    _keep_responses(association)
    _send_promptly(association)
    return association


def _send_promptly(association: Association) -> None:
    """Keep messages from waiting for acknowledgements of TCP, some 40 ms each, several times per object.

    pynetdicom sends an object's command and its data apart, as DCMTK does the two parts of its answer. By Nagle's
    algorithm the second waits until the first is acknowledged, which the other side puts off.
    """
    connection: Any = association.dul.socket
    if connection is None or (raw := connection.socket) is None:  # there is none
        return
    with contextlib.suppress(OSError):  # closed meanwhile, which is told where it matters
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not hasattr(socket, "TCP_QUICKACK"):  # Linux alone
        return
    receive = connection.recv

    def receive_and_acknowledge(count: int) -> bytearray:
        received: bytearray = receive(count)
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # holds for the next packets alone
        return received

    connection.recv = receive_and_acknowledge


def _keep_responses(association: Association) -> None:
    """Give back a response that pynetdicom's own loop has taken from the thread that waits for it.

    That loop is to pause while a message is sent. Where its thread is held up between two of its lines, on a busy
    machine, it goes on all the same, takes the response and drops it: the sender then waits until its time is over.
    """
    serve: Any = association._serve_request

    def serve_or_give_back(message: Any, context_id: int) -> None:
        if message.is_valid_response:
            association.dimse.msg_queue.put((context_id, message))
        else:
            serve(message, context_id)

    association._serve_request = serve_or_give_back  # type: ignore[assignment, method-assign]
