# SPDX-License-Identifier: Apache-2.0
"""Peers of the DICOM node that are down, slow, silent or refuse a class: what is for them is kept and sent later."""

from __future__ import annotations

import signal
import time
import urllib.request
from pathlib import Path

import node_common as common
from training_lab import Record, wait_for

CASES = ("down", "slow", "silent in the midst of an object", "silent from the start", "refuses a class")
IMAGES, OUTPUTS = 6, ("seg", "sr", "pr")
TOLD = {
    "down": "cannot be reached",
    "slow": "",
    "silent in the midst of an object": "",
    "silent from the start": "cannot be reached",
    "refuses a class": "refuses objects of class 1.2.840.10008.5.1.4.1.1.66.4",
}
"""What the status page says meanwhile; of a peer that takes its time nothing is to be said."""

_SR_AND_PR = """
[[TransferSyntaxes]]
[Little]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[NoSegmentations]
PresentationContext1 = ComprehensiveSRStorage\\Little
PresentationContext2 = GrayscaleSoftcopyPresentationStateStorage\\Little
PresentationContext3 = VerificationSOPClass\\Little
[[Profiles]]
[Default]
PresentationContexts = NoSegmentations
"""
"""Of DCMTK's storescp: what it negotiates."""


def trouble_peer(folder: Path, models: Path, number: int) -> Record:
    """Have a peer that makes trouble beside one that does not; end the trouble, and count at both.

    Args:
        folder: for the node's queue and what the peers get; new.
        models: weights and cards.
        number: of the try; decides the case.
    """
    case = CASES[number % len(CASES)]
    folder.mkdir(parents=True)
    peer, good = common.StoreScp(folder / "peer", *_begin(case, folder)), common.StoreScp(folder / "good")
    if case == "down":
        peer.signal(signal.SIGKILL)
    elif case == "silent from the start":
        peer.signal(signal.SIGSTOP)
    port, status = common.free_port(), common.free_port()
    scanner = common.Scanner(port, common.make_scans(IMAGES))
    scanner.start()
    options = ["--peer", peer.name, good.name, "--keep-free-gigabytes", 0, "--status-port", status]
    command = common.node_command(folder / "node", models, port, OUTPUTS, *options)
    try:
        with common.listening(command) as process:
            begun = time.monotonic()
            scanner.gate.release(IMAGES)
            if case == "silent in the midst of an object":
                wait_for(lambda: common.is_connected(peer.port), process, common.PATIENCE)
                peer.signal(signal.SIGSTOP)
            wait_for(lambda: _count_files(good) == IMAGES * len(OUTPUTS), process, common.PATIENCE)
            others = time.monotonic() - begun
            told = wait_for(lambda: TOLD[case] in _page(status), process, common.PATIENCE)
            if case == "silent in the midst of an object":
                time.sleep(15)
            kept = common.ask(folder / "node", "select count(*) from deliveries where state = 'waiting'")
            _end(case, peer)
            wait_for(lambda: not common.undelivered(folder / "node"), process, common.PATIENCE)
            took, code = time.monotonic() - begun, common.stop(process)
        at_both = [common.count_answers(scanner.images, each.objects, OUTPUTS) for each in (peer, good)]
    finally:
        for each in (peer, good):
            each.signal(signal.SIGKILL)
    facts = {"case": case, "told": told, "kept": kept, "other_peer_had_all_after": round(others, 1)}
    facts |= {"all_delivered_after": round(took, 1), "exit_code": code, **at_both[0]}
    return {**facts, "ok": told and kept > 0 and all(map(common.judge, at_both)) and code == 0}


def _begin(case: str, folder: Path) -> list[str]:
    if case == "slow":
        return ["--sleep-during", "2"]
    if case == "refuses a class":
        (folder / "contexts.cfg").write_text(_SR_AND_PR, encoding="utf-8")
        return ["--config-file", str(folder / "contexts.cfg"), "Default"]
    return []


def _end(case: str, peer: common.StoreScp) -> None:
    """End the trouble; a slow peer goes on being slow."""
    if case.startswith("silent in"):
        peer.signal(signal.SIGCONT)
    elif case != "slow":
        if case != "down":
            peer.signal(signal.SIGKILL)
        peer.start()


def _count_files(peer: common.StoreScp) -> int:
    time.sleep(0.05)
    return len(list(peer.folder.iterdir()))


def _page(port: int) -> str:
    time.sleep(0.2)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        return str(answer.read().decode())
