# SPDX-License-Identifier: Apache-2.0
"""Having what was received predicted, and handing the answers over."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

from bundle.errors import InputError
from bundle.serving.delivery import WAIT_FOR_DISK
from bundle.serving.predictions import Job, PredictionEndedError, Predictions
from bundle.serving.queue import TROUBLE, Queue

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Images per round: enough to keep all threads busy, few enough to do one by one after a kill."""


class Worker(threading.Thread):
    """Has the images of a queue predicted and hands their answers over for delivery.

    An image is done in two steps, and a kill between any two instructions loses and doubles nothing: `Batch` writes the
    answers and then its record of the case, by which it knows on a second try that they are there; then one transaction
    of the queue notes them as the image's answers and due to every peer. Only then are they sent.

    Args:
        queue: of the node.
        predictions: makes the answers.
        outputs: what to write, of ``seg sr sc`` and the others of `bundle.outputs.case`.
        answered: called after each round with answers.
        idle: called when there is nothing to predict.
    """

    def __init__(
        self,
        queue: Queue,
        predictions: Predictions,
        outputs: Sequence[str],
        answered: Callable[[], None],
        idle: Callable[[], None],
    ) -> None:
        super().__init__(name="worker", daemon=True)
        self.queue, self.predictions, self.outputs = queue, predictions, tuple(outputs)
        self.answered, self.idle = answered, idle
        self.wake, self._stopped = threading.Event(), threading.Event()

    def stop(self) -> None:
        """Leave what is being predicted, or end after the image that is."""
        self._stopped.set()
        self.predictions.stop()
        self.wake.set()

    def run(self) -> None:
        """Predict until stopped."""
        while not self._stopped.is_set():
            self.wake.clear()
            try:
                if not self.round():
                    self.idle()
                    self.wake.wait(1.0)
            except InputError as error:  # of the disk: nothing is lost, and nothing can be done until it has space
                logger.error("%s", error)
                self._stopped.wait(WAIT_FOR_DISK)
            except Exception:
                logger.exception("an error of the node; it goes on")
                self._stopped.wait(WAIT_FOR_DISK)

    def round(self) -> bool:
        """Predict the images that wait, some at a time; returns whether there were any.

        Raises:
            InputError: answers, or what is known of them, cannot be written; the images wait.
        """
        uids = self.queue.take(AT_ONCE)
        if not uids:
            return False
        open_ = dict.fromkeys(uids)
        suspect = False
        try:
            predicted = self.predictions.predict(Job(str(self.queue.folder), tuple(uids), self.outputs))
            with contextlib.closing(predicted):
                for done in predicted:
                    self.queue.finish(done.uid, done.cases, done.answers, done.reason)
                    del open_[done.uid]
                    if self._stopped.is_set():
                        break
        except PredictionEndedError as error:
            if not self._stopped.is_set():
                logger.error("%s; %d image(s) are tried again", error, len(open_))
                self.queue.note(TROUBLE, str(error))
                self.queue.note_crash()
        except InputError as error:
            self.queue.note(TROUBLE, f"answers cannot be written: {error.reason}")
            raise
        except Exception:
            logger.exception("%d image(s) could not be predicted; each is tried alone", len(open_))
            suspect = True
        finally:
            self.queue.give_back(list(open_), suspect)
            self.answered()
        return True
