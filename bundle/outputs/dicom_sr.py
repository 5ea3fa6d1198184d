# SPDX-License-Identifier: Apache-2.0
"""The finding as a DICOM Structured Report (TID 1500): outline, measurements, probability, decisions, and by whom.

Where nothing is outlined the report says that, and why: it has no region, no measurement and no decision then.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import contourpy
import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle import __version__
from bundle.finding import DOUBTFUL, FOUND, NONE_FOUND, NOT_A_DEVICE, UNUSABLE, Finding
from bundle.outputs.dicom import (
    CODING_SCHEME,
    MANUFACTURER,
    MODEL_NAME,
    SCHEME,
    algorithm_parameters,
    building,
    check_frame,
    instance_arguments,
    load_highdicom,
    name_class_of,
    source_of,
    stand_in,
)
from bundle.outputs.findings import title_of

ELLIPSE = Code("ELLIPSE", SCHEME, "Axis of the ellipse of equal second moments")
"""How the axes are measured: a reader's calipers measure otherwise."""

STATE = Code("LESION STATE", SCHEME, "State of the search for a lesion")
STATES = {
    FOUND: Code("FOUND", SCHEME, "Lesion outlined"),
    DOUBTFUL: Code("DOUBTFUL", SCHEME, "Lesion outlined, doubtful"),
    NONE_FOUND: Code("NONE FOUND", SCHEME, "No lesion found"),
    UNUSABLE: Code("UNUSABLE", SCHEME, "Image unusable"),
}
"""Of `bundle.finding.LESION_STATES`; no standard code tells the four apart."""
PRESENT = Code("PRESENCE", SCHEME, "Probability that there is a lesion")

PIXELS = Code("{pixels}", "UCUM", "pixels")
SQUARE_PIXELS = Code("{pixels}2", "UCUM", "square pixels")
MEASURES = (
    ("area", codes.SCT.Area, None),
    ("long_axis", codes.SCT.LongAxis, ELLIPSE),
    ("short_axis", codes.SCT.ShortAxis, ELLIPSE),
    ("perimeter", codes.SCT.Perimeter, None),
)
"""Key of `measure_lesion`, the concept, and the method where the concept leaves it open."""

IDENTIFIER = "Cornerstone3DTools@^0.1.0:PlanarFreehandROI:Lesion 1"
"""Of the lesion, for people; its beginning tells Cornerstone's adapters with which tool they can show the outline."""

PERCENT_STEP = 0.1
"""Of the probability: a tenth of a per cent is more than any calibration knows."""

_TOLERANCE = 0.25
"""By how much the outline may be simplified, in pixels; by more where it has too many points."""

_MOST_POINTS = 8000
"""Of an outline: an element of this kind holds 65,534 bytes, eight for each point."""


def make_report(finding: Finding, header: Dataset, name: str | os.PathLike[str]) -> Dataset:
    """Return a Comprehensive SR with one measurement group: the lesion of the source image, or of one of its frames.

    Lengths are in mm where the spacing is known, else in pixels; the probability of cancer is in percent.

    Args:
        finding: of the source.
        header: of the source, without pixels.
        name: of the source, for messages.

    Raises:
        InputError: the source lacks UIDs, has no such frame, or is of another size than the mask.
    """
    sr, schemes = load_highdicom("highdicom.sr"), load_highdicom("highdicom.coding_schemes")
    source = source_of(header, name)
    check_frame(finding, source, name)
    image = stand_in(source)
    with building("SR", name):
        content = sr.MeasurementReport(
            observation_context=observer(sr, finding.models),
            procedure_reported=codes.SCT.UltrasonographyOfBreast,
            imaging_measurements=[_lesion(sr, finding, image) if finding.box else _nothing(sr, finding, image)],
            title=codes.DCM.ImagingMeasurementReport,
        )
        separate(content)
        dataset: Dataset = sr.ComprehensiveSR(
            evidence=[image],
            content=content,
            is_complete=True,
            is_final=False,
            is_verified=False,
            coding_schemes=[schemes.CodingSchemeIdentificationItem(SCHEME, name=CODING_SCHEME, version=__version__)],
            **instance_arguments("SR", source, finding.models, finding.frame),
        )
        name_class_of(source, dataset)
    return dataset


def separate(items: Iterable[Dataset]) -> None:
    """Say of each container that its items stand apart: as continuous text, DCMTK's page leaves out their names."""
    for item in items:
        if item.ValueType == "CONTAINER":
            item.ContinuityOfContent = "SEPARATE"
        separate(item.get("ContentSequence", ()))


