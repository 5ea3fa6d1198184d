# SPDX-License-Identifier: Apache-2.0
"""What the DICOM objects of the bundle have in common: whose they are, who made them, how they reach the disk."""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from bundle import __version__
from bundle.errors import InputError, UserError
from bundle.files import write_atomically
from bundle.finding import Finding
from bundle.readers.dicom import LIBRARY_LOCK, MANUFACTURER, MAX_FRAMES, whole

MODEL_NAME = "Breast ultrasound segmentation and classification"
SCHEME = "99BUSBUNDLE"
"""Designator of our own codes, for what no standard code says; the standard reserves names in 99 for that."""

CODING_SCHEME = "Breast ultrasound bundle"
SERIES = {
    "SEG": (9101, "Lesion outline"),
    "SR": (9102, "Lesion measurements"),
    "SC": (9103, "Lesion overlay"),
    "PR": (9104, "Lesion drawn over the image"),
}
"""Series number and description per kind; numbers that a scanner does not reach."""

DISPLAY_CIELAB = (71.0, 21.0, 74.0)
"""The orange of the overlays, as DICOM names colours."""

_IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
"""Type 1 and 2 of the modules Patient and General Study: without them an archive cannot file an object."""

_SINGLE_FRAME, _MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
_LARGEST_NUMBER = 2**31 - 1
"""That an Instance Number, a string of integers, can hold."""

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_FORMS = {
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "PatientSex": r"[MFO]",
    "Laterality": r"[LR]",
}
_LENGTHS = {"PatientID": 64, "StudyID": 16, "AccessionNumber": 16}


def source_of(header: Dataset, name: str | os.PathLike[str]) -> Dataset:
    """Return what an object made from a DICOM image may take over of its header, and nothing else.

    That is the identity of patient and study, the image's own UIDs, its side of the body and its size. Values that
    break the standard (a date that is none) become empty, which it allows; text is kept in Unicode.

    Args:
        header: of the source image, without pixels.
        name: of the source, for messages.

    Raises:
        InputError: a UID is missing or malformed, so that no object could say what it belongs to.
    """
    source = Dataset()
    with quiet_dicom():
        for keyword in _UIDS:
            uid = UID(str(header.get(keyword, "")))
            if not uid.is_valid:
                raise InputError(
                    name, f"its header has no valid {keyword}", "write other outputs, or mend the file where it is from"
                )
            setattr(source, keyword, uid)
        for keyword in (*_IDENTITY, "Laterality"):
            setattr(source, keyword, _clean(keyword, header.get(keyword)))
        source.Modality = str(header.get("Modality") or "US")
        source.Rows, source.Columns = int(header.Rows), int(header.Columns)
        if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
            source.NumberOfFrames = frames
        number = whole(header.get("InstanceNumber"), 0)
        source.InstanceNumber = number if number > 0 else None
        source.SpecificCharacterSet = "ISO_IR 192"
        source.file_meta = FileMetaDataset()
        source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return source


def check_frame(finding: Finding, source: Dataset, name: str | os.PathLike[str]) -> None:
    """Refuse a finding that is not of this source.

    Raises:
        InputError: the source has no such frame, or is of another size than the mask.
    """
    frames = source.get("NumberOfFrames", 1)
    if not 0 <= (finding.frame or 0) < frames:
        raise InputError(name, f"has no frame {finding.frame} among its {frames}", "predict from this file")
    if finding.mask.shape != (source.Rows, source.Columns):
        reason = f"the mask has {finding.mask.shape[0]}×{finding.mask.shape[1]} pixels, its source "
        raise InputError(name, f"{reason}{source.Rows}×{source.Columns}", "predict from this file")


def stand_in(source: Dataset, as_still: bool = False) -> Dataset:
    """Return a copy of a source under the class that fits its number of frames, which is the one highdicom goes by.

    Scanners write stills as multi-frame images of one frame, some write cines under the single-frame class, and
    highdicom has no tables for the retired classes. What is made of the copy gets the source's own class back by
    `name_class_of`.

    Args:
        source: as `source_of` gives it.
        as_still: as if there were one frame.
    """
    copy = deepcopy(source)
    if as_still and "NumberOfFrames" in copy:
        del copy.NumberOfFrames
    copy.SOPClassUID = UID(_MULTI_FRAME if "NumberOfFrames" in copy else _SINGLE_FRAME)
    return copy


