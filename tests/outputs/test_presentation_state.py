# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.presentation_state: drawn from what is read back, and shown by DCMTK."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from PIL import Image, ImageCms
from pydicom import dcmread
from pydicom.dataset import Dataset

from bundle.errors import InputError
from bundle.finding import NOT_A_DEVICE
from bundle.outputs.dicom import write_dicom
from bundle.outputs.dicom_sr import trace_outline
from bundle.outputs.findings import title_of
from bundle.outputs.presentation_state import make_presentation
from bundle.readers import read_image
from bundle.readers.dicom import read_header
from tests.outputs.test_dicom_objects import SHAPE, _errors, _finding
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


def _table(entries: np.ndarray, first: int, bits: int, **more: str) -> list[Dataset]:
    """A look-up table as it lies in a header, each entry in 16 bits."""
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    table.LUTExplanation = "Kanarienvogel"
    for keyword, value in more.items():
        setattr(table, keyword, value)
    return [table]


_BENT = (np.linspace(0, 1, 256) ** 0.5 * 4095).round()
TABLES: dict[str, dict[str, Any]] = {
    "of 12 bits": {"VOILUTSequence": _table(_BENT, 0, 12)},
    "of 8 bits": {"VOILUTSequence": _table(_BENT // 16, 0, 8)},
    "of a part of the values": {"VOILUTSequence": _table(_BENT[::2] * 16, 60, 16)},
    "before a window": {"VOILUTSequence": _table(_BENT, 0, 12), "WindowCenter": 100, "WindowWidth": 60},
    "after a rescaling below zero": {
        **{"VOILUTSequence": _table(_BENT, -100, 12), "RescaleSlope": 1, "RescaleIntercept": -100}
    },
    "after a table of the modality": {
        "ModalityLUTSequence": _table(np.arange(256) * 257, 0, 16, ModalityLUTType="US"),
        "VOILUTSequence": _table(np.linspace(0, 1, 65536) ** 0.5 * 255, 0, 8),
    },
}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("elements", TABLES.values(), ids=list(TABLES))
def test_the_picture_is_shown_with_its_own_tables(photometric: str, elements: dict[str, Any], tmp_path: Path) -> None:
    source = _source(tmp_path, photometric, **elements)
    state = _stored(source)
    assert b"Kanarienvogel" not in source.with_suffix(".pr.dcm").read_bytes()
    assert "WindowCenter" not in state.SoftcopyVOILUTSequence[0]
    shown = _shown(source, source.with_suffix(".pr.dcm"))
    np.testing.assert_allclose(shown, read_image(source).pixels, atol=1.5)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools checks the objects")
@pytest.mark.parametrize("elements", TABLES.values(), ids=list(TABLES))
def test_a_state_with_tables_conforms(elements: dict[str, Any], tmp_path: Path) -> None:
    assert _errors(_stored(_source(tmp_path, **elements)), tmp_path) == []


def test_a_table_that_is_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    table = _table(_BENT, 0, 12)
    table[0].LUTData = table[0].LUTData[:100]
    source = _source(tmp_path)
    header = read_header(source)
    header.VOILUTSequence = table
    with pytest.raises(InputError, match="VOILUTSequence is malformed"):
        make_presentation(_finding(), header, source)


def _profile(kind: bytes, space: str = "sRGB") -> bytes:
    """An ICC profile of some device class, with its digest."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes())
    data[12:16], data[84:100] = kind, b"digest of before"
    return bytes(data)


@pytest.mark.parametrize("kind", [b"scnr", b"mntr"], ids=bytes.decode)
def test_the_colours_are_those_of_the_sources_profile(kind: bytes, tmp_path: Path) -> None:
    profile = _profile(kind)
    state = _stored(_source(tmp_path, "RGB", ICCProfile=profile))
    assert state.ICCProfile[12:16] == b"scnr"
    if kind == b"scnr":
        assert state.ICCProfile == profile
    shown, meant = (ImageCms.ImageCmsProfile(io.BytesIO(data)).profile for data in (state.ICCProfile, profile))
    for colorant in ("red_colorant", "green_colorant", "blue_colorant", "media_white_point"):
        assert getattr(shown, colorant) == getattr(meant, colorant)


@pytest.mark.parametrize("profile", [b"no profile" * 20, b"", _profile(b"mntr", "LAB")], ids=["noise", "none", "Lab"])
def test_a_profile_that_is_none_of_rgb_gives_way_to_srgb(profile: bytes, tmp_path: Path) -> None:
    state = _stored(_source(tmp_path, "RGB", ICCProfile=profile))
    used = ImageCms.ImageCmsProfile(io.BytesIO(state.ICCProfile)).profile
    assert (used.device_class, used.xcolor_space.strip()) == ("spac", "RGB")
    assert "sRGB" in used.profile_description


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools checks the objects")
def test_a_state_with_a_profile_of_the_source_conforms(tmp_path: Path) -> None:
    assert _errors(_stored(_source(tmp_path, "RGB", ICCProfile=_profile(b"mntr"))), tmp_path) == []


@pytest.mark.parametrize("keyword", ["StudyID", "AccessionNumber", "StudyTime", "PatientSex"])
def test_what_a_header_may_leave_out_may_be_missing(keyword: str, tmp_path: Path) -> None:
    header = read_header(_source(tmp_path))
    header.pop(keyword, None)
    assert make_presentation(_finding(), header, "source.dcm")[keyword].value in ("", None)
