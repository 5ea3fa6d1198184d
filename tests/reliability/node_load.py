# SPDX-License-Identifier: Apache-2.0
"""Many images through the DICOM node: flat memory, and as quick as scripts/predict.py on the same files."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
from node_common import StoreScp, ask, free_port, listening, node_command, output_of, stop, undelivered
from PIL import Image
from pydicom.uid import generate_uid
from training_lab import PYTHON, Record, finish, started, wait_for

from bundle.data.phantom import make_phantom
from tests.readers.fabricate import save, ultrasound

OUTPUTS = ("seg", "sr", "pr")
PER_STUDY = 10
SIZES = ((400, 560), (500, 760))  # heights and widths, about BUSI's
PICTURES = 100
_LONGEST = 24 * 3600.0


def carry_load(folder: Path, models: Path, images: int) -> Record:
    """Predict files by scripts/predict.py, then send the same by DCMTK's storescu through the node to its storescp.

    Both times count from the start of the command to its last object, start-up included.

    Args:
        folder: for files, queue and results; new.
        models: weights and cards.
        images: how many.
    """
    files = folder / "files"
    _make_files(files, images)
    loads, cpu = [os.getloadavg()[0]], [_cpu_seconds()]
    batch = _time_batch(files, folder / "batch", models)
    loads.append(os.getloadavg()[0])
    cpu.append(_cpu_seconds())
    peer, port = StoreScp(folder / "peer"), free_port()
    queue = folder / "node"
    memory: list[float] = []
    command = node_command(queue, models, port, OUTPUTS, "--peer", peer.name, "--keep-free-gigabytes", 0)
    begun = time.monotonic()
    try:
        with listening(command) as process:
            ended = threading.Event()
            watch = threading.Thread(target=_sample, args=(process.pid, memory, ended), daemon=True)
            watch.start()
            words = ["storescu", "-aec", "BUS_NODE", "+sd", "127.0.0.1", str(port), str(files)]
            sent = subprocess.run(words, capture_output=True, check=False).returncode
            received = time.monotonic() - begun
            wait_for(lambda: not _left(queue, images), process, _LONGEST)
            node = time.monotonic() - begun
            loads.append(os.getloadavg()[0])
            ended.set()
            watch.join()
            tracebacks, code = output_of(process).count(b"Traceback"), stop(process)
        cpu.append(_cpu_seconds())  # with storescu's, and without storescp's, which has not ended
        objects = len(list(peer.folder.iterdir()))
    finally:
        peer.signal(9)
    shutil.rmtree(folder, ignore_errors=True)
    fifth = max(1, len(memory) // 5)
    early, late = median(memory[fifth : 2 * fifth] or memory), median(memory[-fifth:])
    growth, ratio = late / early - 1, node / batch
    facts = {"images": images, "pictures": PICTURES, "objects": objects, "sent_exit_code": sent, "exit_code": code}
    facts |= {"batch_seconds": round(batch, 1), "node_seconds": round(node, 1), "received_after": round(received, 1)}
    facts |= {"batch_cpu_seconds": round(cpu[1] - cpu[0], 1), "node_cpu_seconds": round(cpu[2] - cpu[1], 1)}
    facts |= {"ratio": round(ratio, 3), "memory_mib": [round(early), round(late)], "growth": round(growth, 4)}
    facts["load_average"] = [round(load, 1) for load in loads]  # before the batch, between, at the end
    facts |= {"memory_samples": len(memory), "tracebacks": tracebacks}
    whole = objects == images * len(OUTPUTS) and not (sent or code or tracebacks)
    return {**facts, "ok": whole and growth < 0.05 and ratio <= 1.1}


def _make_files(folder: Path, count: int) -> None:
    """Phantom pictures, a hundred different ones, each many times under new UIDs; ten of a study."""
    counts = {"benign": PICTURES // 2, "malignant": PICTURES - PICTURES // 2}
    make_phantom(folder.with_name("phantom"), counts=counts, size_range=SIZES)
    pictures = [np.asarray(Image.open(path)) for path in sorted(folder.with_name("phantom").rglob("*).png"))]
    study = ""
    for number in range(count):
        study = generate_uid() if number % PER_STUDY == 0 else study
        pixels = pictures[number % PICTURES]
        scan = ultrasound(pixels, StudyInstanceUID=study, InstanceNumber=number % PER_STUDY + 1)
        save(scan, folder / f"{number:06d}.dcm")


def _time_batch(files: Path, output: Path, models: Path) -> float:
    words = ["scripts/predict.py", files, "--output", output, "--models", models, "--write", *OUTPUTS]
    begun = time.monotonic()
    with started([*PYTHON, *map(str, (*words, "--device", "cpu"))]) as process:
        ended = finish(process, _LONGEST)
    if ended.code:
        raise RuntimeError(ended.output[-2000:])
    return time.monotonic() - begun


def _left(queue: Path, images: int) -> int:
    """Images and answers that are still under way."""
    return images - ask(queue, "select count(*) from images") + undelivered(queue)


def _cpu_seconds() -> float:
    """Of all children that have ended, and theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _sample(pid: int, memory: list[float], ended: threading.Event) -> None:
    """Resident memory in MiB of a process and its children together, every half second."""
    while not ended.wait(0.5):
        with contextlib.suppress(OSError, IndexError, ValueError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            statuses = [Path(f"/proc/{each}/status").read_text() for each in (pid, *children)]
            memory.append(sum(int(status.split("VmRSS:")[1].split()[0]) for status in statuses) / 1024)
