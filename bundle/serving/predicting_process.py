# SPDX-License-Identifier: Apache-2.0
"""The process of `bundle.serving.predictions.PredictingProcess`: options and jobs come in, answers are told of.

    python -m bundle.serving.predicting_process < jobs > messages

It ends as soon as its input does, which is when the node has ended, by whatever: no two of them work in one folder.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from bundle.errors import InputError, UserError
from bundle.files import lock_folder
from bundle.serving.predictions import BAD, ENDED, FAILED, PREDICTED, READY, Job, Predictions

_LIBRARIES = ("pynetdicom", "pydicom", "highdicom")
_PATIENCE = 60.0
"""Seconds that the process of a node that has ended may take to end."""


def main() -> int:
    """Returns 0; it is ended, rather than ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to all; the node ends this one
    quiet_libraries()
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no message
    jobs = _read_jobs(sys.stdin)
    try:
        predictions = _load(next(jobs))
    except InputError as error:
        _tell(messages, BAD, error.as_dict())
        return 0
    except UserError as error:
        _tell(messages, FAILED, str(error))
        return 0
    _tell(messages, READY, {"card": dict(predictions.card), "site": predictions.site})
    for content in jobs:
        job = Job(content["folder"], tuple(content["uids"]), tuple(content["outputs"]))
        try:
            _wait_for(Path(job.folder) / "answers")
            for predicted in predictions.predict(job):
                _tell(messages, PREDICTED, asdict(predicted))
        except InputError as error:
            _tell(messages, BAD, error.as_dict())
        except Exception as error:
            logging.getLogger(__name__).exception("an error of the node")
            _tell(messages, FAILED, type(error).__name__)
        else:
            _tell(messages, ENDED, None)
    return 0


def quiet_libraries() -> None:
    """Keep out of the log what quotes headers."""
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _load(options: dict[str, Any]) -> Predictions:
    from bundle.prediction.batch import weights_digest
    from bundle.prediction.predictor import Predictor
    from bundle.serving.local_predictions import LocalPredictions

    predictor = Predictor.from_folder(**options)
    site = options.get("site")
    digest = weights_digest(Path(options["folder"]), bool(options.get("small")), Path(site) if site else None)
    return LocalPredictions(predictor, digest)


def _read_jobs(source: IO[str]) -> Iterator[Any]:
    """The lines of the input, read by a thread that ends the process with them."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in source:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


def _wait_for(folder: Path) -> None:
    """Lock a folder, which the process of a former node may hold for a moment."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            lock_folder(folder)
        except InputError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _tell(output: IO[str], kind: str, content: Any) -> None:
    print(json.dumps([kind, content]), file=output, flush=True)


if __name__ == "__main__":
    sys.exit(main())
