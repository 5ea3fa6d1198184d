# SPDX-License-Identifier: Apache-2.0
"""Everything that is written of one image, each output by choice."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bundle.errors import InputError
from bundle.files import write_atomically
from bundle.finding import UNUSABLE, Finding
from bundle.outputs.findings import title_of, write_pictures
from bundle.outputs.nifti import grid_of, write_nifti_mask
from bundle.outputs.png import draw_explanation, draw_overlay, encode_thumbnail
from bundle.outputs.records import HEAT, OUTLINE, Records, Written
from bundle.readers import DICOM, UltrasoundImage, kind_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

OF_A_CASE = ("png", "overlay", "nifti", "seg", "sr", "pr", "sc")
OF_ALL = ("json", "csv", "parquet", "html", "pdf")
THUMBNAIL_SIDE = 480
"""Pixels of the longer side of a report's pictures: enough for a contour, 200 of them still load at once."""

NO_MASK = "the image is unusable: an empty mask would say that it was looked at"
NO_SEGMENT = "no lesion is outlined, and a SEG has at least one segment: the sr says so"

_DICOM_OUTPUTS = ("seg", "sr", "pr", "sc")
_PICTURES = "pictures"


def parts_of(outputs: Collection[str]) -> frozenset[str]:
    """What has to be written of each image for the chosen outputs: reports need its pictures."""
    pictures = {_PICTURES} if {"html", "pdf"} & set(outputs) else set()
    return frozenset({output for output in outputs if output in OF_A_CASE} | pictures)


def check_installed(outputs: Collection[str]) -> None:
    """Refuse outputs whose package is missing, before any work is done.

    Raises:
        UserError: it names the package and the command that installs it.
    """
    if set(_DICOM_OUTPUTS) & set(outputs):
        from bundle.outputs.dicom import load_highdicom

        load_highdicom("highdicom")
    if "parquet" in outputs:
        from bundle.outputs.parquet import load_pyarrow

        load_pyarrow()
    if "pdf" in outputs:
        from bundle.outputs.findings_page import load_weasyprint

        load_weasyprint()


def warn_of(parts: Collection[str], finding: Finding, source: str | os.PathLike[str]) -> Finding:
    """Add to a finding the warnings that are about what is written of it."""
    if "seg" not in parts or finding.spacing_mm is not None or kind_of(source) != DICOM:
        return finding
    from bundle.outputs.dicom_seg import UNKNOWN_SPACING

    return replace(finding, warnings=(*finding.warnings, UNKNOWN_SPACING))


def write_case(
    finding: Finding,
    image: UltrasoundImage,
    source: str | os.PathLike[str],
    name: Path,
    folder: Path,
    parts: Collection[str],
) -> Written:
    """Write the parts of one finding, each atomically.

    Args:
        finding: with its maps.
        image: that it was found in.
        source: the image's file.
        name: of its PNG below each folder of pictures, see `output_name`.
        folder: gets ``masks/``, ``overlays/``, ``explanations/``, ``nifti/``, ``seg/``, ``sr/``, ``pr/``, ``sc/``,
            ``.cases/``.
        parts: as `parts_of` gives them.

    Raises:
        InputError: a file cannot be written.
    """
    stem = name.as_posix().removesuffix(".png")
    files = write_pictures(finding, name, folder, image.pixels, parts)
    refused = []
    if finding.lesion_state == UNUSABLE:
        refused = [{"output": part, "reason": NO_MASK} for part in ("png", "nifti") if part in parts]
    elif "nifti" in parts:
        files.append(folder / "nifti" / f"{stem}.nii.gz")
        write_nifti_mask(finding.mask, files[-1], grid=grid_of(source, finding.frame, finding.spacing_mm))
    if _PICTURES in parts:
        files += _write_thumbnails(finding, image, Records(folder), name)
    for output in (output for output in _DICOM_OUTPUTS if output in parts):
        try:
            dataset = _make_dicom(output, finding, image, source)
        except InputError as error:
            refused.append({"output": output, "reason": error.reason})
            continue
        from bundle.outputs.dicom import write_dicom

        files.append(folder / output / f"{stem}.{output}.dcm")
        write_dicom(dataset, files[-1])
    return Written(tuple(file.relative_to(folder).as_posix() for file in files), tuple(refused))


def _make_dicom(output: str, finding: Finding, image: UltrasoundImage, source: str | os.PathLike[str]) -> Dataset:
    """Make one DICOM object; pydicom and highdicom are imported by whoever wants one.

    Raises:
        InputError: the source does not allow it.
    """
    if output == "seg" and finding.box is None:
        raise InputError(source, NO_SEGMENT, "write sr")
    if kind_of(source) != DICOM:
        reason = "its source is no DICOM file: there is no study for it to belong to"
        raise InputError(source, reason, "write other outputs")
    from bundle.outputs.dicom_seg import make_segmentation
    from bundle.outputs.dicom_sr import make_report
    from bundle.outputs.presentation_state import make_presentation
    from bundle.outputs.secondary_capture import make_capture
    from bundle.readers.dicom import read_header

    header = read_header(source)
    makers = {"seg": make_segmentation, "sr": make_report, "pr": make_presentation}
    if output in makers:
        return makers[output](finding, header, source)
    return make_capture(finding, header, source, draw_overlay(image.pixels, finding.mask, title_of(finding)))


def _write_thumbnails(finding: Finding, image: UltrasoundImage, records: Records, name: Path) -> list[Path]:
    """Write the report's pictures: of the tissue region, since what stands beside it may name the patient."""
    top, left, bottom, right = image.box
    mask = finding.mask[top:bottom, left:right]
    pictures = {OUTLINE: draw_overlay(image.tissue, mask)}
    if finding.explanation is not None:
        heat = finding.explanation[top:bottom, left:right]
        pictures[HEAT] = draw_explanation(image.tissue, heat, mask)
    files = {records.path(name.as_posix(), ending): picture for ending, picture in pictures.items()}
    for file, picture in files.items():
        write_atomically(file, encode_thumbnail(picture, THUMBNAIL_SIDE))
    return list(files)
