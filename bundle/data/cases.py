# SPDX-License-Identifier: Apache-2.0
"""Cases: what a dataset holds, as `cases.json` keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from bundle.errors import InputError
from bundle.files import read_json, write_json

CASES = "cases.json"
"""The file of a prepared folder that lists them."""

DIAGNOSES = ("benign", "malignant")
LABELS = (*DIAGNOSES, "normal")
UNCLASSED = "unclassified"
"""The label of a lesion whose class a dataset does not tell: it can be segmented, but says nothing to a classifier."""
LESION_LABELS = (*DIAGNOSES, UNCLASSED)
FLAGS = ("doppler", "marks", "combined", "mask-resized", "size-differs", "blank")
"""What can be said against an image that is usable all the same; such images can be left out by name."""
CLIP_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""Of clips, which a folder of images may hold; the layout of a labelled dataset knows stills alone."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz")


DIGITS = 16
"""Of a checksum: enough that no two images of any collection share them by chance."""


@dataclass(frozen=True)
class Listed:
    """One image and what belongs to it, as a dataset lists it; no file was opened yet.

    Args:
        image: POSIX path relative to the dataset folder.
        masks: the same for its lesion masks, which are merged by OR; may be empty.
        label: one of `LABELS`, or `UNCLASSED`.
        patient: the patient's id, None where the dataset has none.
        flags: of `FLAGS`, those that hold for it.
        details: what else the dataset tells of it, as text.
    """

    image: str
    masks: tuple[str, ...]
    label: str
    patient: str | None = None
    flags: tuple[str, ...] = field(default=(), kw_only=True)
    details: dict[str, str] = field(default_factory=dict, hash=False, kw_only=True)


@dataclass(frozen=True)
class Case(Listed):
    """A listed image whose files were read and found good.

    Args:
        size: (H, W) in pixels.
        sha256: of the decoded grey pixels and their shape, so that a re-saved file keeps it.
        mask_sha256: the same of the merged mask.
        group: cases of one group show the same patient or frame and stay in one part of a split; "" until grouped.
        dataset: the name of its dataset, where several are used together; its paths then begin with it.
    """

    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    mask_sha256: str = ""
    group: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class CaseList:
    """A dataset that was checked.

    Args:
        name: the dataset folder's name.
        source: the layout: "manifest", one of `bundle.data.layouts.LAYOUTS`, or "phantom".
        synthetic: True for a phantom, whose results say nothing about patients.
        listing_sha256: of the list of files, labels and patients before any was left out.
        cases: the good ones, sorted by image.
        skipped: the bad ones that were left out, each with path, reason and mend.
        datasets: of several datasets that are used together, each one's name and own `dataset_sha256`.
    """

    name: str
    source: str
    synthetic: bool
    listing_sha256: str
    cases: tuple[Case, ...]
    skipped: tuple[dict[str, str], ...] = ()
    datasets: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def dataset_sha256(self) -> str:
        """Checksum of the cases' pixels, masks, labels and patients; the same on every machine."""
        return checksum((c.image, c.sha256, c.mask_sha256, c.label, c.patient) for c in self.cases)


def checksum(rows: Iterable[Any]) -> str:
    """The sha256 of rows of plain values, whatever order they come in."""
    return hashlib.sha256("\n".join(sorted(json.dumps(row) for row in rows)).encode()).hexdigest()


def listing_checksum(listed: Iterable[Listed]) -> str:
    """The checksum of a list of files before they are read: tells cheaply whether a dataset gained or lost a file."""
    return checksum((item.image, item.masks, item.label, item.patient) for item in listed)


def relative_path(text: str) -> str:
    """The normalised POSIX form of a path inside a dataset folder.

    Raises:
        ValueError: the path is empty, absolute, or leads out of the folder by `..`.
    """
    path = PurePosixPath(text.strip().replace("\\", "/"))
    windows = PureWindowsPath(path)
    if not path.parts or path.is_absolute() or windows.drive or ".." in path.parts:
        raise ValueError(f"'{text}' is not a path inside the dataset folder")
    return path.as_posix()


def write_cases(path: Path, case_list: CaseList) -> None:
    """Write `cases.json`."""
    content = {**asdict(case_list), "dataset_sha256": case_list.dataset_sha256}
    write_json(path, content)


def read_cases(path: Path) -> CaseList:
    """Read what `write_cases` wrote.

    Raises:
        InputError: the file is missing, is no JSON, lacks a field, or its checksum is not that of its cases.
    """
    content = read_json(path, "make it with scripts/prepare_data.py")
    mend = "make it anew with scripts/prepare_data.py"
    try:
        cases = tuple(
            Case(**{**case, **{key: tuple(case.get(key, ())) for key in ("masks", "size", "flags")}})
            for case in content.pop("cases")
        )
        written = content.pop("dataset_sha256")
        case_list = CaseList(**{**content, "cases": cases, "skipped": tuple(content.pop("skipped"))})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(path, f"is no list of cases of this version ({error})", mend) from error
    if case_list.dataset_sha256 != written:
        raise InputError(path, "was changed: its dataset_sha256 is not that of its cases", mend)
    return case_list
