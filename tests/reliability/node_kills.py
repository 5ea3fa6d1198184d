# SPDX-License-Identifier: Apache-2.0
"""Kill -9 of the DICOM node at random moments under load: who got success is answered exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serving"))

from node_lab import Archive, scan
from pydicom.dataset import Dataset
from pynetdicom import AE
from training_lab import PYTHON, Record, started, wait_for

KILLS, IMAGES = 20, 126
OUTPUTS = ("seg", "sr")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Scanner(threading.Thread):
    """Sends images one after another, each until it has got success."""

    def __init__(self, port: int, archive: Archive) -> None:
        super().__init__(daemon=True)
        self.port, self.archive = port, archive
        self.images = [scan(number % 7) for number in range(IMAGES)]
        self.done: list[Dataset] = []
        self.resent = 0
        self.stopped = threading.Event()
        self.gate = threading.Semaphore(0)

    def run(self) -> None:
        """Send; a new association after every failure."""
        for image in self.images:
            self.gate.acquire()
            tries = 0
            while not self.stopped.is_set() and not self._send(image):
                tries += 1
                time.sleep(0.05)
            self.resent += tries > 0
            self.done.append(image)

    def _send(self, image: Dataset) -> bool:
        ae = AE("SCANNER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        ae.add_requested_context(image.SOPClassUID, "1.2.840.10008.1.2.1")
        association = ae.associate("127.0.0.1", self.port, ae_title="BUS_NODE")
        if not association.is_established:
            return False
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            status = association.send_c_store(image)
            association.release()
            return bool(status.get("Status", 1) == 0x0000)
        return False


def kill_node(folder: Path, models: Path, number: int, kills: int = KILLS) -> Record:
    """Kill the node again and again while images come in; return what the archive has at the end.

    Args:
        folder: for the node's queue; new.
        models: weights and cards.
        number: of the try; decides the moments.
        kills: how often.
    """
    moments = random.Random(f"node{number}")
    archive, port = Archive(), _free_port()
    scanner = Scanner(port, archive)
    scanner.start()
    words = ["--folder", folder, "--models", models, "--port", port, "--peer", f"ARCHIVE@127.0.0.1:{archive.port}"]
    words += ["--write", *OUTPUTS, "--no-summary", "--keep-free-gigabytes", 0, "--device", "cpu"]
    command = [*PYTHON, "scripts/dicom_node.py", *map(str, words)]
    killed_in: list[str] = []
    per_life = IMAGES // (kills + 1)
    for life in range(kills + 1):
        with started(command) as process:
            assert wait_for(lambda process=process: b"listens" in _output(process), process, 300)
            scanner.gate.release(per_life if life < kills else IMAGES)
            if life < kills:
                time.sleep(moments.uniform(0.05, 2.5))
                killed_in.append(_state(folder))
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            else:
                wait_for(lambda: len(scanner.done) == IMAGES, process, 300)
                wait_for(lambda: len(_uids(archive)) >= IMAGES * len(OUTPUTS), process, 300)
                time.sleep(2)
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)
    archive.stop()
    return _count(scanner, archive, killed_in)


def _uids(archive: Archive) -> set[str]:
    return {str(answer.SOPInstanceUID) for answer in archive.objects}


def _output(process: Any) -> bytes:
    path = Path(process.output_file)
    return path.read_bytes() if path.exists() else b""


def _state(folder: Path) -> str:
    """What the node was doing: the moment of a kill is looked at, not chosen."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(f"file:{folder / 'queue.sqlite'}?mode=ro", uri=True)) as queue:
        begun = queue.execute("select count(*) from images where begun and state = 'waiting'").fetchone()[0]
        unsent = queue.execute("select count(*) from deliveries where state = 'waiting'").fetchone()[0]
    return "predicting" if begun else "sending" if unsent else "idle"


def _count(scanner: Scanner, archive: Archive, killed_in: list[str]) -> Record:
    once = lost = doubled = 0
    for image in scanner.images:
        uids = {(answer.Modality, str(answer.SOPInstanceUID)) for answer in archive.of(image)}
        kinds = sorted(kind for kind, _ in uids)
        once += kinds == sorted(kind.upper() for kind in OUTPUTS)
        lost += len({kind for kind, _ in uids}) < len(OUTPUTS)
        doubled += len(uids) > len({kind for kind, _ in uids})
    again = len(archive.objects) - len(_uids(archive))
    facts = {"kills": len(killed_in), "images": len(scanner.images), "answered_once": once, "lost": lost}
    more = {"doubled": doubled, "sent_by_the_scanner_again": scanner.resent, "same_object_again": again}
    states = {state: killed_in.count(state) for state in sorted(set(killed_in))}
    return {**facts, **more, "killed_while": states, "ok": once == len(scanner.images) and not doubled}
