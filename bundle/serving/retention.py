# SPDX-License-Identifier: Apache-2.0
"""Deleting what was received and answered, by one rule: N days after the last of it was delivered to everybody."""

from __future__ import annotations

import time
from pathlib import Path

from bundle.outputs.records import Records
from bundle.serving.queue import WAITING, Queue

_DAY = 86400.0
_AT_ONCE = 500


def delete_old(queue: Queue, days: float, now: float | None = None) -> int:
    """Delete images, with their answers, whose study is done with; returns how many images.

    A study is done with when no image of it waits, its summary is made, none of its answers waits for a peer, and
    all of that has been so for a number of days. Images without an answer count from when that was found.

    Args:
        queue: of the node.
        days: may be a fraction.
        now: seconds since the epoch; for tests.

    Raises:
        InputError: the queue cannot be read or written.
    """
    before = (time.time() if now is None else now) - days * _DAY
    studies = queue.all(
        "select uid from studies s where not is_open and last_image < ? "
        "and not exists (select 1 from images i where i.study = s.uid and (i.state = ? or i.done >= ?)) "
        "and not exists (select 1 from answers a join deliveries d on d.answer = a.uid where a.study = s.uid "
        "and (d.state = ? or d.sent >= ?)) limit ?",
        *(before, WAITING, before, WAITING, before, _AT_ONCE),
    )
    return sum(_delete_study(queue, str(uid)) for (uid,) in studies)


def _delete_study(queue: Queue, study: str) -> int:
    """Files first: a kill in between leaves rows, by which the rest is deleted the next time."""
    images = [str(uid) for (uid,) in queue.all("select uid from images where study = ?", study)]
    cases = queue.all("select c.name from cases c join images i on i.uid = c.image where i.study = ?", study)
    records = Records(queue.answers)
    for (name,) in cases:
        record = records.path(str(name))
        if record.exists():
            for file in records.read(str(name))["files"]:
                (queue.answers / file).unlink(missing_ok=True)
            record.unlink(missing_ok=True)
    answers = queue.all("select uid, file from answers where study = ?", study)
    for _, file in answers:
        (queue.folder / str(file)).unlink(missing_ok=True)
    for path in summary_files(queue, study):
        path.unlink(missing_ok=True)
    for uid in images:
        queue.path(uid).unlink(missing_ok=True)
    queue.forget(study, images, [str(uid) for uid, _ in answers])
    return len(images)


def summary_files(queue: Queue, study: str) -> list[Path]:
    """What lies on disk of the summaries of a study."""
    return sorted((queue.answers / "studies").glob(f"{study}.*"))
