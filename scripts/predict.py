# SPDX-License-Identifier: Apache-2.0
"""Find the lesion in breast ultrasound images and estimate the probability of malignancy. Research software only.

Without --output it prints one line per image and writes nothing. With it, cases that are done are skipped when the
same command runs again: after an interruption it goes on where it was.

Outputs (--write): png masks; overlay pictures; nifti masks; of DICOM files also seg (Segmentation), sr (Structured
Report, TID 1500), pr (Presentation State, drawn over the image) and sc (Secondary Capture of the overlay); json, csv,
parquet and html of all findings; pdf of the html.

A study out of a DICOMweb archive (--dicomweb URL --study UID), and with --store its seg, sr, pr and sc back into it.

An archive (--engine ray): the same files, by processes of this machine or of a Ray cluster; see docs/scaling.md.

Exit codes: 0 done; 2 a mistake in what was asked; 3 some files could not be used and all others are done; 130
interrupted.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.errors import UserError

if TYPE_CHECKING:
    from bundle.prediction.inputs import Input
    from bundle.prediction.outcome import Outcome

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = ("png", "overlay", "nifti", "seg", "sr", "pr", "sc", "json", "csv", "parquet", "html", "pdf")
DEFAULT = ("png", "overlay", "json", "csv", "html")
BACKENDS = (
    "auto",
    "torch",
    "onnxruntime",
    "openvino",
)  # auto and those of bundle.prediction.backends, which takes seconds to import
PRECISIONS = ("float32", "bfloat16", "int8")
INTERRUPTED = 130


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 2 for a user's mistake, 3 if some files could not be used and the others are done, 130 for Ctrl-C."""
    options = _parse(argv)

    gc.disable()  # imports leave no garbage, and looking for it takes a tenth of their time
    from tqdm import tqdm  # after the arguments: torch takes seconds to import

    from bundle.data.folder import SOME_CASES_FAILED
    from bundle.outputs.case import check_installed
    from bundle.prediction.inputs import list_inputs, read_list
    from bundle.prediction.outcome import Summary

    gc.enable()

    if options.dicomweb:
        options.inputs = _fetch(options)
    inputs, passed_over = list_inputs(options.inputs, read_list(options.list) if options.list else (), options.output)
    outputs = tuple(options.write or DEFAULT) if options.output else ()
    check_installed(outputs)
    outcomes, computed_by = _start(options, inputs, outputs)
    summary = Summary(passed_over, computed_by)
    try:
        with tqdm(total=len(inputs), desc="predicting", unit="file", disable=len(inputs) < 2) as bar, _Lines() as lines:
            for outcome in outcomes:
                summary.add(outcome)
                bar.update(outcome.ends_file)
                if line := outcome.line():
                    lines.add(line, sys.stderr if outcome.finding is None else sys.stdout)
    except KeyboardInterrupt:
        kept = f"; {len(summary.names)} are done and kept: the same command goes on" if options.output else ""
        print(f"\ninterrupted{kept}", file=sys.stderr)
        return INTERRUPTED
    if options.output and (summary.names or summary.skipped):
        for file in summary.finish(options.output, outputs):
            print(f"Written: {file}")
    if options.store:
        _store(options, summary.names)
    for line in summary.lines():
        print(line)
    print("Networks: " + ", ".join([computed_by["backend"], computed_by["precision"], *_no_flip(computed_by)]))
    print("Research software, not a medical device.")
    if not summary.usable:
        raise UserError("no image could be used; see the lines above")
    return SOME_CASES_FAILED if summary.skipped or summary.unusable else 0


