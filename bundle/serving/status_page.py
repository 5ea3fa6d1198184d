# SPDX-License-Identifier: Apache-2.0
"""The node's status as one HTML page of 127.0.0.1: counts and reasons, without names, scripts or anything to press."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bundle import __version__
from bundle.errors import UserError
from bundle.reports.html import stream_html
from bundle.serving.node import Node
from bundle.serving.queue import DROPPED, SENT, WAITING

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_SHOWN = 20


class StatusPage:
    """Serves the page of one node.

    Args:
        node: whose status it is.
        port: at 127.0.0.1; 0 for any free one.

    Raises:
        UserError: the port is taken.
    """

    def __init__(self, node: Node, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            server_version = "status"

            def do_GET(self) -> None:
                _answer(self, node)

            def log_message(self, *_: Any) -> None:
                """Nothing: who looked is nobody's business."""

        try:
            self._server = ThreadingHTTPServer((HOST, port), Handler)
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used for the status page ({error.strerror}); give another"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="status page", daemon=True)

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://{HOST}:{self._server.server_address[1]}/"

    def start(self) -> None:
        """Serve from now on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


def _answer(request: BaseHTTPRequestHandler, node: Node) -> None:
    # A page of another site could reach it under a name of its own that leads to 127.0.0.1.
    host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
    status, body = 404, b"Not here.\n"
    if host in (HOST, "localhost") and request.path == "/":
        try:
            status, body = 200, "".join(render_status(node)).encode()
        except Exception:
            logger.exception("no status page")
            status, body = 500, b"The status cannot be read; see the node's log.\n"
    request.send_response(status)
    request.send_header("Content-Type", "text/html; charset=utf-8" if status == 200 else "text/plain")
    request.send_header("Content-Length", str(len(body)))
    request.send_header("Content-Security-Policy", _POLICY)
    request.send_header("Cache-Control", "no-store")
    request.end_headers()
    request.wfile.write(body)


def render_status(node: Node) -> Iterator[str]:
    """The page, piece by piece."""
    yield from stream_html("node_status.html", synthetic=False, **status_of(node))


def status_of(node: Node) -> dict[str, Any]:
    """What the page shows: numbers, reasons, and UIDs of images that failed; nothing of a header besides."""
    queue = node.queue
    images = dict(queue.all("select state, count(*) from images group by state"))
    oldest = queue.one("select min(received) from images where state = ?", WAITING)
    peers = [
        {"name": courier.target.name, "problem": courier.problem, **_deliveries(node, courier.target.name)}
        for courier in node.couriers
    ]
    notes = queue.all("select kind, reason, count, last from notes order by last desc limit ?", _SHOWN)
    reasons = queue.all(
        "select uid, state, reason, done from images where reason != '' order by done desc limit ?", _SHOWN
    )
    return {
        **{"title": node.settings.ae_title, "version": __version__, "images": images, "peers": peers},
        "settings": node.settings,
        "waits_since": _when(oldest[0]) if oldest and oldest[0] else "",
        "summaries": (queue.one("select coalesce(sum(summaries), 0) from studies") or (0,))[0],
        "notes": [(kind, reason, count, _when(last)) for kind, reason, count, last in notes],
        "reasons": [(uid, state, reason, _when(done)) for uid, state, reason, done in reasons],
        **{"started": _when(node.started), "now": _when(time.time())},
    }


def _deliveries(node: Node, peer: str) -> dict[str, Any]:
    rows = node.queue.all("select state, count(*) from deliveries where peer = ? group by state", peer)
    commitments = node.queue.all(
        "select commitment, count(*) from deliveries where peer = ? and commitment != '' group by commitment", peer
    )
    refusals = node.queue.all(
        "select reason, count(*) from deliveries where peer = ? and reason != '' group by reason limit ?", peer, _SHOWN
    )
    counts = {state: count for state, count in rows}
    return {
        **{"waiting": counts.get(WAITING, 0), "sent": counts.get(SENT, 0), "dropped": counts.get(DROPPED, 0)},
        **{"commitments": commitments, "refusals": refusals},
    }


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
