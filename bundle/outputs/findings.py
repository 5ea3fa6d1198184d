# SPDX-License-Identifier: Apache-2.0
"""Write findings: pictures of each image, and the list of all as JSON and CSV."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from tqdm import tqdm

from bundle.data.folder import ImageFolder
from bundle.errors import InputError
from bundle.evaluation.handler import to_csv
from bundle.files import write_atomically, write_json
from bundle.findings import NOT_A_DEVICE, Finding
from bundle.outputs.handler import output_name
from bundle.outputs.png import write_explanation, write_mask, write_overlay
from bundle.readers import read_image


def write_pictures(finding: Finding, name: Path, output_dir: Path) -> None:
    """Write ``masks/<name>``, ``overlays/<name>`` and, if it is explained, ``explanations/<name>`` of one finding."""
    write_mask(finding.mask, output_dir / "masks" / name)
    pixels = read_image(finding.image, finding.frame).pixels
    title = f"P(malignant) {finding.probability:.2f}"
    write_overlay(pixels, finding.mask.astype(np.float32), 0.5, output_dir / "overlays" / name, title=title)
    if finding.explanation is not None:
        title = f"Grad-CAM, {title}"
        write_explanation(pixels, finding.explanation, finding.mask, output_dir / "explanations" / name, title=title)


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
    content = {"notice": NOT_A_DEVICE, name: rows, "skipped": list(skipped)}
    write_json(output_dir / f"{name}.json", content)
    write_atomically(output_dir / f"{name}.csv", to_csv([flat_row(row) for row in rows]))


def name_below(bad: InputError, folder: Path) -> dict[str, str]:
    """The parts of an error, its file named below a folder: results are passed on, and folders can name people."""
    return {**bad.as_dict(), "path": Path(bad.path).relative_to(folder).as_posix()}


def flat_row(finding: dict[str, Any]) -> dict[str, Any]:
    """One row of the table: what is one value per image."""
    top, left, bottom, right = finding["box"]
    decisions = {f"decision at {name}": point["decision"] for name, point in finding["decisions"].items()}
    return {
        "image": finding["image"],
        "probability": finding["probability"],
        "probability_raw": finding["probability_raw"],
        **decisions,
        "is_fallback": finding["is_fallback"],
        **{"top": top, "left": left, "bottom": bottom, "right": right},
        **{key: finding["lesion"].get(key) for key in ("area_px", "long_axis_px", "short_axis_px", "area_mm2")},
        **{key: finding["lesion"].get(key) for key in ("orientation_degrees", "solidity")},
        "warnings": "; ".join(finding["warnings"]),
        **{f"{network}_sha256": digest for network, digest in finding["models"].items()},
        "notice": finding["notice"],
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
            self.rows.append({**finding.as_dict(), "image": name.as_posix()})
            self.bar.update()

    def _finish(self, _: Engine) -> None:
        self.bar.close()
        skipped = [name_below(bad, self.dataset_dir) for bad in self.images.skipped]
        write_findings(self.rows, skipped, self.folder, self.name)
