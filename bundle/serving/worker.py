# SPDX-License-Identifier: Apache-2.0
"""Predicting what was received: as `scripts/predict.py` does, so that what is on the disk is never made twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom import dcmread

from bundle.errors import InputError
from bundle.outputs.dicom import quiet_dicom
from bundle.outputs.records import Records
from bundle.prediction.batch import Batch
from bundle.prediction.inputs import Input
from bundle.prediction.outcome import Outcome, Summary
from bundle.prediction.predictor import Predictor
from bundle.serving.delivery import WAIT_FOR_DISK
from bundle.serving.queue import TROUBLE, Answer, Queue

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Images per round: enough to keep all threads busy, few enough to do one by one after a kill."""


class Worker(threading.Thread):
    """Predicts the images of a queue and hands their answers over for delivery.

    An image is done in two steps, and a kill between any two instructions loses and doubles nothing: `Batch` writes the
    answers and then its record of the case, by which it knows on a second try that they are there; then one transaction
    of the queue notes them as the image's answers and due to every peer. Only then are they sent.

    Args:
        queue: of the node.
        predictor: makes the findings.
        models: digest of its weights, see `bundle.prediction.batch.weights_digest`.
        outputs: what to write, of ``seg sr sc`` and the others of `bundle.outputs.case`.
        answered: called after each round with answers.
        idle: called when there is nothing to predict.
    """

    def __init__(
        self,
        queue: Queue,
        predictor: Predictor,
        models: str,
        outputs: Sequence[str],
        answered: Callable[[], None],
        idle: Callable[[], None],
    ) -> None:
        super().__init__(name="worker", daemon=True)
        self.queue, self.predictor, self.models, self.outputs = queue, predictor, models, tuple(outputs)
        self.answered, self.idle = answered, idle
        self.wake, self._stopped = threading.Event(), threading.Event()

    def stop(self) -> None:
        """End after the image that is being predicted."""
        self._stopped.set()
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
        open_: dict[str, list[Outcome]] = {f"{uid}.dcm": [] for uid in uids}
        inputs = [Input(self.queue.path(uid), self.queue.received, named=True) for uid in uids]
        suspect = False
        try:
            batch = Batch(self.predictor, self.models, output=self.queue.answers, outputs=self.outputs)
            for outcome in batch.run(inputs):
                open_[outcome.source].append(outcome)
                if outcome.ends_file:
                    self._finish(outcome.source, open_.pop(outcome.source))
                if self._stopped.is_set():
                    break
        except InputError as error:
            self.queue.note(TROUBLE, f"answers cannot be written: {error.reason}")
            raise
        except Exception:
            logger.exception("%d image(s) could not be predicted; each is tried alone", len(open_))
            suspect = True
        finally:
            self.queue.give_back([source.removesuffix(".dcm") for source in open_], suspect)
            self.answered()
        return True

    def _finish(self, source: str, outcomes: Sequence[Outcome]) -> None:
        """Note what became of one file."""
        uid = source.removesuffix(".dcm")
        done = [outcome for outcome in outcomes if outcome.finding is not None]
        errors = [outcome.error.reason for outcome in outcomes if outcome.error is not None]
        if not done:
            self.queue.finish(uid, [], [], next(iter(errors), "no frame of it could be predicted"))
            return
        chosen = most_suspicious(done)
        answers = [read_answer(self.queue.folder, file) for file in self._files(chosen.name)]
        refused = [f"no {refusal['output']}: {refusal['reason']}" for refusal in chosen.refused]
        skipped = [f"{len(errors)} frame(s) could not be used"] if errors else []
        self.queue.finish(uid, [outcome.name for outcome in done], answers, "; ".join([*refused, *skipped]))

    def _files(self, name: str) -> list[Path]:
        """The DICOM objects that were written of a case."""
        files = Records(self.queue.answers).read(name)["files"]
        return [self.queue.answers / file for file in files if file.endswith(".dcm")]


def most_suspicious(outcomes: Sequence[Outcome]) -> Outcome:
    """Of the frames of one file, the one that answers for it: the most suspicious, or the first if none shows any."""
    summary = Summary()
    for outcome in outcomes:
        summary.add(outcome)
    best = next(iter(summary.cines.values()), {}).get("most_suspicious")
    names = {outcome.name: outcome for outcome in outcomes}
    return names[best["image"]] if best else outcomes[0]


def read_answer(folder: Path, file: Path) -> Answer:
    """Return what the queue has to know of a DICOM object of ours, by its file below the node's folder."""
    with quiet_dicom():
        header = dcmread(
            file, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID"]
        )
        uids = (str(header.SOPInstanceUID), str(header.SOPClassUID))
        return Answer(*uids, file.relative_to(folder).as_posix(), str(header.StudyInstanceUID))