def name_class_of(source: Dataset, dataset: Dataset) -> None:
    """Let every reference of a dataset to its source name the class that the source has."""
    for item in _items(dataset):
        if item.get("ReferencedSOPInstanceUID") == source.SOPInstanceUID:
            item.ReferencedSOPClassUID = source.SOPClassUID


def _items(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _items(item)


def _clean(keyword: str, value: Any) -> str:
    text = re.sub(r"[\x00-\x1f\\]", " ", "" if value is None else str(value)).strip()
    if keyword in _FORMS and not re.fullmatch(_FORMS[keyword], text):
        return ""
    return text[: _LENGTHS.get(keyword, 324)]


def instance_arguments(
    kind: str, source: Dataset, models: Mapping[str, str | None], frame: int | None
) -> dict[str, Any]:
    """The arguments by which highdicom's constructors name a new object.

    A rerun makes new instances in the same series: the series is derived from that of the source, the models and the
    version, while equal instance UIDs would promise equal content.

    Args:
        kind: a key of `SERIES`.
        source: as `source_of` gives it.
        models: sha256 per network.
        frame: of the source, from 0; None for a file of one image.
    """
    number, description = SERIES[kind]
    digests = [str(digest) for digest in models.values()]
    return {
        "series_instance_uid": generate_uid(entropy_srcs=[source.SeriesInstanceUID, kind, __version__, *digests]),
        "series_number": number,
        "series_description": description,
        "sop_instance_uid": generate_uid(),
        "instance_number": _instance_number(source, frame),
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL_NAME,
        "software_versions": __version__,
        "device_serial_number": "none",
        "specific_character_set": "ISO_IR 192",
    }


def _instance_number(source: Dataset, frame: int | None) -> int:
    """Number an object within its series, which holds those of all images of the source's series.

    A still passes its own number on; the frames of a file of several have numbers beyond those of stills. Where the
    source has none, it follows from its UID, so that no two images of a series share one.
    """
    number = source.InstanceNumber
    if number is not None and number <= _LARGEST_NUMBER // MAX_FRAMES - 1:
        return int(number) if frame is None else int(number) * MAX_FRAMES + frame + 1
    digest = hashlib.sha256(source.SOPInstanceUID.encode()).digest()
    return 1 + int.from_bytes(digest[:8], "big") % (_LARGEST_NUMBER - MAX_FRAMES) + (frame or 0)


def algorithm_parameters(models: Mapping[str, str | None]) -> list[str]:
    """One line per network: which weights it is; and one for the site's calibration, where there is any."""
    kinds = {"site": "calibration"}
    return [f"{name} {kinds.get(name, 'weights')} sha256 {digest or 'unknown'}" for name, digest in models.items()]


def load_highdicom(name: str) -> Any:
    """Import a module of highdicom, which is wanted only by whoever writes DICOM.

    Raises:
        UserError: it is not installed, or does not work with what is.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"DICOM objects need highdicom ({error}); pip install -r requirements.txt, or write other outputs"
        ) from None


def write_dicom(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Write a DICOM object as a file of PS3.10, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    with quiet_dicom():
        dataset.save_as(buffer, enforce_file_format=True)
    write_atomically(path, buffer.getvalue())


@contextmanager
def building(kind: str, name: str | os.PathLike[str]) -> Iterator[None]:
    """Make an InputError of whatever highdicom raises on a header that it can not work with.

    The message does not quote the library's, which may quote the header.
    """
    try:
        with quiet_dicom():
            yield
    except UserError:
        raise
    except Exception as error:
        reason = f"no {kind} can be made of its header ({type(error).__name__} in highdicom)"
        raise InputError(name, reason, "write other outputs") from error


@contextmanager
def quiet_dicom() -> Iterator[None]:
    """Keep the libraries' complaints off the terminal while they work: these quote values of the header.

    One thread at a time, readers included.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    mode = pydicom.config.settings.reading_validation_mode
    with LIBRARY_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            pydicom.config.settings.reading_validation_mode = mode
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
