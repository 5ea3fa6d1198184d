# SPDX-License-Identifier: Apache-2.0
"""Predict many files: several at a time, read ahead, each written when it is done; skip what is done already.

Memory does not grow with the number of files: a finding is on the disk before the next is made, and the tables and the
report are made from there at the end.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import torch

from bundle import __version__
from bundle.data.names import output_name
from bundle.data.walk import passed_over_line, require_text_name
from bundle.errors import InputError, NotAnImageError, printable
from bundle.files import sha256_of
from bundle.finding import SCHEMA_VERSION, UNUSABLE, Finding
from bundle.networks.weights import card_path
from bundle.outputs.case import parts_of, warn_of, write_case
from bundle.outputs.findings import title_of_state, write_findings_csv, write_findings_json
from bundle.outputs.records import Findings, Records
from bundle.prediction.backends import FLOAT32, images_at_once
from bundle.prediction.cines import CineSummary, line_of
from bundle.prediction.inputs import FrameChoice, Input
from bundle.prediction.predictor import Predictor, weights_in
from bundle.readers import UltrasoundImage, count_frames, read_image, split_frame

THREADS, AHEAD = 2, 4
"""Readers at work, and cases that wait for the network at most: decoding hides behind it, and memory stays bounded.
As many writers, and cases that wait to be told of: compressing pictures and flushing files hide behind it as well."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Loaded: TypeAlias = UltrasoundImage | dict[str, Any] | None


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Args:
        name: of the image, or of the frame, in the results.
        source: the file's name in the results.
        frames: how many the file holds.
        finding: as plain JSON; None where it failed.
        error: why it failed.
        refused: outputs that its source does not allow, each with the reason.
        resumed: it was done by an earlier run.
        ends_file: no further frame of its file follows.
        passed_over: kind of a file in a folder that is no image and was not meant to be; "" for all others.
    """

    name: str
    source: str
    frames: int = 1
    finding: dict[str, Any] | None = None
    error: InputError | None = None
    refused: Sequence[dict[str, str]] = ()
    resumed: bool = False
    ends_file: bool = True
    passed_over: str = ""

    def line(self) -> str | None:
        """What a terminal shows of it; nothing of what an earlier run has done."""
        if self.error is not None:
            return f"skipped: {self.error}"
        if self.finding is None or self.resumed:
            return None
        warnings = "".join(f"\n    warning: {warning}" for warning in self.finding["warnings"])
        lesion, spacing = self.finding["lesion"], self.finding["spacing_mm"]
        if lesion is None:
            return f"{self.name}: {title_of_state(self.finding['lesion_state'], None)}{warnings}"
        unit, digits = ("px", 0) if spacing is None else ("mm", 1)
        axes = " × ".join(f"{lesion[f'{axis}_axis_{unit}']:.{digits}f}" for axis in ("long", "short"))
        return (
            f"{self.name}: P(malignant) {self.finding['probability']:.3f}, lesion of {axes} {unit} "
            f"at {tuple(self.finding['box'])}{warnings}"
        )


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

    @property
    def name(self) -> str:
        return printable(output_name(self.file.path, self.file.folder, self.frame).as_posix())

    @property
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


def read_ahead(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    threads: int = THREADS,
    ahead: int = AHEAD,
    prepare: Callable[[], None] | None = None,
) -> Iterator[_Result]:
    """Map a function over items in threads, each of which is prepared first; in order, at most ``ahead`` results before
    they are asked for."""
    pool = ThreadPoolExecutor(threads, initializer=prepare)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def at_once(predictor: Predictor, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Map a function that calls the predictor, or its networks, over items, in order, in the threads that torch has.

    Two images on a thread each take less time than one after the other on two, which wait for each other at the end of
    every layer, and idle while there is no network to run. Where the predictor is not `concurrent`, one image at a time
    has all threads.
    """
    threads = torch.get_num_threads()
    workers = images_at_once() if predictor.concurrent else 1
    try:
        yield from read_ahead(function, items, workers, 2 * workers, lambda: torch.set_num_threads(threads // workers))
    finally:
        torch.set_num_threads(threads)  # which every thread to come starts with


class Summary:
    """What a run came to, gathered outcome by outcome: names and counts, no findings.

    Args:
        passed_over: how many files of the folders were none of the inputs, by kind.
        computed_by: what computed the networks, for the record, see `Predictor.computed_by`.
    """

    def __init__(
        self,
        passed_over: Mapping[str, int] = MappingProxyType({}),
        computed_by: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.computed_by = dict(computed_by)
        self.names: list[str] = []
        self.skipped: list[dict[str, str]] = []
        self._cines: dict[str, CineSummary] = {}
        self.refused: dict[tuple[str, str], list[str]] = {}
        self.blank: list[str] = []
        self.resumed = 0
        self.passed_over = Counter(passed_over)

    def add(self, outcome: Outcome) -> None:
        """Take note of one outcome."""
        if outcome.error is not None:
            bad = outcome.error
            self.skipped.append({"path": outcome.source, "reason": bad.reason, "mend": bad.mend})
        if outcome.passed_over:
            self.passed_over[outcome.passed_over] += 1
        if outcome.finding is None:
            return
        self.names.append(outcome.name)
        self.resumed += outcome.resumed
        for refusal in outcome.refused:
            self.refused.setdefault((refusal["output"], refusal["reason"]), []).append(outcome.name)
        if outcome.frames > 1:
            cine = self._cines.setdefault(outcome.source, CineSummary(outcome.source, outcome.frames))
            cine.add(outcome.name, outcome.finding)
        elif outcome.finding["lesion_state"] == UNUSABLE:
            self.blank.append(outcome.name)

    @property
    def unusable(self) -> list[str]:
        """Images that show nothing, and files of several frames of which none that was looked at shows anything."""
        blank = (cine.file for cine in self._cines.values() if cine.unusable == cine.looked_at)
        return [*self.blank, *blank]

    @property
    def usable(self) -> bool:
        """Whether any image was of use."""
        frames = sum(cine.unusable for cine in self._cines.values())
        return len(self.names) > len(self.blank) + frames

    @property
    def cines(self) -> dict[str, dict[str, Any]]:
        """What the files of several frames come to, by their names; see `CineSummary`."""
        return {name: cine.as_dict() for name, cine in self._cines.items()}

    def not_written(self) -> list[dict[str, Any]]:
        """Outputs that sources do not allow: {"output", "reason", "images"}."""
        return [
            {"output": output, "reason": reason, "images": names} for (output, reason), names in self.refused.items()
        ]

    def lines(self) -> list[str]:
        """What a terminal shows at the end, one line per matter."""
        lines = [f"{self.resumed} done by an earlier run and kept; --again redoes them"] if self.resumed else []
        lines += [line] if (line := passed_over_line(self.passed_over)) else []
        lines += [line_of(cine) for cine in self.cines.values()]
        by_reason: dict[tuple[str, int], list[str]] = {}
        for refusal in self.not_written():
            by_reason.setdefault((refusal["reason"], len(refusal["images"])), []).append(refusal["output"])
        lines += [f"no {', '.join(outputs)} of {n} image(s): {reason}" for (reason, n), outputs in by_reason.items()]
        return lines

    def finish(self, output: Path, outputs: Sequence[str]) -> list[Path]:
        """Write the tables and the report of all findings from their records; returns what was written.

        Raises:
            InputError: a record is gone, or a file cannot be written.
        """
        findings = Findings(Records(output), self.names)
        written = []
        if "json" in outputs:
            more = {
                **{"bundle_version": __version__, "skipped": self.skipped, "cines": list(self.cines.values())},
                "not_written": self.not_written(),
                **({"computed_by": self.computed_by} if self.computed_by else {}),
            }
            written.append(output / "findings.json")
            write_findings_json(findings, written[-1], more)
        if "csv" in outputs:
            written.append(output / "findings.csv")
            write_findings_csv(findings, written[-1])
        if "parquet" in outputs:
            from bundle.outputs.parquet import write_findings_parquet

            written.append(output / "findings.parquet")
            write_findings_parquet(findings, self.skipped, written[-1])
        if {"html", "pdf"} & set(outputs):
            from bundle.outputs.findings_page import write_findings_report  # which needs jinja2

            written += write_findings_report(findings, self.skipped, list(self.cines.values()), output, outputs)
        return written
