# SPDX-License-Identifier: Apache-2.0
"""Associations that the node opens with others."""

from __future__ import annotations

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
    return association


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