class _Lines:
    """Lines above a progress bar, several at once: clearing and drawing the bar for each takes milliseconds."""

    WAIT = 0.1
    """Seconds until they are shown, which nobody notices."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, TextIO]] = []
        self._shown = 0.0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._show()

    def add(self, line: str, file: TextIO) -> None:
        """Show a line, now or soon."""
        self._waiting.append((line, file))
        if time.monotonic() - self._shown >= self.WAIT:
            self._show()

    def _show(self) -> None:
        from tqdm import tqdm

        for file, lines in groupby(self._waiting, key=lambda entry: entry[1]):
            tqdm.write("\n".join(line for line, _ in lines), file=file)
        self._waiting.clear()
        self._shown = time.monotonic()


def _no_flip(computed_by: dict[str, Any]) -> list[str]:
    return [] if computed_by["flip"] else ["without the mirror image"]


def _fetch(options: argparse.Namespace) -> list[Path]:
    """The images of a study of an archive, fetched into the output folder."""
    from bundle.serving.dicomweb import DicomWeb

    paths = DicomWeb(options.dicomweb).fetch(options.study, options.output / "fetched")
    print(f"{len(paths)} image(s) fetched")
    return paths


def _store(options: argparse.Namespace, names: Sequence[str]) -> None:
    from bundle.outputs.records import Records
    from bundle.serving.dicomweb import DicomWeb

    records = Records(options.output)
    files = [options.output / file for name in names for file in records.read(name)["files"] if file.endswith(".dcm")]
    print(f"{DicomWeb(options.dicomweb).store(files)} object(s) stored")


def _start(
    options: argparse.Namespace, inputs: Sequence[Input], outputs: Sequence[str]
) -> tuple[Iterator[Outcome], dict[str, Any]]:
    """Find the mistakes that need no image, claim the output folder; returns what gives the outcomes, and by what."""
    from bundle.files import lock_folder, remove_leftovers
    from bundle.prediction.batch import Batch, weights_digest
    from bundle.prediction.inputs import FrameChoice
    from bundle.prediction.predictor import Predictor

    by_ray = options.engine == "ray"
    if by_ray:
        from bundle.prediction.archive import Job, load_ray, predict_archive

        ray = load_ray(options.address)
    # The machine that starts the workers may have no GPU; it loads the networks to find what is wrong with them.
    device = "cpu" if by_ray else options.device
    how = {name: getattr(options, name) for name in ("explain", "allow_unverified", "backend", "small", "flip")}
    how["amp"] = None if options.precision is None else options.precision == "bfloat16"
    how["int8"] = options.precision == "int8"
    how["site"] = options.site and options.site.absolute()
    predictor = Predictor.from_folder(options.models, device, **how)
    if predictor.classifier.site is not None:
        print(f"Calibrated for {predictor.classifier.site} by {options.site}")
    if options.output:
        lock_folder(options.output)
        for folder, _, _ in os.walk(options.output):
            remove_leftovers(folder)
    digest = weights_digest(options.models, options.small, options.site)
    frames = FrameChoice(options.frame, options.every, options.all_frames)
    if not by_ray:
        batch = Batch(predictor, digest, frames, options.output, outputs, options.again)
        return batch.run(inputs), predictor.computed_by
    models, output = options.models.absolute(), options.output.absolute()
    job = Job(models, digest, output, outputs, frames, options.again, options.device, **how)
    return predict_archive(ray, inputs, job, options.processes, options.address), predictor.computed_by


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="images, DICOM, NIfTI or clips, or folders of them",
    )
    add("--list", type=Path, metavar="FILE", help="further paths: text, one a line; or CSV or Parquet")
    add("--output", type=Path, metavar="DIR", help="write the results there")
    add(
        "--write",
        nargs="+",
        choices=OUTPUTS,
        metavar="OUTPUT",
        help=f"any of {' '.join(OUTPUTS)}; default: {' '.join(DEFAULT)}",
    )
    add("--explain", action="store_true", help="also draw where the classifier saw malignancy (Grad-CAM)")
    add("--again", action="store_true", help="also redo what an earlier run has done")
    cine = parser.add_argument_group("files of several frames", "default: evenly spread frames, 20 at most")
    cine = cine.add_mutually_exclusive_group()
    cine.add_argument("--frame", type=_count(0), metavar="N", help="frame N alone, counted from 0")
    cine.add_argument("--every", type=_count(1), metavar="N", help="every N-th frame")
    cine.add_argument("--all-frames", action="store_true", help="all frames")
    add(
        "--models",
        type=Path,
        default=ROOT / "models",
        metavar="DIR",
        help="default: models; models/paper for paper_model.pt and its fellows there",
    )
    add("--small", action="store_true", help="segment with model_small.pt of that folder, made for CPUs")
    add(
        "--site",
        type=Path,
        metavar="FILE",
        help="site.json of scripts/recalibrate.py: the institution's own calibration",
    )
    add("--allow-unverified", action="store_true", help="also use weights that are not those of their card")
    add("--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one")
    fast = parser.add_argument_group("speed", "what each choice costs and brings stands in docs/scaling.md")
    fast.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what computes the networks; default: auto, on a CPU the fastest that is installed; torch on a GPU",
    )
    fast.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="default: float32 by auto on a CPU, else bfloat16 where the machine is fast in it; int8 by openvino alone",
    )
    fast.add_argument("--no-flip", dest="flip", action="store_false", help="do not average with the mirror image")
    web = parser.add_argument_group("a DICOMweb archive", "needs requirements-clinic.txt; see docs/pacs.md")
    web.add_argument("--dicomweb", metavar="URL", help="root of its service; a token stands in DICOMWEB_TOKEN")
    web.add_argument("--study", metavar="UID", help="Study Instance UID of the images to fetch")
    web.add_argument("--store", action="store_true", help="store the DICOM objects that --write names")
    many = parser.add_argument_group("several processes or machines")
    many.add_argument("--engine", choices=("local", "ray"), default="local", help="ray: by Ray Data; default: local")
    many.add_argument("--processes", type=_count(1), metavar="N", help="workers; default: one per GPU, else per CPU")
    many.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster; default: this machine alone")
    options = parser.parse_args(argv)
    _check_archive(parser, options)
    if not (options.inputs or options.list or options.dicomweb):
        parser.error("give files or folders, or --list FILE")
    for name in ("explain", "write", "again"):
        if getattr(options, name) and not options.output:
            parser.error(f"--{name} is about files; say where to with --output DIR")
    _check_engine(parser, options)
    return options


def _check_archive(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.dicomweb:
        if options.study or options.store:
            parser.error("--study and --store are about an archive; say which with --dicomweb URL")
        return
    if not options.study or not options.output or options.inputs or options.list:
        parser.error("--dicomweb takes its images from the archive alone; give --study UID and --output DIR")
    if options.store and not set(options.write or ()) & {"seg", "sr", "pr", "sc"}:
        parser.error("--store is about DICOM objects; name them with --write seg sr pr sc")


def _check_engine(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.engine == "local":
        for name in ("processes", "address"):
            if getattr(options, name):
                parser.error(f"--{name} is about --engine ray")
    elif not options.output:
        parser.error("--engine ray keeps what is done in a folder; say where with --output DIR")
    elif options.device not in (None, "cpu", "cuda"):
        parser.error("--engine ray hands out the GPUs itself; give --device cpu or cuda")


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
