# SPDX-License-Identifier: Apache-2.0
"""A disk that is truly full under the DICOM node: new images are refused, and none that got success is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import node_common as common
from training_lab import Record, wait_for

CASES = ("to the reserve", "to the last byte", "to the last byte, killed there")
IMAGES, SIZE = 30, 24
"""Of small images, so many; megabytes of the disk."""

OUTPUTS = ("seg", "sr", "pr")
OUT_OF_RESOURCES = 0xA700


def can_mount() -> bool:
    """Whether a small disk of its own can be had: Linux, as root."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of `SIZE` megabytes in memory, unmounted when left."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Filler(threading.Thread):
    """Another program that fills a disk, and takes each byte that becomes free."""

    def __init__(self, folder: Path, leave: int) -> None:
        super().__init__(daemon=True)
        self.file, self.leave = folder / "of_another_program", leave
        self.ended = threading.Event()

    def run(self) -> None:
        """Write until there is no byte left but those to be left; again every moment."""
        with open(self.file, "ab", buffering=0) as file:
            while not self.ended.wait(0.005):
                for size in (1 << 16, 1 << 12, 1):
                    with contextlib.suppress(OSError):
                        while self._free() - self.leave >= size:
                            file.write(b"\0" * size)

    def _free(self) -> int:
        status = os.statvfs(self.file.parent)
        return status.f_bavail * status.f_frsize

    def stop(self) -> None:
        """Give the disk back."""
        self.ended.set()
        self.join()
        self.file.unlink()


def fill_disk(folder: Path, models: Path, number: int) -> Record:
    """Fill the node's disk while images come in and are predicted; free it again, and count.

    Args:
        folder: for the disk and what the peer gets; new.
        models: weights and cards.
        number: of the try; decides the case.
    """
    case = CASES[number % len(CASES)]
    folder.mkdir(parents=True)
    peer, port = common.StoreScp(folder / "peer"), common.free_port()
    scanner = common.Scanner(port, common.make_scans(IMAGES))
    scanner.start()
    keep_free = 4_000_000 if "reserve" in case else 0
    try:
        with _small_disk(folder / "disk") as disk:
            options = ["--peer", peer.name, "--keep-free-gigabytes", keep_free / 1e9]
            command = common.node_command(disk / "node", models, port, OUTPUTS, *options)
            with common.listening(command) as process:
                scanner.gate.release(IMAGES // 3)
                wait_for(lambda: len(scanner.done) >= IMAGES // 6, process, common.PATIENCE)
                filler = Filler(disk, keep_free // 2)
                filler.start()
                scanner.gate.release(IMAGES)
                time.sleep(8)
                while_full = Counter(scanner.statuses)
                success = len(scanner.done)
                if "killed" in case:
                    common.kill(process)
                else:
                    filler.stop()
                    wait_for(lambda: len(scanner.done) == IMAGES, process, common.PATIENCE)
                    wait_for(lambda: not common.undelivered(disk / "node"), process, common.PATIENCE)
                    said, code = common.output_of(process).decode(errors="replace"), common.stop(process)
            if "killed" in case:
                filler.stop()
                with common.listening(command) as process:
                    wait_for(lambda: len(scanner.done) == IMAGES, process, common.PATIENCE)
                    wait_for(lambda: not common.undelivered(disk / "node"), process, common.PATIENCE)
                    said, code = common.output_of(process).decode(errors="replace"), common.stop(process)
        counted = common.count_answers(scanner.images, peer.objects, OUTPUTS)
    finally:
        scanner.stopped.set()
        peer.signal(9)
    refused = {f"0x{status & 0xFFFF:04X}": count for status, count in sorted(while_full.items()) if status}
    facts = {"case": case, "success_when_it_was_full": success, "refused_while_full": refused, "exit_code": code}
    only_resources = set(refused) == {f"0x{OUT_OF_RESOURCES:04X}"}
    tracebacks = said.count("Traceback")
    return {**facts, **counted, "tracebacks": tracebacks, "ok": common.judge(counted) and only_resources and code == 0}
