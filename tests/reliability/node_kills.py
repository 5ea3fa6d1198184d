# SPDX-License-Identifier: Apache-2.0
"""Kill -9 of the DICOM node at random moments under load: who got success is answered exactly once."""

from __future__ import annotations

import random
import time
from pathlib import Path

from node_common import (
    PATIENCE,
    Scanner,
    StoreScp,
    ask,
    count_answers,
    free_port,
    is_connected,
    judge,
    kill,
    listening,
    make_scans,
    node_command,
    stop,
    undelivered,
)
from node_lab import Archive
from training_lab import Record, wait_for

KILLS, IMAGES, SLOW_IMAGES = 20, 126, 40
OUTPUTS, SLOW_OUTPUTS = ("seg", "sr"), ("seg", "sr", "pr")


def kill_receiving(folder: Path, models: Path, number: int, kills: int = KILLS) -> Record:
    """Kill the node again and again while images come in; return what the archive has at the end.

    Args:
        folder: for the node's queue; new.
        models: weights and cards.
        number: of the try; decides the moments.
        kills: how often.
    """
    moments = random.Random(f"node{number}")
    archive, port = Archive(), free_port()
    scanner = Scanner(port, make_scans(IMAGES))
    scanner.start()
    peer = ["--peer", f"ARCHIVE@127.0.0.1:{archive.port}", "--keep-free-gigabytes", 0]
    command = node_command(folder, models, port, OUTPUTS, *peer)
    killed_in: list[str] = []
    per_life = IMAGES // (kills + 1)
    for life in range(kills + 1):
        with listening(command) as process:
            scanner.gate.release(per_life if life < kills else IMAGES)
            if life < kills:
                time.sleep(moments.uniform(0.05, 2.5))
                killed_in.append(_state(folder))
                kill(process)
            else:
                wait_for(lambda: len(scanner.done) == IMAGES, process, PATIENCE)
                wait_for(lambda: not undelivered(folder), process, PATIENCE)
                stop(process)
    archive.stop()
    counted = count_answers(scanner.images, archive.objects, OUTPUTS)
    facts = {**counted, "kills": kills, "sent_by_the_scanner_again": scanner.resent}
    return {**facts, "killed_while": _tally(killed_in), "ok": judge(counted)}


def kill_sending(folder: Path, models: Path, number: int, kills: int = KILLS) -> Record:
    """Kill the node again and again while its connection to a peer, DCMTK's storescp, is open.

    The peer takes a second for each object, so that most moments fall while it does: in tries of even numbers before it
    stores the object, in those of odd ones after.
    """
    moments = random.Random(f"node_sending{number}")
    folder.mkdir(parents=True)
    peer, port = StoreScp(folder / "peer", f"--sleep-{('during', 'after')[number % 2]}", "1"), free_port()
    queue = folder / "node"
    scanner = Scanner(port, make_scans(SLOW_IMAGES))
    scanner.start()
    scanner.gate.release(SLOW_IMAGES)
    command = node_command(queue, models, port, SLOW_OUTPUTS, "--peer", peer.name, "--keep-free-gigabytes", 0)
    killed_in: list[str] = []
    try:
        for life in range(kills + 1):
            with listening(command) as process:
                if life < kills:
                    wait_for(lambda: is_connected(peer.port), process, PATIENCE)
                    time.sleep(moments.uniform(0.0, 2.5))
                    sending = undelivered(queue) and is_connected(peer.port)
                    killed_in.append("sending" if sending else "between two associations")
                    kill(process)
                else:
                    wait_for(lambda: len(scanner.done) == SLOW_IMAGES, process, PATIENCE)
                    wait_for(lambda: not undelivered(queue), process, PATIENCE)
                    stop(process)
        counted = count_answers(scanner.images, peer.objects, SLOW_OUTPUTS)
    finally:
        peer.signal(9)
    return {**counted, "kills": kills, "killed_while": _tally(killed_in), "ok": judge(counted)}


def _state(folder: Path) -> str:
    """What the node was doing: the moment of a kill is looked at, not chosen."""
    if ask(folder, "select count(*) from images where begun and state = 'waiting'"):
        return "predicting"
    return "sending" if ask(folder, "select count(*) from deliveries where state = 'waiting'") else "idle"


def _tally(states: list[str]) -> dict[str, int]:
    return {state: states.count(state) for state in sorted(set(states))}
