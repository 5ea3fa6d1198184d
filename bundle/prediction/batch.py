# SPDX-License-Identifier: Apache-2.0
"""Predict many files: several at a time, read ahead, each written when it is done; skip what is done already.

Memory does not grow with the number of files: a finding is on the disk before the next is made, and the tables and the
report are made from there at the end.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from bundle import __version__
from bundle.data.names import output_name
from bundle.data.walk import require_text_name
from bundle.errors import InputError, NotAnImageError, printable
from bundle.files import sha256_of
from bundle.finding import SCHEMA_VERSION, Finding
from bundle.networks.weights import card_path
from bundle.outputs.case import parts_of, warn_of, write_case
from bundle.outputs.records import Records
from bundle.prediction.ahead import at_once, read_ahead
from bundle.prediction.backends import FLOAT32
from bundle.prediction.inputs import FrameChoice, Input
from bundle.prediction.outcome import Outcome
from bundle.prediction.predictor import Predictor, weights_in
from bundle.readers import UltrasoundImage, count_frames, read_image, split_frame

_Loaded: TypeAlias = UltrasoundImage | dict[str, Any] | None


def weights_digest(folder: Path, small: bool = False, site: Path | None = None) -> str:
    """Return one sha256 of the weights and cards of both networks in a folder, and of a site file: what a prediction
    depends on.

    Raises:
        InputError: a file cannot be read.
    """
    weights = weights_in(folder, small)
    files = [*weights, *(card_path(path) for path in weights), *([site] if site else [])]
    return hashlib.sha256("".join(sha256_of(path) for path in files).encode()).hexdigest()


@dataclass
class Batch:
    """One run over many files.

    Args:
        predictor: makes the findings.
        models: digest of its weights, see `weights_digest`.
        frames: which frames of a file of several are looked at.
        output: folder of the results; None to write nothing.
        outputs: what to write, of `bundle.outputs.case.OF_A_CASE` and ``OF_ALL``.
        again: also what is done already.
        run_id: tells what this run has done from what an earlier one has; its processes share it.
    """

    predictor: Predictor
    models: str
    frames: FrameChoice = field(default_factory=FrameChoice)
    output: Path | None = None
    outputs: Sequence[str] = ()
    again: bool = False
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def run(self, inputs: Sequence[Input]) -> Iterator[Outcome]:
        """Predict, write and record, case by case, in the order of the inputs; then `Summary.finish` writes the rest.

        A bad file is an outcome with an error, and the run goes on.

        Raises:
            InputError: a result cannot be written.
        """
        loaded = read_ahead(self._load, self._open_cases(inputs))
        predicted = at_once(self.predictor, self._predict, loaded)
        if self.output is None:  # to hand a case to a thread would take longer than to finish it
            yield from map(self._finish_case, predicted)
        else:
            yield from read_ahead(self._finish_case, predicted)

    def _open_cases(self, inputs: Sequence[Input]) -> Iterator[_Case]:
        """One case per frame, or one that says what is wrong with its file."""
        names: set[str] = set()
        recorded = self.output is not None
        for file, opened in read_ahead(lambda file: (file, _inspect(file, self.frames, recorded)), inputs):
            for case in opened:
                if case.name in names and self.output is not None:
                    error = InputError(
                        file.path, f"another input is written as {case.name}", "give it in a run of its own"
                    )
                    case = replace(case, error=error)
                names.add(case.name)
                yield case

    def _load(self, case: _Case) -> tuple[_Case, _Loaded]:
        """The image of a case; or its record where it is done; or nothing where its file is bad."""
        if case.error is not None:
            return case, None
        if self.output is not None:
            record = Records(self.output).find(case.name, self._key(case), parts_of(self.outputs))
            if record is not None and not (self.again and self._is_earlier(record)):
                return case, record
        try:
            return case, read_image(split_frame(case.file.path)[0], case.frame, case.upcoming)
        except InputError as error:
            return replace(case, error=error), None

    def _predict(self, loaded: tuple[_Case, _Loaded]) -> tuple[_Case, _Loaded, Finding | None]:
        case, image = loaded
        return case, image, self.predictor.predict(image) if isinstance(image, UltrasoundImage) else None

    def _finish_case(self, predicted: tuple[_Case, _Loaded, Finding | None]) -> Outcome:
        """Write the files of a case, and its record after them."""
        case, image, finding = predicted
        outcome = Outcome(case.name, case.source, case.frames, error=case.error, ends_file=case.ends_file)
        if isinstance(case.error, NotAnImageError) and not case.file.named:
            return replace(outcome, error=None, passed_over=case.error.kind)
        if isinstance(image, dict):
            return replace(outcome, finding=image["finding"], refused=image["refused"], resumed=self._is_earlier(image))
        if image is None or finding is None:
            return outcome
        parts, source = parts_of(self.outputs), split_frame(case.file.path)[0]
        finding = warn_of(parts, replace(finding, image=case.name), source)
        content = finding.as_dict()
        if self.output is None:
            return replace(outcome, finding=content)
        written = write_case(finding, image, source, Path(case.name), self.output, parts)
        Records(self.output).write(case.name, self._key(case), content, parts, written, self.run_id)
        return replace(outcome, finding=content, refused=written.refused)

    def _is_earlier(self, record: dict[str, Any]) -> bool:
        """Whether a record is of another run; one of this run is met again where a worker died before it told of it."""
        return record.get("run") != self.run_id

    def _choices(self) -> list[str]:
        """Choices of this run that move its numbers beyond the last digits; none by default."""
        computed = self.predictor.computed_by
        return [
            *([] if computed["precision"] == FLOAT32 else [computed["precision"]]),
            *([] if computed["flip"] else ["plain"]),
        ]

    def _key(self, case: _Case) -> str:
        """What a finding depends on: the file's bytes, the frame, the models, the options, the version."""
        explained = self.predictor.classifier.explain is not None
        content = [case.digest, case.frame, self.models, explained, __version__, SCHEMA_VERSION, *self._choices()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class _Case:
    """One image to predict: a file, or one of its frames, or what is wrong with the file."""

    file: Input
    frame: int | None = None
    frames: int = 1
    digest: str = ""
    error: InputError | None = None
    ends_file: bool = True
    upcoming: Sequence[int] = ()

    @cached_property
    def name(self) -> str:
        return printable(output_name(self.file.path, self.file.folder, self.frame).as_posix())

    @cached_property
    def source(self) -> str:
        return printable(Path(split_frame(self.file.path)[0]).relative_to(self.file.folder).as_posix())


def _inspect(file: Input, choice: FrameChoice, recorded: bool) -> list[_Case]:
    """The cases of one file, by its header and, for a record, its bytes; no pixel is decoded but to count those of a
    video."""
    path = split_frame(file.path)[0]
    try:
        require_text_name(path)
        frames = count_frames(path)
        chosen = choice.choose(file.path, frames)
        digest = sha256_of(path) if recorded else ""
    except InputError as error:
        return [_Case(file, error=error)]
    upcoming = chosen if isinstance(chosen, range) else ()
    return [_Case(file, frame, frames, digest, None, frame == chosen[-1], upcoming) for frame in chosen]
