# SPDX-License-Identifier: Apache-2.0
"""The overlay as a DICOM Secondary Capture (PS3.3 A.8): a picture that every viewer of an archive shows."""

from __future__ import annotations

import os

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bundle.errors import InputError
from bundle.finding import NOT_A_DEVICE, Finding
from bundle.outputs.dicom import building, instance_arguments, load_highdicom, source_of


def make_capture(finding: Finding, header: Dataset, name: str | os.PathLike[str], picture: np.ndarray) -> Dataset:
    """Return a Secondary Capture of a picture, in the study of the finding's source and with reference to it.

    Args:
        finding: of the source.
        header: of the source, without pixels.
        name: of the source, for messages.
        picture: (H, W, 3) uint8 of the source's size, such as `draw_overlay` returns.

    Raises:
        InputError: the source lacks UIDs, or is of another size than the picture.
    """
    sc = load_highdicom("highdicom.sc")
    source = source_of(header, name)
    if picture.shape[:2] != (source.Rows, source.Columns):
        reason = f"the picture has {picture.shape[0]}×{picture.shape[1]} pixels, its source "
        raise InputError(name, f"{reason}{source.Rows}×{source.Columns}", "predict from this file")
    with building("SC", name):
        identity = {
            **{"patient_id": source.PatientID, "patient_name": source.PatientName},
            **{"patient_birth_date": source.PatientBirthDate, "patient_sex": source.PatientSex},
            **{"accession_number": source.AccessionNumber, "study_id": source.StudyID},
            **{"study_date": source.StudyDate or None, "study_time": source.StudyTime or None},
            "referring_physician_name": source.ReferringPhysicianName,
        }
        dataset: Dataset = sc.SCImage(
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            study_instance_uid=source.StudyInstanceUID,
            patient_orientation=("L", "F"),
            pixel_spacing=finding.spacing_mm,
            **identity,
            **instance_arguments("SC", source, finding.models, finding.frame),
        )
        dataset.PatientOrientation = None  # highdicom demands what nobody knows; the standard allows it to be empty
        dataset.Laterality = source.Laterality
        what = "Outline of the lesion found" if finding.box else f"Nothing outlined: {finding.reason}"
        dataset.DerivationDescription = f"{what}. {NOT_A_DEVICE}"
        dataset.SourceImageSequence = [_reference(source, finding.frame)]
    return dataset


def _reference(source: Dataset, frame: int | None) -> Dataset:
    item, purpose = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item
