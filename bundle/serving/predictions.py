# SPDX-License-Identifier: Apache-2.0
"""How the node gets the answers of received images: here, or in a process of its own.

The process keeps what predicts apart from what receives and delivers: neither waits for the other's Python, and where
it dies, by its memory or by a fault in a library, the node receives on and starts another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import bundle
from bundle.errors import InputError, UserError
from bundle.serving.queue import Answer

READY, PREDICTED, BAD, FAILED, ENDED = "ready", "predicted", "bad", "failed", "ended"
"""Kinds of messages of the process, each a line of JSON: [kind, content]."""

_MODULE = "bundle.serving.predicting_process"


@dataclass(frozen=True)
class Job:
    """Images to predict.

    Args:
        folder: of the node; the files lie in ``received/``, the answers are written to ``answers/``.
        uids: of the images.
        outputs: what to write, of `bundle.outputs.case.OF_A_CASE`.
    """

    folder: str
    uids: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Predicted:
    """What became of a received image: its cases in the records, its answers, and why there are none or not all."""

    uid: str
    cases: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    reason: str = ""


class PredictionEndedError(RuntimeError):
    """What predicts has died, nobody knows by which image."""


class Predictions(Protocol):
    """What predicts."""

    @property
    def card(self) -> Mapping[str, Any]:
        """Of the classifier."""

    @property
    def site(self) -> str | None:
        """Name of the institution that the classifier is calibrated for, or None."""

    def predict(self, job: Job) -> Generator[Predicted]:
        """Predict images, in their order; what is yielded is on the disk. It may be closed before its end.

        Raises:
            InputError: answers cannot be written.
            PredictionEndedError: what predicts has died.
            Exception: an error of the node.
        """

    def stop(self) -> None:
        """Leave what is being predicted, from any thread: `predict` ends with `PredictionEndedError`, if at all."""


class PredictingProcess:
    """Predicts in a process of its own, which is started anew after its death.

    Args:
        options: of `bundle.prediction.predictor.Predictor.from_folder`, by name, and its ``folder``; ready for JSON.

    Raises:
        UserError: the networks cannot be loaded.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        ready = self._start()
        self._card, self._site = ready["card"], ready["site"]

    @property
    def card(self) -> Mapping[str, Any]:
        """Of the classifier."""
        card: Mapping[str, Any] = self._card
        return card

    @property
    def site(self) -> str | None:
        """Name of the institution that the classifier is calibrated for, or None."""
        site: str | None = self._site
        return site

    def predict(self, job: Job) -> Generator[Predicted]:
        """See `Predictions.predict`; closed before its end, the process is killed, which neither loses nor doubles."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        whole = False
        try:
            try:
                print(json.dumps(asdict(job)), file=self._process.stdin, flush=True)
            except OSError:
                self._died()
            while True:
                kind, content = self._read()
                whole = kind != PREDICTED  # whatever else it says, it waits for the next job
                if kind == ENDED:
                    break
                if kind == BAD:
                    raise InputError(**content)
                if kind == FAILED:
                    raise RuntimeError(content)
                answers = tuple(Answer(**answer) for answer in content.pop("answers"))
                yield Predicted(content["uid"], tuple(content["cases"]), answers, content["reason"])
        finally:
            if not whole:
                self._kill()

    def stop(self) -> None:
        """End the process."""
        self._stopped = True
        self._kill()

    def _start(self) -> dict[str, Any]:
        """Start the process and wait until its networks are loaded."""
        if self._stopped:
            raise PredictionEndedError("it was stopped")
        root = str(Path(bundle.__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        if self._stopped:  # meanwhile
            self._died()
        assert self._process.stdin is not None
        try:
            print(json.dumps(self._options), file=self._process.stdin, flush=True)
        except OSError:
            self._died()
        kind, content = self._read()
        if kind == BAD:
            raise InputError(**content)
        if kind == FAILED:
            raise UserError(content)
        ready: dict[str, Any] = content
        return ready

    def _read(self) -> tuple[str, Any]:
        assert self._process is not None
        output: IO[str] | None = self._process.stdout
        assert output is not None
        line = output.readline()
        if not line.endswith("\n"):
            self._died()
        kind, content = json.loads(line)
        return kind, content

    def _died(self) -> None:
        self._kill()
        code = self._process.returncode if self._process else None
        raise PredictionEndedError(f"the process that predicts has ended (exit code {code})")

    def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
