# SPDX-License-Identifier: Apache-2.0
"""What the drills of the DICOM node share: its command, a scanner, DCMTK's storescp as a peer, and the count."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serving"))

from node_lab import references, scan
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE
from training_lab import PYTHON, Record, started, wait_for

PATIENCE = 600
"""Seconds that a drill waits for what has to come to pass."""


def free_port() -> int:
    """A TCP port that nobody listens at just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def node_command(folder: Path, models: Path, port: int, outputs: Sequence[str], *more: object) -> list[str]:
    """The command of a node without summaries, on the CPU."""
    words = ["--folder", folder, "--models", models, "--port", port, "--write", *outputs, "--no-summary"]
    return [*PYTHON, "scripts/dicom_node.py", *map(str, (*words, "--device", "cpu", *more))]


@contextlib.contextmanager
def listening(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node, and go on once it listens; killed when left."""
    with started(command) as process:
        if not wait_for(lambda: b"listens" in output_of(process), process, PATIENCE):
            raise RuntimeError(output_of(process)[-2000:].decode(errors="replace"))
        yield process


def output_of(process: Any) -> bytes:
    """What a command has said until now."""
    path = Path(process.output_file)
    return path.read_bytes() if path.exists() else b""


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill -9 of a node; the process in which it predicts has to notice by itself."""
    process.kill()
    process.wait()


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM; returns the exit code."""
    os.killpg(process.pid, signal.SIGTERM)
    return process.wait(PATIENCE)


def ask(folder: Path, question: str) -> int:
    """A number from a node's queue, read beside it; 0 while there is none. Asked in a loop, it is not in the way."""
    time.sleep(0.1)
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'queue.sqlite'}?mode=ro", uri=True)) as queue:
            return int(queue.execute(question).fetchone()[0])
    except sqlite3.Error:
        return 0


def undelivered(folder: Path) -> int:
    """Answers that some peer has still to get, and images that have none yet."""
    waiting = "select count(*) from {} where state = 'waiting'"
    return ask(folder, waiting.format("deliveries")) + ask(folder, waiting.format("images"))


def is_connected(port: int) -> bool:
    """Whether somebody of this machine has a connection to a port open."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        remote, state = line.split()[2:4]
        if state == "01" and int(remote.rpartition(":")[2], 16) == port:
            return True
    return False


class Scanner(threading.Thread):
    """Sends images one after another, each until it has got success."""

    def __init__(self, port: int, images: Sequence[Dataset]) -> None:
        super().__init__(daemon=True)
        self.port, self.images = port, list(images)
        self.done: list[Dataset] = []
        self.statuses: list[int] = []
        self.resent = 0
        self.stopped = threading.Event()
        self.gate = threading.Semaphore(0)

    def run(self) -> None:
        """Send as many as the gate lets through; a new association after every failure."""
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
            self.statuses.append(int(status.get("Status", -1)))
            return self.statuses[-1] == 0x0000
        return False


def make_scans(count: int) -> list[Dataset]:
    """Small images, each with UIDs of its own."""
    return [scan(number % 7) for number in range(count)]


class StoreScp:
    """DCMTK's storescp; each object that comes is a file of its own, one that comes again too.

    Args:
        folder: gets the files; made.
        options: of the program.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True)
        self.folder, self.port, self.process = folder, free_port(), None
        self.start(*options)

    def start(self, *options: str) -> None:
        """Listen, at the port of the first time."""
        words = ["storescp", *options, "--unique-filenames", "--output-directory", str(self.folder), str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, **quiet)  # type: ignore[call-overload]
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError("storescp does not listen")

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT or SIGKILL."""
        self.process.send_signal(number)  # type: ignore[attr-defined]
        if number == signal.SIGKILL:
            self.process.wait()  # type: ignore[attr-defined]

    @property
    def name(self) -> str:
        """For `--peer`."""
        return f"STORESCP@127.0.0.1:{self.port}"

    @property
    def objects(self) -> list[Dataset]:
        """All that came, and came again."""
        return [dcmread(path, stop_before_pixels=True) for path in sorted(self.folder.iterdir())]


def count_answers(images: Sequence[Dataset], objects: Sequence[Dataset], outputs: Sequence[str]) -> dict[str, int]:
    """How many images were answered exactly once, and how often something was lost, doubled or came again."""
    by_image: dict[str, set[tuple[str, str]]] = {str(image.SOPInstanceUID): set() for image in images}
    for answer in objects:
        for uid in references(answer) & by_image.keys():
            by_image[uid].add((str(answer.Modality), str(answer.SOPInstanceUID)))
    wanted = sorted(kind.upper() for kind in outputs)
    once = lost = doubled = 0
    for uids in by_image.values():
        kinds = sorted(kind for kind, _ in uids)
        once += kinds == wanted
        lost += len(set(kinds)) < len(wanted)
        doubled += len(kinds) > len(set(kinds))
    again = len(objects) - len({str(answer.SOPInstanceUID) for answer in objects})
    return {
        **{"images": len(images), "answered_once": once, "lost": lost},
        "doubled": doubled,
        "same_object_again": again,
    }


def judge(counted: Record) -> bool:
    """Whether every image was answered exactly once."""
    return bool(counted["answered_once"] == counted["images"] and not counted["doubled"])
