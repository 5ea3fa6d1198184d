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
    DISPLAY_CIELAB,
    MODEL_NAME,
    building,
    check_frame,
    instance_arguments,
    load_highdicom,
    name_class_of,
    source_of,
    stand_in,
)

UNKNOWN_SPACING_MM = (1.0, 1.0)
UNKNOWN_SPACING = "the spacing is unknown: in the SEG a pixel counts as 1 × 1 mm"


def make_segmentation(finding: Finding, header: Dataset, name: str | os.PathLike[str]) -> Dataset:
    """Return a binary SEG of one segment, with the rows and columns of the source.

    Ultrasound images have no frame of reference, so the mask refers to its source image pixel by pixel, not to space.
    Its plane is given in the picture's own axes, since most tools read no mask without one: columns to the right, rows
    down, the origin in the upper left pixel, as ITK reads the source itself, and the spacing of the source. Where that
    is unknown it says 1 × 1 mm for a pixel, and the segment's description that it does.

    Args:
        finding: of the source; its mask is the segment.
        header: of the source, without pixels.
        name: of the source, for messages.

    Raises:
        InputError: the source holds several frames, lacks UIDs, or is of another size than the mask.
    """
    highdicom, seg = load_highdicom("highdicom"), load_highdicom("highdicom.seg")
    source = source_of(header, name)
    if source.get("NumberOfFrames", 1) > 1 or finding.frame is not None:  # of a video the header may count one
        raise InputError(
            name,
            "a SEG of one frame among several needs a frame of reference, which ultrasound has not",
            "write sr, which names the frame and holds the outline",
        )
    check_frame(finding, source, name)
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
        segment.SegmentDescription = _describe(finding)
        dataset: Dataset = seg.Segmentation(
            source_images=[stand_in(source)],
            pixel_array=finding.mask,
            segmentation_type=seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[segment],
            content_label="LESION",
            content_description=NOT_A_DEVICE,
            # Of no thickness by nature; but without one highdicom, dcmqi and pydicom-seg read no spacing.
            pixel_measures=highdicom.PixelMeasuresSequence(
                pixel_spacing=finding.spacing_mm or UNKNOWN_SPACING_MM, slice_thickness=1.0, spacing_between_slices=1.0
            ),
            **instance_arguments("SEG", source, finding.models, finding.frame),
        )
        # highdicom's constructor takes no plane of a source without a frame of reference.
        shared, frame = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence[0]
        shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence("PATIENT", (1, 0, 0, 0, 1, 0))
        frame.PlanePositionSequence = highdicom.PlanePositionSequence("PATIENT", (0, 0, 0))
        name_class_of(source, dataset)
    dataset.PatientOrientation = None  # the standard wants the attribute, empty where nobody knows
    return dataset


def _describe(finding: Finding) -> str:
    """What a viewer shows beside the segment: that it is research, and the warnings."""
    warnings = dict.fromkeys((*finding.warnings, *(() if finding.spacing_mm else (UNKNOWN_SPACING,))))
    return " ".join((NOT_A_DEVICE, *(f"Warning: {warning}." for warning in warnings)))[:1024]
