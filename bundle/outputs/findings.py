# SPDX-License-Identifier: Apache-2.0
"""Write findings: pictures of each image, and the list of all as JSON and CSV."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from bundle.data.folder import ImageFolder
from bundle.data.names import output_name
from bundle.errors import InputError
from bundle.files import open_atomically, to_csv, to_json
from bundle.finding import DOUBTFUL, NONE_FOUND, NOT_A_DEVICE, SCHEMA_VERSION, UNUSABLE, Finding
from bundle.outputs.png import draw_overlay, write_explanation, write_mask, write_picture
from bundle.readers import read_image

if TYPE_CHECKING:
    from ignite.engine import Engine


def write_pictures(
    finding: Finding,
    name: Path,
    output_dir: Path,
    pixels: np.ndarray | None = None,
    kinds: Collection[str] = ("png", "overlay"),
) -> list[Path]:
    """Write ``masks/<name>``, ``overlays/<name>`` and, if it is explained, ``explanations/<name>`` of one finding.

    An unusable image gets no mask: an empty one would say that it was looked at.

    Args:
        finding: of an image.
        name: of the PNG files below each folder.
        output_dir: where to.
        pixels: (H, W) float32 of the image; None to read it again.
        kinds: ``png`` for the mask, ``overlay`` for the other two.

    Returns:
        what was written.
    """
    written = []
    if "png" in kinds and finding.lesion_state != UNUSABLE:
        written.append(output_dir / "masks" / name)
        write_mask(finding.mask, written[-1])
    if "overlay" in kinds:
        grey = read_image(finding.image, finding.frame).pixels if pixels is None else pixels
        written.append(output_dir / "overlays" / name)
        title = title_of(finding)
        write_picture(draw_overlay(grey, finding.mask, title), written[-1])
        if finding.explanation is not None:
            written.append(output_dir / "explanations" / name)
            write_explanation(grey, finding.explanation, finding.mask, written[-1], title=f"Grad-CAM, {title}")
    return written


def title_of(finding: Finding) -> str:
    """The line of text in a finding's pictures."""
    return title_of_state(finding.lesion_state, finding.probability)


def title_of_state(state: str, probability: float | None) -> str:
    """What a finding comes to in a few words, see `bundle.finding.LESION_STATES`."""
    if probability is None:
        return {NONE_FOUND: "no lesion found", UNUSABLE: "unusable image"}[state]
    return f"P(malignant) {probability:.2f}{', doubtful outline' if state == DOUBTFUL else ''}"


def write_findings(
    findings: Iterable[dict[str, Any]], skipped: Iterable[dict[str, str]], output_dir: Path, name: str = "findings"
) -> None:
    """Write ``findings.json`` and ``findings.csv``.

    Args:
        findings: as `Finding.as_dict` gives them.
        skipped: {"path", "reason", "mend"} of files without a finding; the path as a finding names its image.
        output_dir: where to.
        name: of the files and of the list in the JSON.
    """
    rows = list(findings)
    write_findings_json(rows, output_dir / f"{name}.json", {"skipped": list(skipped)}, name)
    write_findings_csv(rows, output_dir / f"{name}.csv")


def write_findings_json(
    findings: Iterable[dict[str, Any]], path: Path, more: Mapping[str, Any], name: str = "findings"
) -> None:
    """Write findings as one JSON object, atomically and one after another, so that memory does not grow with them.

    Args:
        findings: as `Finding.as_dict` gives them.
        path: the file.
        more: further entries of the object, plain JSON.
        name: of the list of findings in it.
    """
    with open_atomically(path) as file:
        head = f'"notice": {to_json(NOT_A_DEVICE)},\n  "schema_version": {SCHEMA_VERSION}'
        file.write(f"{{\n  {head},\n  {to_json(name)}: [".encode())
        between = ""
        for finding in findings:
            file.write(f"{between}\n{indent(to_json(finding), '    ')}".encode())
            between = ","
        file.write(b"\n  ]")
        for key, value in more.items():
            file.write(f",\n{indent(f'{to_json(key)}: {to_json(value)}', '  ')}".encode())
        file.write(b"\n}\n")


