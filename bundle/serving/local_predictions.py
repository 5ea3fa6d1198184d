# SPDX-License-Identifier: Apache-2.0
"""Predicting received images as `scripts/predict.py` does, so that what is on the disk is never made twice."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread

from bundle.outputs.dicom import quiet_dicom
from bundle.outputs.records import Records
from bundle.prediction.batch import Batch
from bundle.prediction.inputs import Input
from bundle.prediction.outcome import Outcome, Summary
from bundle.prediction.predictor import Predictor
from bundle.serving.predictions import Job, Predicted
from bundle.serving.queue import Answer


class LocalPredictions:
    """Predicts in this process.

    Args:
        predictor: makes the findings.
        models: digest of its weights, see `bundle.prediction.batch.weights_digest`.
    """

    def __init__(self, predictor: Predictor, models: str) -> None:
        self.predictor, self.models = predictor, models

    @property
    def card(self) -> Mapping[str, Any]:
        """Of the classifier."""
        return self.predictor.classifier.card

    @property
    def site(self) -> str | None:
        """Name of the institution that it is calibrated for, or None."""
        return self.predictor.classifier.site

    def predict(self, job: Job) -> Generator[Predicted]:
        """See `bundle.serving.predictions.Predictions.predict`."""
        received, answers = Path(job.folder) / "received", Path(job.folder) / "answers"
        inputs = [Input(received / f"{uid}.dcm", received, named=True) for uid in job.uids]
        of_file: dict[str, list[Outcome]] = {}
        for outcome in Batch(self.predictor, self.models, output=answers, outputs=job.outputs).run(inputs):
            of_file.setdefault(outcome.source, []).append(outcome)
            if outcome.ends_file:
                yield _predicted(outcome.source.removesuffix(".dcm"), of_file.pop(outcome.source), answers)

    def stop(self) -> None:
        """The image that is being predicted is done first: a thread cannot be left."""


def _predicted(uid: str, outcomes: Sequence[Outcome], folder: Path) -> Predicted:
    """What became of one file."""
    done = [outcome for outcome in outcomes if outcome.finding is not None]
    errors = [outcome.error.reason for outcome in outcomes if outcome.error is not None]
    if not done:
        return Predicted(uid, reason=next(iter(errors), "no frame of it could be predicted"))
    chosen = most_suspicious(done)
    files = [folder / file for file in Records(folder).read(chosen.name)["files"] if file.endswith(".dcm")]
    answers = tuple(read_answer(folder.parent, file) for file in files)
    refused = [f"no {refusal['output']}: {refusal['reason']}" for refusal in chosen.refused]
    skipped = [f"{len(errors)} frame(s) could not be used"] if errors else []
    return Predicted(uid, tuple(outcome.name for outcome in done), answers, "; ".join([*refused, *skipped]))


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
