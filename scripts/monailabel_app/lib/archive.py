# SPDX-License-Identifier: Apache-2.0
"""Studies in a DICOMweb archive: which of its segmentations are labels, and one line for what can not be used.

MONAI Label's own datastore takes any segmentation that refers to an image for its label, so what a model wrote there,
this bundle's included, would empty the queue and be trained on.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import HTTPException
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import binary_to_image, dicom_to_nifti
from monailabel.datastore.utils.dicom import dicom_web_download_series
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom.dataset import Dataset

from bundle.errors import UserError
from bundle.readers import read_mask
from lib.infer import write_label

logger = logging.getLogger(__name__)

ANNOTATED = ("MANUAL", "SEMIAUTOMATIC")
"""Kinds of segmentation algorithm with a person in them."""

SUBMITTED = "MONAILABEL"
"""Algorithm that MONAI Label names in what annotators submit, as AUTOMATIC, to an archive."""

FRESH = 10.0
"""Seconds for which an answer of the archive is taken again: long enough for one request, short for a new image."""

_FINAL = DefaultLabelTag.FINAL
_SERIES = "SeriesInstanceUID"
_Result = TypeVar("_Result")


class ArchiveError(UserError, HTTPException):
    """Something in the archive that can not be used: one line with status 422 wherever it comes up."""

    def __init__(self, line: str) -> None:
        HTTPException.__init__(self, 422, line)
        self.line = line

    def __str__(self) -> str:
        return self.line


class UltrasoundArchive(DICOMWebDatastore):
    """A DICOMweb archive in which a series is one image, and a label is what an annotator submitted.

    Submitted labels stay in this server's cache: MONAI Label's converter makes no DICOM segmentation of ultrasound,
    which has no place in the patient. Segmentations with a person's part in them that others stored in the archive are
    labels as well; those that a model made are not.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._asked: dict[str, tuple[float, Any]] = {}
        super().__init__(*arguments, **options)

    def list_images(self) -> list[str]:
        """The series of the archive that fit the filter, as they are now."""

        def ask() -> list[str]:
            found = self._client.search_for_series(search_filters=self._search_filter)
            return [str(Dataset.from_json(series)[_SERIES].value) for series in found]

        return self._fresh("images", ask)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images with a label that was submitted here, or that an annotator stored in the archive."""
        submitted = set(LocalDatastore.get_labeled_images(self)) | set(self._annotations())
        return [image for image in self.list_images() if image in submitted]

    def get_image_uri(self, image_id: str) -> str:
        """The image as a NIfTI file in the cache.

        Raises:
            ArchiveError: it can not be fetched or converted, or the series holds several images.
        """
        folder, file = self._cached(image_id), self._cached(f"{image_id}.nii.gz")
        if file.exists() and image_id in self._datastore.objects:
            return str(file)
        instances = self._fetch(image_id, folder)
        if len(instances) > 1:
            raise ArchiveError(
                f"{image_id}: its series holds {len(instances)} images, and MONAI Label takes a series for one; "
                "annotate them as a folder of files"
            )
        try:
            converted = dicom_to_nifti(str(instances[0]))
            self.add_image(image_id, converted, self._dicom_info(image_id))
        except Exception as error:  # ITK, GDCM and the client raise errors of their own
            raise ArchiveError(
                f"{image_id}: can not be converted ({_first_line(error)}); see docs/inputs.md"
            ) from error
        os.unlink(converted)
        return str(file)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The label of an image as a NIfTI file in the cache.

        Raises:
            ArchiveError: it can not be fetched or read.
        """
        image = image_id or label_id
        if label_tag == _FINAL and not self._is_cached(image) and image in self._annotations():
            self._fetch_label(image, self._annotations()[image])
        return LocalDatastore.get_label_uri(self, image, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Write into the information of an image, which is fetched for that if it was not yet."""
        self.get_image_uri(image_id)
        super().update_image_info(image_id, info)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Keep a label in this server's cache."""
        image = self.get_image_uri(image_id)
        drawn = binary_to_image(image, label_filename) if label_filename.endswith(".bin") else None
        if label_tag == _FINAL:
            logger.warning("%s: its label is kept in this server's cache, not in the archive", image_id)
        saved = LocalDatastore.save_label(self, image_id, drawn or label_filename, label_tag, label_info)
        if drawn:
            os.unlink(drawn)
        return saved

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Images and labels to train on; one that can not be read is left out with a line in the log."""
        annotations = self._annotations()
        for image in LocalDatastore.get_labeled_images(self):
            source = self._datastore.label(image, _FINAL).info.get(_SERIES)
            if source is not None and source != annotations.get(image):
                # Fetched before, and gone from the archive since, or a model's that another app took for a label.
                LocalDatastore.remove_label(self, image, _FINAL)
        for image, series in annotations.items():
            try:
                self.get_image_uri(image)
                if not self._is_cached(image):
                    self._fetch_label(image, series)
            except ArchiveError as error:
                logger.warning("left out: %s", error)
        return LocalDatastore.datalist(self, full_path)

    def _annotations(self) -> dict[str, str]:
        """Series of an annotator's segmentation, by the series of the image that it is of."""

        def ask() -> dict[str, str]:
            images, found = set(self.list_images()), {}
            for entry in self._client.search_for_series(search_filters={"Modality": "SEG"}):
                series = Dataset.from_json(entry)
                study, uid = str(series.StudyInstanceUID), str(series.SeriesInstanceUID)
                try:
                    header = Dataset.from_json(self._client.retrieve_series_metadata(study, uid)[0])
                    image = str(header.ReferencedSeriesSequence[0].SeriesInstanceUID)
                    if image in images and is_annotators(header):
                        found[image] = uid
                except Exception as error:  # one object that is odd in any way hides no other
                    logger.warning("segmentation %s is passed over: %s", uid, _first_line(error))
            return found

        return self._fresh("annotations", ask)

    def _fresh(self, what: str, ask: Callable[[], _Result]) -> _Result:
        when, answer = self._asked.get(what, (-FRESH, None))
        if time.monotonic() - when > FRESH:
            try:
                answer = ask()
            except Exception as error:
                raise ArchiveError(f"the archive does not list its {what} ({_first_line(error)}); check it") from error
            self._asked[what] = time.monotonic(), answer
        return answer

    def _fetch(self, series: str, folder: Path) -> list[Path]:
        """Download a series, unless it is there; all of it or nothing."""
        if not folder.is_dir() or not any(folder.iterdir()):
            try:
                dicom_web_download_series(None, series, str(folder), self._client, self._fetch_by_frame)
            except Exception as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise ArchiveError(f"{series}: can not be fetched from the archive ({_first_line(error)})") from error
        return sorted(folder.iterdir())

    def _fetch_label(self, image: str, series: str) -> None:
        source = self._fetch(image, self._cached(image))[0]
        folder = Path(self._datastore.label_path(_FINAL)) / series
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = write_label(read_mask(self._fetch(series, folder)[-1], source), self.get_image_uri(image), ".nii.gz")
        except UserError as error:
            raise ArchiveError(f"{image}: its label, series {series}, can not be read ({error})") from error
        LocalDatastore.save_label(self, image, file, _FINAL, {_SERIES: series})
        os.unlink(file)

    def _cached(self, name: str) -> Path:
        return Path(self._datastore.image_path()) / name

    def _is_cached(self, image: str) -> bool:
        return self._datastore.label(image, _FINAL) is not None


def is_annotators(header: Dataset) -> bool:
    """Whether a person had a part in a segmentation, by what its segments say of their algorithm."""
    segments = header.get("SegmentSequence") or ()
    return any(
        segment.get("SegmentAlgorithmType") in ANNOTATED or segment.get("SegmentAlgorithmName") == SUBMITTED
        for segment in segments
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