def write_findings_csv(findings: Iterable[dict[str, Any]], path: Path) -> None:
    """Write one row per finding as CSV (RFC 4180, UTF-8), atomically and one after another.

    Text that a spreadsheet would run as a formula gets a leading quote.
    """
    with open_atomically(path) as file:
        for number, finding in enumerate(findings):
            file.write(to_csv([flat_row(finding)], header=number == 0).encode("utf-8", "backslashreplace"))


def name_below(bad: InputError, folder: Path) -> dict[str, str]:
    """The parts of an error, its file named below a folder: results are passed on, and folders can name people."""
    return {**bad.as_dict(), "path": Path(bad.path).relative_to(folder).as_posix()}


def flat_row(finding: dict[str, Any]) -> dict[str, Any]:
    """One row of the table: what is one value per image."""
    top, left, bottom, right = finding["box"] or (None,) * 4
    lesion = finding["lesion"] or {}
    decisions = {f"decision at {name}": point["decision"] for name, point in finding["decisions"].items()}
    return {
        "image": finding["image"],
        "frame": finding["frame"],
        **{key: finding[key] for key in ("lesion_state", "lesion_probability", "reason")},
        "probability": finding["probability"],
        "probability_raw": finding["probability_raw"],
        **decisions,
        "call": finding.get("call"),
        "outline_confidence": finding.get("outline_confidence"),
        **{"top": top, "left": left, "bottom": bottom, "right": right},
        **{key: lesion.get(key) for key in ("area_px", "long_axis_px", "short_axis_px")},
        **{key: lesion.get(key) for key in ("area_mm2", "long_axis_mm", "short_axis_mm")},
        **{key: lesion.get(key) for key in ("orientation_degrees", "solidity")},
        "warnings": "; ".join(finding["warnings"]),
        "site": finding.get("site"),
        **{f"{network}_sha256": digest for network, digest in finding["models"].items()},
        **{key: finding[key] for key in ("schema_version", "notice")},
    }


class WriteFindings:
    """Handler of an evaluator whose output holds ``finding`` per image.

    Args:
        output_dir: gets ``findings.json``, ``findings.csv``, and ``masks/``, ``overlays/``, ``explanations/``.
        dataset_dir: the folder that image names are relative to.
        images: what is in the folder, for the progress bar and the list of skipped files.
        name: of the two files.
        pictures: false for the two files alone.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        dataset_dir: str | os.PathLike[str],
        images: ImageFolder,
        name: str = "findings",
        pictures: bool = True,
    ) -> None:
        self.folder, self.dataset_dir, self.images = Path(output_dir), Path(dataset_dir), images
        self.name, self.pictures = name, pictures
        self.rows: list[dict[str, Any]] = []
        self.bar: tqdm[Any] = tqdm(disable=True)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        from ignite.engine import Events  # whoever predicts has no engine

        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _open(self, _: Engine) -> None:
        self.rows.clear()
        self.bar = tqdm(total=len(self.images.readable), desc="predicting", unit="image")

    def _write(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for item in output:
            finding: Finding = item["finding"]
            name = output_name(Path(finding.image), self.dataset_dir, finding.frame)
            if self.pictures:
                write_pictures(finding, name, self.folder)
            if finding.lesion_state == UNUSABLE:
                self.images.note_unusable(str(item["image"].meta["filename_or_obj"]), str(finding.reason))
            self.rows.append({**finding.as_dict(), "image": name.as_posix()})
            self.bar.update()

    def _finish(self, _: Engine) -> None:
        self.bar.close()
        skipped = [name_below(bad, self.dataset_dir) for bad in self.images.skipped]
        write_findings(self.rows, skipped, self.folder, self.name)
