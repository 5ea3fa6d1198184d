# SPDX-License-Identifier: Apache-2.0
"""Kill -9 of the DICOM node at random moments under load: who got success is answered exactly once."""

from __future__ import annotations

import random
import time
from pathlib import Path

import node_common as common
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
    archive, port = Archive(), common.free_port()
    scanner = common.Scanner(port, common.make_scans(IMAGES))
    scanner.start()
    peer = ["--peer", f"ARCHIVE@127.0.0.1:{archive.port}", "--keep-free-gigabytes", 0]
    command = common.node_command(folder, models, port, OUTPUTS, *peer)
    killed_in: list[str] = []
    per_life = IMAGES // (kills + 1)
    for life in range(kills + 1):
        with common.listening(command) as process:
            scanner.gate.release(per_life if life < kills else IMAGES)
            if life < kills:
                time.sleep(moments.uniform(0.05, 2.5))
                killed_in.append(_state(folder))
                common.kill(process)
            else:
                wait_for(lambda: len(scanner.done) == IMAGES, process, common.PATIENCE)
                wait_for(lambda: not common.undelivered(folder), process, common.PATIENCE)
                common.stop(process)
    archive.stop()
    counted = common.count_answers(scanner.images, archive.objects, OUTPUTS)
    facts = {**counted, "kills": kills, "sent_by_the_scanner_again": scanner.resent}
    return {**facts, "killed_while": _tally(killed_in), "ok": common.judge(counted)}


def kill_sending(folder: Path, models: Path, number: int, kills: int = KILLS) -> Record:
    """Kill the node again and again while its connection to a peer, DCMTK's storescp, is open.

    The peer takes a second for each object, so that most moments fall while it does: in tries of even numbers before it
    stores the object, in those of odd ones after.
    """
    moments = random.Random(f"node_sending{number}")
    folder.mkdir(parents=True)
    peer, port = common.StoreScp(folder / "peer", f"--sleep-{('during', 'after')[number % 2]}", "1"), common.free_port()
    queue = folder / "node"
    scanner = common.Scanner(port, common.make_scans(SLOW_IMAGES))
    scanner.start()
    scanner.gate.release(SLOW_IMAGES)
    command = common.node_command(queue, models, port, SLOW_OUTPUTS, "--peer", peer.name, "--keep-free-gigabytes", 0)
    killed_in: list[str] = []
    try:
        for life in range(kills + 1):
            with common.listening(command) as process:
                if life < kills:
                    wait_for(lambda: common.is_connected(peer.port), process, common.PATIENCE)
                    time.sleep(moments.uniform(0.0, 2.5))
                    sending = common.undelivered(queue) and common.is_connected(peer.port)
                    killed_in.append("sending" if sending else "between two associations")
                    common.kill(process)
                else:
                    wait_for(lambda: len(scanner.done) == SLOW_IMAGES, process, common.PATIENCE)
                    wait_for(lambda: not common.undelivered(queue), process, common.PATIENCE)
                    common.stop(process)
        counted = common.count_answers(scanner.images, peer.objects, SLOW_OUTPUTS)
    finally:
        peer.signal(9)
    return {**counted, "kills": kills, "killed_while": _tally(killed_in), "ok": common.judge(counted)}


def _state(folder: Path) -> str:
    """What the node was doing: the moment of a kill is looked at, not chosen."""
    if common.ask(folder, "select count(*) from images where begun and state = 'waiting'"):
        return "predicting"
    return "sending" if common.ask(folder, "select count(*) from deliveries where state = 'waiting'") else "idle"


def _tally(states: list[str]) -> dict[str, int]:
    return {state: states.count(state) for state in sorted(set(states))}
