# SPDX-License-Identifier: Apache-2.0
"""The lesion's mask as a DICOM Segmentation (PS3.3 A.51), aligned with its source image pixel by pixel."""

from __future__ import annotations

import os

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bundle import __version__
from bundle.errors import InputError
from bundle.finding import NOT_A_DEVICE, Finding
from bundle.outputs.dicom import (
    MODEL_NAME,
    building,
    instance_arguments,
    load_highdicom,
    refuse_retired,
    source_of,
)

DISPLAY_CIELAB = (71.0, 21.0, 74.0)
"""The orange of the overlays, as DICOM names colours."""


def make_segmentation(finding: Finding, header: Dataset, name: str | os.PathLike[str]) -> Dataset:
    """Return a binary SEG of one segment, with the rows and columns of the source.

    Ultrasound images have no frame of reference, so the mask refers to its source image pixel by pixel, not to space,
    and has the source's spacing. It states none of its own: highdicom reads a spacing only beside a slice thickness,
    which a single image has not.

    Args:
        finding: of the source; its mask is the segment.
        header: of the source, without pixels.
        name: of the source, for messages.

    Raises:
        InputError: the source holds several frames, lacks UIDs, or is of another size than the mask.
    """
    highdicom, seg = load_highdicom("highdicom"), load_highdicom("highdicom.seg")
    source = source_of(header, name)
    refuse_retired(source, name)
    if source.get("NumberOfFrames", 1) > 1:
        raise InputError(
            name,
            "a SEG of one frame among several needs a frame of reference, which ultrasound has not",
            "write sr, which names the frame and holds the outline",
        )
    if finding.mask.shape != (source.Rows, source.Columns):
        reason = f"the mask has {finding.mask.shape[0]}×{finding.mask.shape[1]} pixels, its source "
        raise InputError(name, f"{reason}{source.Rows}×{source.Columns}", "predict from this file")
    with building("SEG", name):
        segment = seg.SegmentDescription(
            segment_number=1,
            segment_label="Lesion",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name=MODEL_NAME,
                family=codes.DCM.ArtificialIntelligence,
                version=__version__,
                parameters={"weights": f"sha256 {finding.models.get('segmenter') or 'unknown'}"},
            ),
            tracking_id="Lesion 1",
            tracking_uid=highdicom.UID(),
            anatomic_regions=[codes.SCT.Breast],
            display_color=highdicom.color.CIELabColor(*DISPLAY_CIELAB),
        )
        dataset: Dataset = seg.Segmentation(
            source_images=[source],
            pixel_array=finding.mask,
            segmentation_type=seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[segment],
            content_label="LESION",
            content_description=NOT_A_DEVICE,
            **instance_arguments("SEG", source, finding.models, finding.frame),
        )
    dataset.PatientOrientation = None  # the standard wants the attribute, empty where nobody knows
    return dataset