def observer(sr: Any, models: Mapping[str, str | None]) -> Any:
    """The software as the observer: a device whose UID follows from version and weights."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[MODEL_NAME, __version__, *(str(value) for value in models.values())]),
        name=MODEL_NAME,
        manufacturer_name=MANUFACTURER,
        model_name=f"{MODEL_NAME} {__version__}",
    )
    context = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def _nothing(sr: Any, finding: Finding, image: Dataset) -> Any:
    """A group without a region (TID 1501): the image was looked at, and what came of it."""
    presence = [] if finding.lesion_probability is None else [_presence(sr, finding.lesion_probability)]
    frames = None if finding.frame is None else [finding.frame + 1]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier="Search for a lesion"),
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(image, frames)],
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Breast)],
        algorithm_id=_algorithm(sr, finding),
        measurements=presence or None,
        qualitative_evaluations=[_state(sr, finding)],
    )
    _add_comments(sr, group, finding)
    return group


def _state(sr: Any, finding: Finding) -> Any:
    return sr.QualitativeEvaluation(name=STATE, value=STATES[finding.lesion_state])


def _presence(sr: Any, probability: float) -> Any:
    percent = round_to(100 * probability, PERCENT_STEP)
    return sr.Measurement(name=PRESENT, value=percent, unit=codes.UCUM.Percent)


def _algorithm(sr: Any, finding: Finding) -> Any:
    told = [f"{point}: malignant from {value['threshold']:.4f}" for point, value in finding.decisions.items()]
    return sr.AlgorithmIdentification(
        name=MODEL_NAME,
        version=__version__,
        manufacturer=MANUFACTURER,
        family=codes.DCM.ArtificialIntelligence,
        parameters=[*algorithm_parameters(finding.models), *told],
    )


def _lesion(sr: Any, finding: Finding, image: Dataset) -> Any:
    """The lesion with its outline, what was measured of it and what was decided, as TID 1410."""
    outline, frames = trace_outline(finding.mask), None if finding.frame is None else [finding.frame + 1]
    source = sr.SourceImageForRegion.from_source_image(image, frames)
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=IDENTIFIER),
        referenced_region=sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE, graphic_data=outline, source_image=source
        ),
        finding_type=codes.SCT.Lesion,
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Breast)],
        algorithm_id=_algorithm(sr, finding),
        measurements=_measurements(sr, finding),
        qualitative_evaluations=[
            _state(sr, finding),
            *_decisions(sr, finding),
        ],
    )
    _outline_in_first_number(sr, group, outline, source)
    _add_comments(sr, group, finding)
    return group


def _add_comments(sr: Any, group: Any, finding: Finding) -> None:
    """Add the warnings as comments: of several algorithm parameters dcmqi's tid1500reader keeps the first alone."""
    # Cornerstone's adapters make the first the label of the outline.
    comments = [f"{title_of(finding)}. {NOT_A_DEVICE}", *(f"Warning: {warning}" for warning in finding.warnings)]
    comments += [] if finding.site is None else [f"Calibrated for {finding.site}"]
    group[0].ContentSequence += [
        sr.TextContentItem(codes.DCM.Comment, comment, sr.RelationshipTypeValues.CONTAINS) for comment in comments
    ]


def _decisions(sr: Any, finding: Finding) -> list[Any]:
    return [
        sr.QualitativeEvaluation(
            # Code values hold 16 characters.
            name=sr.CodedConcept(f"DECISION {number}", SCHEME, f"Decision at {point}"[:64]),
            value=codes.SCT.Malignant if value["decision"] == "malignant" else codes.SCT.Benign,
        )
        for number, (point, value) in enumerate(finding.decisions.items(), 1)
    ]


def _measurements(sr: Any, finding: Finding) -> list[Any]:
    """Of a finding with an outline."""
    lesion, probability = finding.lesion or {}, finding.probability or 0.0
    known = finding.spacing_mm is not None
    length, area = (codes.UCUM.Millimeter, codes.UCUM.SquareMillimeter) if known else (PIXELS, SQUARE_PIXELS)
    ending = "mm" if known else "px"
    row, column = finding.spacing_mm or (1.0, 1.0)
    measurements = [
        sr.Measurement(
            name=concept,
            value=round_to(lesion[f"{key}_{ending}2" if is_area and known else f"{key}_{ending}"], step),
            unit=area if is_area else length,
            method=method,
        )
        for key, concept, method in MEASURES
        for is_area in [key == "area"]
        for step in [row * column if is_area else min(row, column)]
    ]
    if finding.lesion_probability is not None:
        measurements.append(_presence(sr, finding.lesion_probability))
    percent = round_to(100 * probability, PERCENT_STEP)
    return [*measurements, sr.Measurement(name=codes.DCM.ProbabilityOfCancer, value=percent, unit=codes.UCUM.Percent)]


def _outline_in_first_number(sr: Any, group: Any, outline: np.ndarray, source: Any) -> None:
    """Say that the area follows from the outline: viewers built on Cornerstone's adapters look for it there alone.

    The template has the outline beside the numbers and may be extended; highdicom's constructor does not extend it.
    """
    area = next(item for item in group[0].ContentSequence if item.ValueType == "NUM")
    area.ContentSequence = [
        sr.CoordinatesForMeasurement(
            graphic_type=sr.GraphicTypeValues.POLYLINE, graphic_data=outline, source_image=source
        )
    ]


def round_to(value: float, step: float) -> float:
    """Round to the decimal place that is no coarser than a step: of a size, what one pixel changes it by."""
    return round(value, max(0, math.ceil(-math.log10(step) - 1e-6)))


def trace_outline(mask: np.ndarray) -> np.ndarray:
    """Return the outer border of a mask as a closed polygon, (n, 2) float64 of (column, row), first point repeated.

    Coordinates are those of an SCOORD (PS3.3 C.18.6): the upper left pixel reaches from 0 to 1 and its centre is at
    0.5. The border runs halfway between the centres of pixels inside and outside.

    Args:
        mask: (H, W) bool with a pixel set.
    """
    # The frame of one pixel closes the border of a lesion that the image cuts; its offset and the centre's add to -0.5.
    framed = np.pad(mask, 1).astype(np.float32)
    borders: list[Any] = list(contourpy.contour_generator(z=framed).lines(0.5))
    outer = max(borders, key=lambda points: float(np.ptp(points, axis=0).prod()))
    corners, tolerance = outer[:-1].astype(np.float32)[:, None], _TOLERANCE
    while len(simple := cv2.approxPolyDP(corners, tolerance, closed=True)) >= _MOST_POINTS:
        tolerance *= 2
    kept = simple[:, 0].astype(np.float64)
    height, width = mask.shape
    kept = np.clip(kept - 0.5, 0, (width, height))
    return np.concatenate([kept, kept[:1]])
