# SPDX-License-Identifier: Apache-2.0
"""Delivering answers: each target at its own pace; what cannot be delivered is kept and tried again."""

from __future__ import annotations

import logging
import threading
import time

from bundle.errors import InputError
from bundle.serving.commitment import Commitments
from bundle.serving.queue import SENT, TROUBLE, WAITING, Answer, Queue
from bundle.serving.targets import Target

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Objects that are sent over one association."""

FIRST_WAIT, LONGEST_WAIT = 5.0, 600.0
"""Seconds until what failed is tried again; doubled each time, up to the longest."""


WAIT_FOR_DISK = 10.0
"""Seconds until the node's own disk is tried again."""


class Courier(threading.Thread):
    """Delivers to one target, so that no target waits for another.

    Args:
        queue: of the node.
        target: gets its deliveries.
        commitments: asks the target to commit to what it took; None not to ask.
    """

    def __init__(self, queue: Queue, target: Target, commitments: Commitments | None = None) -> None:
        super().__init__(name=f"courier {target.name}", daemon=True)
        self.queue, self.target, self.commitments = queue, target, commitments
        self.wake, self._stopped = threading.Event(), threading.Event()
        self._wait = 0.0
        self.problem = ""

    def stop(self) -> None:
        """End after the object that is being sent."""
        self._stopped.set()
        self.wake.set()

    def run(self) -> None:
        """Deliver until stopped."""
        while not self._stopped.is_set():
            self.wake.clear()
            try:
                worked = self._round()
            except InputError as error:  # of the node's own disk; the target may have got what cannot be noted
                logger.error("%s", error)
                self.problem = "waits until the node can write to its disk"
                self._stopped.wait(WAIT_FOR_DISK)
                continue
            except Exception as error:  # whatever it is, the answers are on the disk and are tried again
                logger.exception("%s: nothing was delivered", self.target.name)
                self._hold(f"nothing could be delivered ({type(error).__name__}, see the node's log)")
                worked = False
            if self._wait:
                self._stopped.wait(self._wait)
            elif not worked:
                self.wake.wait(1.0)

    def _round(self) -> bool:
        """Deliver what is due; returns whether anything was."""
        due = self.queue.all(
            "select a.uid, a.sop_class, a.file, a.study from deliveries d join answers a on a.uid = d.answer "
            "where d.peer = ? and d.state = ? and d.next_try <= ? order by d.rowid limit ?",
            *(self.target.name, WAITING, time.time(), AT_ONCE),
        )
        if not due:
            if self.commitments:
                self.commitments.round()
            return False
        try:
            self.target.deliver([Answer(*row) for row in due], self.queue.folder, self._told)
        except (ConnectionError, OSError) as error:
            self._hold(str(error))
            return False
        self._wait, self.problem = 0.0, ""
        return True

    def _hold(self, reason: str) -> None:
        """Leave the target alone for a while, longer each time."""
        self._wait = min(LONGEST_WAIT, 2 * self._wait or FIRST_WAIT)
        self.problem = reason
        logger.warning("%s: %s; tried again in %.0f s", self.target.name, reason, self._wait)
        self.queue.note(TROUBLE, f"{self.target.name} {reason}")

    def _told(self, answer: Answer, reason: str) -> None:
        now = time.time()
        if not reason:
            self.queue.write(
                "update deliveries set state = ?, reason = '', sent = ? where answer = ? and peer = ?",
                *(SENT, now, answer.uid, self.target.name),
            )
            return
        logger.warning("%s: %s; kept, and tried again", self.target.name, reason)
        self.queue.write(
            "update deliveries set tries = tries + 1, reason = ?, next_try = ? + min(?, ? * (1 << min(tries, 20))) "
            "where answer = ? and peer = ?",
            *(reason, now, LONGEST_WAIT, FIRST_WAIT, answer.uid, self.target.name),
        )
