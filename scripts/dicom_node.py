# SPDX-License-Identifier: Apache-2.0
"""Answer ultrasound images that an archive or a scanner sends by DICOM with findings. Research software only.

Each image is on the disk before its sender is told of success; a worker predicts it, and the answers (--write: seg sr
pr sc) go to every --peer by C-STORE and into --deliver-to. What cannot be delivered is kept and tried again. The node
listens at 127.0.0.1 unless told otherwise, and elsewhere only with a list of who may send. See docs/pacs.md.

Exit codes: 0 stopped by SIGINT or SIGTERM; 2 a mistake in what was asked.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.errors import UserError

if TYPE_CHECKING:
    from bundle.serving.node import Settings

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = ("seg", "sr", "pr", "sc")
BACKENDS = ("auto", "torch", "onnxruntime", "openvino")  # of bundle.prediction.backends, which is slow to import


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0 once it was stopped; 2 for a user's mistake."""
    options = _parse(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    os.umask(0o077)  # what it writes is about patients: for the user alone that it runs as

    settings = _settings(options)
    from bundle.serving.node import Node
    from bundle.serving.predicting_process import quiet_libraries
    from bundle.serving.predictions import PredictingProcess
    from bundle.serving.status_page import StatusPage

    quiet_libraries()
    how = {name: getattr(options, name) for name in ("device", "backend", "small")}
    site = None if options.site is None else str(options.site)
    predictions = PredictingProcess({"folder": str(options.models), "site": site, **how})
    node = Node(settings, predictions)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    page = StatusPage(node, options.status_port) if options.status_port is not None else None
    node.start()
    print(f"{settings.ae_title} listens at {settings.host}:{node.port}", flush=True)
    if predictions.site is not None:
        print(f"Calibrated for {predictions.site} by {options.site}", flush=True)
    if page is not None:
        page.start()
        print(f"Status: {page.address}", flush=True)
    print("Research software, not a medical device.", flush=True)
    stopped.wait()
    if page is not None:
        page.stop()
    node.stop()
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    from bundle.serving.node import Settings
    from bundle.serving.receive import Sender, check_ae_title
    from bundle.serving.targets import FolderTarget, Peer, Target

    check_ae_title(options.ae_title, "--ae-title")
    server, client = _tls(options)
    targets: list[Target] = [Peer.parse(text, options.ae_title, client) for text in options.peer or ()]
    targets += [FolderTarget(folder.absolute()) for folder in options.deliver_to or ()]
    return Settings(
        folder=options.folder,
        ae_title=options.ae_title,
        host=options.host,
        port=options.port,
        outputs=tuple(options.write),
        targets=tuple(targets),
        senders=tuple(Sender.parse(text) for text in options.allow or ()),
        max_bytes=int(options.max_megabytes * 1e6),
        max_associations=options.max_associations,
        keep_free=int(options.keep_free_gigabytes * 1e9),
        days=options.days,
        quiet=None if options.no_summary else options.quiet,
        commit=options.commit,
        server_tls=server,
    )


def _tls(options: argparse.Namespace) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The contexts for associations that others open with the node, and for those that it opens."""
    files = (options.tls_cert, options.tls_key, options.tls_ca)
    if not any(files):
        return None, None
    if not all(files):
        raise UserError("TLS needs --tls-cert, --tls-key and --tls-ca: both sides show a certificate and check one")
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(options.tls_cert, options.tls_key)
            context.load_verify_locations(options.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise UserError(
                f"the TLS files cannot be used ({error}); give PEM files of a key without password"
            ) from None
        contexts.append(context)
    return contexts[0], contexts[1]


def _number(least: float, most: float = math.inf, whole: bool = False) -> Callable[[str], float]:
    """A reader of numbers between two, the least included: nan and what is outside is a user's mistake."""

    def read(text: str) -> float:
        number = int(text) if whole else float(text)
        if not (least <= number <= most and math.isfinite(number)):
            bound = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {bound}")
        return number

    read.__name__ = "number"  # which argparse names where it is none
    return read


_PORT = _number(0, 65535, whole=True)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, metavar="DIR", help="of the queue: images, answers, what became of them")
    add("--ae-title", default="BUS_NODE", metavar="AETITLE", help="its own; default: BUS_NODE")
    add("--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1")
    add("--port", type=_PORT, default=11112, help="port to listen at; default: 11112")
    add("--allow", nargs="+", metavar="AETITLE[@ADDRESS]", help="who may send; the address may be a network")
    add("--status-port", type=_PORT, metavar="PORT", help="show a status page at 127.0.0.1:PORT")
    add("--verbose", action="store_true", help="also log each object that is refused or passed over")
    answers = parser.add_argument_group("answers").add_argument
    answers(
        "--write",
        nargs="+",
        choices=OUTPUTS,
        default=["seg", "sr", "sc"],
        help="default: seg sr sc",
    )
    answers("--peer", nargs="+", metavar="AETITLE@HOST:PORT", help="gets them by C-STORE")
    answers("--deliver-to", nargs="+", type=Path, metavar="DIR", help="gets them as STUDY/UID.dcm")
    answers(
        "--commit", type=_number(1), metavar="SECONDS", help="ask peers for storage commitment, and wait so long for it"
    )
    answers(
        "--quiet", type=_number(0), default=120, metavar="SECONDS", help="summarise a study after so long; default: 120"
    )
    answers("--no-summary", action="store_true", help="no summaries of studies")
    limits = parser.add_argument_group("limits").add_argument
    limits("--max-megabytes", type=_number(1), default=1000, metavar="N", help="of one object; default: 1000")
    limits("--max-associations", type=_number(1, whole=True), default=10, metavar="N", help="at a time; default: 10")
    limits(
        "--keep-free-gigabytes", type=_number(0), default=2, metavar="N", help="of the disk, else refuse; default: 2"
    )
    limits("--days", type=_number(0), default=7, metavar="N", help="delete so long after delivery; default: 7")
    tls = parser.add_argument_group("TLS, for both directions").add_argument
    tls("--tls-cert", type=Path, metavar="FILE", help="its certificate, PEM")
    tls("--tls-key", type=Path, metavar="FILE", help="the key of it, PEM, without a password")
    tls("--tls-ca", type=Path, metavar="FILE", help="who signs the certificates of the others, PEM")
    model = parser.add_argument_group("networks").add_argument
    model(
        "--models",
        type=Path,
        default=ROOT / "models",
        metavar="DIR",
        help="default: models; models/paper for paper_model.pt and its fellows there",
    )
    model("--small", action="store_true", help="segment with model_small.pt of that folder, made for CPUs")
    model(
        "--site", type=Path, metavar="FILE", help="site.json of scripts/recalibrate.py, the institution's calibration"
    )
    model("--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one")
    model(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what computes the networks",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
