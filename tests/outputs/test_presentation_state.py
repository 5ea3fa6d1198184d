# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.presentation_state: drawn from what is read back, and shown by DCMTK."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from bundle.finding import NOT_A_DEVICE
from bundle.outputs.dicom import write_dicom
from bundle.outputs.dicom_sr import trace_outline
from bundle.outputs.findings import title_of
from bundle.outputs.presentation_state import make_presentation
from bundle.readers import read_image
from bundle.readers.dicom import read_header
from tests.outputs.test_dicom_objects import SHAPE, _finding
from tests.readers.fabricate import save, ultrasound

pytest.importorskip("highdicom", reason="highdicom, of requirements.txt, is not installed")

GREY, COLOUR = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.2"


def _pixels(seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, SHAPE, dtype, endpoint=True)


def _source(tmp_path: Path, *arguments: Any, frames: int = 0, **elements: Any) -> Path:
    pixels = [_pixels(seed) for seed in range(frames)] if frames else _pixels()
    return save(ultrasound(pixels, *arguments, **elements), tmp_path / "source.dcm")


def _stored(source: Path, **changes: Any) -> Dataset:
    path = source.with_suffix(".pr.dcm")
    write_dicom(make_presentation(replace(_finding(), **changes), read_header(source), source), path)
    return dcmread(path)


def _draw(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside a closed polygon of (column, row), (0, 0) being the corner of the first pixel."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return Polygon(points).contains_points(np.c_[xx.ravel(), yy.ravel()] + 0.5).reshape(shape)


@pytest.mark.parametrize("where", ["inside", "over the lower right corner", "everywhere"])
def test_the_outline_that_is_drawn_from_it_is_the_mask(where: str, tmp_path: Path) -> None:
    mask = _finding().mask
    if where != "inside":
        yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
        mask = np.hypot(yy - 80, xx - 110) < (25 if "corner" in where else 1000)
    (annotation,) = _stored(_source(tmp_path), mask=mask).GraphicAnnotationSequence
    (graphic,) = annotation.GraphicObjectSequence
    points = np.array(graphic.GraphicData).reshape(-1, 2)
    assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
    np.testing.assert_array_equal(points[0], points[-1])
    assert (points >= 0).all()
    assert (points <= SHAPE[::-1]).all()
    drawn = _draw(points, SHAPE)
    assert 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()) >= 0.99


def test_label_and_notice_stand_inside_the_image(tmp_path: Path) -> None:
    for mask in (_finding().mask, np.ones(SHAPE, bool), np.roll(_finding().mask, 15, axis=0)):
        (annotation,) = _stored(_source(tmp_path), mask=mask).GraphicAnnotationSequence
        label, notice = annotation.TextObjectSequence
        assert label.UnformattedTextValue == "Lesion, P(malignant) 0.81"
        assert notice.UnformattedTextValue == "Research software, not a medical device."
        limits = {"PIXEL": (SHAPE[1], SHAPE[0]), "DISPLAY": (1, 1)}
        for text in (label, notice):
            corner = np.array(text.BoundingBoxBottomRightHandCorner)
            assert (np.array(text.BoundingBoxTopLeftHandCorner) < corner).all()
            assert (corner <= limits[text.BoundingBoxAnnotationUnits]).all()


def test_without_a_lesion_it_says_what_was_found_and_draws_nothing(tmp_path: Path) -> None:
    finding = replace(_finding(), mask=np.zeros(SHAPE, bool))
    (annotation,) = _stored(_source(tmp_path), mask=finding.mask).GraphicAnnotationSequence
    assert "GraphicObjectSequence" not in annotation
    assert [text.UnformattedTextValue for text in annotation.TextObjectSequence] == [title_of(finding), NOT_A_DEVICE]


@pytest.mark.parametrize(
    ("photometric", "kind"),
    [
        *(("MONOCHROME2", GREY), ("MONOCHROME1", GREY)),
        *(("RGB", COLOUR), ("YBR_FULL", COLOUR), ("PALETTE COLOR", COLOUR)),
    ],
)
@pytest.mark.parametrize("frames", [0, 3])
def test_state_and_frame_fit_the_picture(photometric: str, kind: str, frames: int, tmp_path: Path) -> None:
    source = _source(tmp_path, photometric, frames=frames)
    state = _stored(source, frame=1 if frames else None)
    (annotation,), header = state.GraphicAnnotationSequence, dcmread(source)
    (reference,) = annotation.ReferencedImageSequence
    assert state.SOPClassUID == kind
    assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == header.SOPClassUID
    assert reference.get("ReferencedFrameNumber") == (2 if frames else None)
    assert ("ICCProfile" in state) == (kind == COLOUR)


def test_oblong_pixels_are_shown_oblong(tmp_path: Path) -> None:
    (area,) = _stored(_source(tmp_path), spacing_mm=(0.1, 0.2)).DisplayedAreaSelectionSequence
    assert area.PresentationPixelSpacing == [0.1, 0.2]
    assert "PresentationPixelAspectRatio" not in area
    for ratio, shown in ((["4", "3"], [4, 3]), (None, [1, 1])):
        elements = {"PixelAspectRatio": ratio} if ratio else {}
        (area,) = _stored(_source(tmp_path, **elements), spacing_mm=None).DisplayedAreaSelectionSequence
        assert area.PresentationPixelAspectRatio == shown


def test_an_outline_of_very_many_corners_fits_into_its_element(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((900, 900)) > 0.3
    noise[300:600, 300:600] = True
    assert len(trace_outline(noise)) <= 8001
    scan = save(ultrasound(np.zeros(noise.shape, np.uint8)), tmp_path / "source.dcm")
    graphic = _stored(scan, mask=noise).GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert len(graphic.GraphicData) == 2 * graphic.NumberOfGraphicPoints


def _shown(source: Path, state: Path, *words: str) -> np.ndarray:
    """What DCMTK shows of a picture under a state; it draws no graphics."""
    program = shutil.which("dcmp2pgm")
    if program is None:
        pytest.skip("dcmp2pgm, of Debian's dcmtk, is not installed")
    path = source.with_suffix(".pgm")
    subprocess.run([program, *words, "--pstate", str(state), str(source), str(path)], check=True, capture_output=True)
    return np.asarray(Image.open(path).convert("L")).astype(float)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": 100, "WindowWidth": 60},
        {"WindowCenter": [100, 30], "WindowWidth": [60, 20]},
        {"RescaleSlope": 2, "RescaleIntercept": -10, "WindowCenter": 200, "WindowWidth": 300},
    ],
)
def test_the_picture_is_shown_as_without_the_state(photometric: str, elements: dict[str, Any], tmp_path: Path) -> None:
    source = _source(tmp_path, photometric, frames=3, **elements)
    _stored(source, frame=1)
    shown = _shown(source, source.with_suffix(".pr.dcm"), "--frame", "2")
    np.testing.assert_allclose(shown, read_image(source, 1).pixels, atol=1.5)


@pytest.mark.parametrize("keyword", ["StudyID", "AccessionNumber", "StudyTime", "PatientSex"])
def test_what_a_header_may_leave_out_may_be_missing(keyword: str, tmp_path: Path) -> None:
    header = read_header(_source(tmp_path))
    header.pop(keyword, None)
    assert make_presentation(_finding(), header, "source.dcm")[keyword].value in ("", None)
