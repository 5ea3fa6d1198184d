# SPDX-License-Identifier: Apache-2.0
"""The finding as a DICOM Softcopy Presentation State (PS3.3 A.33): what ordinary workstations draw over the picture."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from bundle.finding import NOT_A_DEVICE, Finding
from bundle.outputs.dicom import (
    DISPLAY_CIELAB,
    building,
    check_frame,
    instance_arguments,
    load_highdicom,
    name_class_of,
    source_of,
    stand_in,
)
from bundle.outputs.dicom_sr import trace_outline
from bundle.outputs.display_tables import copy_lookup_table, copy_profile
from bundle.outputs.findings import title_of
from bundle.readers.dicom_frame import MONOCHROME

LAYER = "LESION"
_NOTICE_BOX, _NOTHING_BOX = (0.01, 0.95, 0.99, 0.99), (0.01, 0.01, 0.99, 0.05)
"""(left, top, right, bottom) of the displayed area, for what holds for all of it: at its foot and at its head."""

_TEXT_HEIGHT = 16.0
"""Pixels of the image that a line of text is given; the size of its letters is the viewer's."""


def make_presentation(finding: Finding, header: Dataset, name: str | os.PathLike[str]) -> Dataset:
    """Return a Grayscale or, of a picture in colours, a Color Softcopy Presentation State of one image or frame.

    It shows the picture as it is stored, with its own window, tables and profile of colours, and draws the outline,
    what was found and the notice, in pixels of the image: the upper left corner of the upper left pixel is (0, 0), as
    PS3.3 C.10.5 counts. Where nothing is outlined it says so, and draws nothing.

    Args:
        finding: of the source.
        header: of the source, without pixels.
        name: of the source, for messages.

    Raises:
        InputError: the source lacks UIDs, has no such frame, is of another size than the mask, or has a look-up table
            that is malformed.
    """
    pr, content = load_highdicom("highdicom.pr"), load_highdicom("highdicom")
    source = source_of(header, name)
    check_frame(finding, source, name)
    # As a still, since highdicom looks for functional groups in the multi-frame class; the annotation names the frame.
    image = stand_in(source, as_still=True)
    is_grey = str(header.get("PhotometricInterpretation")) in MONOCHROME
    image.SamplesPerPixel = 1 if is_grey else 3
    with building("PR", name):
        annotation = pr.GraphicAnnotation(
            referenced_images=[image],
            graphic_layer=_layer(pr, content),
            graphic_objects=_outline(pr, finding),
            text_objects=_texts(pr, finding),
        )
        if finding.frame is not None:
            annotation.ReferencedImageSequence[0].ReferencedFrameNumber = finding.frame + 1
        make = pr.GrayscaleSoftcopyPresentationState if is_grey else pr.ColorSoftcopyPresentationState
        dataset: Dataset = make(
            referenced_images=[image],
            content_label=LAYER,
            content_description=NOT_A_DEVICE,
            graphic_layers=[_layer(pr, content)],
            graphic_annotations=[annotation],
            **(_grey_display(pr, content, header) if is_grey else {"icc_profile": copy_profile(header)}),
            **instance_arguments("PR", source, finding.models, finding.frame),
        )
        name_class_of(source, dataset)
        if is_grey:
            _add_tables(dataset, header, name)
    dataset.Laterality = source.Laterality  # which highdicom does not copy
    _show_true_shape(dataset.DisplayedAreaSelectionSequence[0], finding, header)
    return dataset


def _layer(pr: Any, content: Any) -> Any:
    layer = pr.GraphicLayer(LAYER, 1, NOT_A_DEVICE, content.color.CIELabColor(*DISPLAY_CIELAB))
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = 65535  # white, where the monitor has no colours
    return layer


def _outline(pr: Any, finding: Finding) -> list[Any]:
    if not finding.mask.any():
        return []
    points = trace_outline(finding.mask)
    return [pr.GraphicObject(pr.GraphicTypeValues.POLYLINE, points, pr.AnnotationUnitsValues.PIXEL)]


def _texts(pr: Any, finding: Finding) -> list[Any]:
    """What was found, below the lesion or, where there is no room, above it; and what holds for all of it."""
    left_aligned, display = pr.TextJustificationValues.LEFT, pr.AnnotationUnitsValues.DISPLAY
    notice = pr.TextObject(NOT_A_DEVICE, display, _NOTICE_BOX, None, left_aligned)
    if not finding.mask.any():
        return [pr.TextObject(title_of(finding), display, _NOTHING_BOX, None, left_aligned), notice]
    height, width = finding.mask.shape
    rows, columns = np.nonzero(finding.mask)
    top, bottom, left = (int(value) for value in (rows.min(), rows.max() + 1, columns.min()))
    below = bottom + _TEXT_HEIGHT <= height
    box_top = float(bottom) if below else max(0.0, top - _TEXT_HEIGHT)
    box = (float(left), box_top, float(width), min(box_top + _TEXT_HEIGHT, float(height)))
    anchor = (float(left), float(bottom if below else top))
    label = pr.TextObject(
        f"Lesion, {title_of(finding)}", pr.AnnotationUnitsValues.PIXEL, box, anchor, left_aligned, False
    )
    return [label, notice]


def _grey_display(pr: Any, content: Any, header: Dataset) -> dict[str, Any]:
    """How grey values become brightness: the image's own rescaling, window and polarity, which a state replaces.

    Tables, of which highdicom takes some alone, come by `_add_tables`; the reader goes by them before a window too.
    """
    shapes = content.PresentationLUTShapeValues
    inverse = str(header.PhotometricInterpretation) == "MONOCHROME1"
    shape = shapes.INVERSE if inverse else shapes.IDENTITY
    display = {"presentation_lut_transformation": content.PresentationLUTTransformation(presentation_lut_shape=shape)}
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if slope and intercept is not None and not header.get("ModalityLUTSequence"):
        display["modality_lut_transformation"] = content.ModalityLUTTransformation(
            rescale_slope=slope, rescale_intercept=intercept, rescale_type="US"
        )
    centre, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    if centre is not None and width is not None and width >= 1 and not header.get("VOILUTSequence"):
        function = str(header.get("VOILUTFunction") or "LINEAR")
        window = pr.SoftcopyVOILUTTransformation(window_center=centre, window_width=width, voi_lut_function=function)
        display["voi_lut_transformations"] = [window]
    return display


def _add_tables(dataset: Dataset, header: Dataset, name: str | os.PathLike[str]) -> None:
    if header.get("ModalityLUTSequence"):
        dataset.ModalityLUTSequence = [copy_lookup_table(header, "ModalityLUTSequence", name)]
    if header.get("VOILUTSequence"):
        view = Dataset()
        view.VOILUTSequence = [copy_lookup_table(header, "VOILUTSequence", name)]
        dataset.SoftcopyVOILUTSequence = [view]


def _show_true_shape(area: Dataset, finding: Finding, header: Dataset) -> None:
    """Say how high and wide a pixel is, where it is known; highdicom always says that it is square."""
    if finding.spacing_mm is not None:
        del area.PresentationPixelAspectRatio
        area.PresentationPixelSpacing = [round(step, 6) for step in finding.spacing_mm]
        return
    ratio = header.get("PixelAspectRatio")
    if ratio is not None and len(ratio) == 2 and all(str(part).isdigit() and int(part) > 0 for part in ratio):
        area.PresentationPixelAspectRatio = [int(part) for part in ratio]


def _number(header: Dataset, keyword: str) -> float | None:
    """A number of the header, the first of several; None where it is none."""
    value = header.get(keyword)
    try:
        number = float(value[0] if isinstance(value, MultiValue) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None
