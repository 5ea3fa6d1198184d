# SPDX-License-Identifier: Apache-2.0
"""Print the table of docs/reliability.md from a log of the drills: python tests/reliability/summary.py LOG."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WHAT = {
    "saving": "kill -9 of a process that saves without pause: the last epoch told is loadable",
    "saving_monai": "control: the same with MONAI's saver, one file overwritten, as the zoo's bundles use it",
    "kills": "kill -9 of a whole run at a random moment, the same command again",
    "resume": "kill -9 after each epoch of a 10-epoch run, both stages",
    "signals": "SIGINT and SIGTERM, to the process or its group, with 0 and 2 data workers",
    "corruption": "checkpoints truncated, emptied, zeroed, overwritten, bits flipped",
    "not_finite": "NaN in an image, infinity in the loss, NaN in a gradient, both stages",
    "starvation": "files cannot grow, the folder cannot be made, a second run in the folder",
    "workers": "two gloo processes, one killed (one try: frozen); scripts/train.py",
    "nodes": "two launchers of one process each, on one machine, one process killed",
    "worlds": "stopped with two processes, gone on with one, and the other way round",
    "soak": "200 epochs in one process, both stages",
    "node": "kill -9 of the DICOM node while images come in, the same command again",
    "node_sending": "kill -9 of the node while its connection to DCMTK's storescp is open, the same command again",
    "node_disk": "the node's disk filled while images come in: to its reserve, to the last byte, and killed there",
    "node_peers": "one of two peers down, slow, silent, or without a class",
    "node_load": "the same images through scripts/predict.py, then from storescu through the node to storescp",
    "cost": "one checkpoint of the default segmentation network, median of 20",
}


def summarise(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of one row per drill: how many tries went as they should, and what they saw."""
    rows = ["| drill | tries | as it should | seen |", "|---|---|---|---|"]
    for name, what in WHAT.items():
        tries = [record for record in records if record["drill"] == name]
        if tries:
            rows.append(f"| {what} | {len(tries)} | {sum(record['ok'] for record in tries)} | {_seen(name, tries)} |")
    return "\n".join(rows)


def _seen(name: str, tries: Sequence[dict[str, Any]]) -> str:
    def greatest(key: str) -> Any:
        return max(record[key] for record in tries)

    if name in ("saving", "saving_monai"):
        lost = sum(record["loaded_epoch"] is None for record in tries)
        return f"{lost} times nothing loadable was left"
    if name == "kills":
        return f"{_same(tries)}; killed in: {_count(record['phase'] for record in tries)}"
    if name == "signals":
        inside = sum(record["batches"] > 0 for record in tries)
        return f"{_same(tries)}; {inside} stopped inside an epoch; {greatest('seconds'):.1f} s to the exit at most"
    if name == "corruption":
        return _count(record["outcome"] for record in tries)
    if name in ("not_finite", "starvation"):
        return _count(f"exit code {record['exit_code']}:" for record in tries)
    if name == "cost":
        return f"{tries[0]['seconds']:.2f} s for {tries[0]['megabytes']:.0f} MB"
    if name == "node_disk":
        refused = sum(sum(record["refused_while_full"].values()) for record in tries)
        return f"{_answered(tries)}; {refused} refusals while it was full, each as out of resources"
    if name == "node_peers":
        return (
            f"{_answered(tries)} at either peer; the other had all after {greatest('other_peer_had_all_after'):.0f} s"
        )
    if name == "node_load":
        last = tries[-1]
        return (
            f"{last['images']} images: {last['node_seconds']:.0f} s through the node, {last['batch_seconds']:.0f} s by "
            f"predict.py (ratio {last['ratio']:.2f}); memory {last['memory_mib'][0]} → {last['memory_mib'][1]} MiB"
        )
    if name in ("node", "node_sending"):
        kills, images, once, lost, doubled = (
            sum(record[key] for record in tries) for key in ("kills", "images", "answered_once", "lost", "doubled")
        )
        killed = sum((Counter(record["killed_while"]) for record in tries), Counter())
        states = ", ".join(f"{state} {count}" for state, count in killed.items())
        return (
            f"{kills} kills: {once} of {images} images answered exactly once, {lost} lost, {doubled} doubled; {states}"
        )
    if name == "workers":
        return f"{_same(tries)}; trained on after {greatest('seconds_until_it_trained_on'):.0f} s at most"
    if name == "worlds":
        return (
            f"validation by two and by one process differs by {greatest('largest_difference_of_a_metric'):.1g} at most"
        )
    if name == "soak":
        files = ", ".join(f"{before} → {after}" for before, after in (record["open_files"] for record in tries))
        return f"memory grew by {100 * greatest('growth'):.1f} % at most; open files {files}"
    return _same(tries)


def _answered(tries: Sequence[dict[str, Any]]) -> str:
    once, images, lost, doubled = (
        sum(record[key] for record in tries) for key in ("answered_once", "images", "lost", "doubled")
    )
    return f"{once} of {images} images answered exactly once, {lost} lost, {doubled} doubled"


def _same(tries: Sequence[dict[str, Any]]) -> str:
    return f"{sum(record['identical'] for record in tries)} of {len(tries)} end bit-identical"


def _count(values: Any) -> str:
    return ", ".join(f"{value} {number}" for value, number in Counter(values).most_common())


if __name__ == "__main__":
    print(summarise([json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]))
