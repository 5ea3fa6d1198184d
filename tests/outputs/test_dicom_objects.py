# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.dicom_seg, dicom_sr and secondary_capture, each read back by other software."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bundle.errors import InputError
from bundle.finding import Finding
from bundle.outputs.case import write_case
from bundle.outputs.dicom import source_of, write_dicom
from bundle.outputs.dicom_seg import make_segmentation
from bundle.outputs.dicom_sr import ELLIPSE, STATE, make_report, round_to, trace_outline
from bundle.outputs.png import draw_overlay
from bundle.outputs.presentation_state import make_presentation
from bundle.outputs.secondary_capture import make_capture
from bundle.readers import count_frames, read_image, read_mask
from bundle.readers.dicom import read_header
from bundle.transforms.shape import measure_lesion
from tests.readers.fabricate import US_IMAGE, US_MULTI_FRAME, region, regions, save, ultrasound

highdicom = pytest.importorskip("highdicom", reason="highdicom, of requirements.txt, is not installed")

SHAPE = (90, 120)
KINDS = ("seg", "sr", "pr", "sc")
REAL = ("GREYSCALE_IMAGE.dcm", "gdcm-US-ALOKA-16_big.dcm", "US-RGB-8-epicard.dcm", "YBR_FULL-RLE.dcm")
REAL_CINES = ("DIRW0007.dcm", "IM00001.implicit_little_endian.dcm")


def _finding(shape: tuple[int, int] = SHAPE, spacing_mm: Any = (0.1, 0.12), frame: int | None = None) -> Finding:
    """Of an L-shaped lesion, so that turned or mirrored masks differ."""
    mask = np.zeros(shape, bool)
    mask[20:50, 30:80], mask[50:70, 30:45] = True, True
    decisions = {
        "probability 0.5": {"threshold": 0.5, "decision": "malignant"},
        "sensitivity 0.95": {"threshold": 0.9, "decision": "benign"},
    }
    return Finding(
        **{"image": "a", "size": shape, "box": (20, 30, 70, 80), "other_boxes": (), "lesion_state": "found"},
        **{"lesion": measure_lesion(mask, spacing_mm), "probability_raw": 0.7, "probability": 0.8123456789},
        **{"outline_confidence": 1.0},
        **{"decisions": decisions, "warnings": ("a warning",), "frame": frame, "spacing_mm": spacing_mm},
        **{"models": {"segmenter": "a" * 64, "classifier": "b" * 64}},
        **{"mask": mask, "probability_map": mask.astype(np.uint8) * 255},
    )


def _empty(state: str, **changes: Any) -> Finding:
    """Nothing outlined."""
    found = _finding()
    decisions = {name: {**point, "decision": None} for name, point in found.decisions.items()}
    return replace(
        found,
        **{"box": None, "lesion": None, "lesion_state": state, "reason": "the reason", "decisions": decisions},
        **{"probability": None, "probability_raw": None, "outline_confidence": None, "mask": found.mask & False},
        **{"warnings": ("the reason",), **changes},
    )


@pytest.fixture
def single(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)
    scan = ultrasound(pixels, SequenceOfUltrasoundRegions=regions(region(5, 6, 85, 110)), Manufacturer="ACME")
    return save(scan, tmp_path / "single.dcm")


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    frames = list(np.random.default_rng(0).integers(0, 255, (5, *SHAPE), np.uint8))
    return save(ultrasound(frames), tmp_path / "cine.dcm")


def _stored(dataset: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "stored.dcm"
    write_dicom(dataset, path)
    return path


def _walk(dataset: Dataset) -> Iterator[Any]:
    for element in dataset:
        yield element
        for item in element.value if element.VR == "SQ" else ():
            yield from _walk(item)


def _make(kind: str, finding: Finding, source: Path) -> Dataset:
    header = read_header(source)
    if kind == "sc":
        return make_capture(finding, header, source, draw_overlay(np.zeros(finding.mask.shape), finding.mask))
    makers = {"seg": make_segmentation, "sr": make_report, "pr": make_presentation}
    return makers[kind](finding, header, source)


def test_a_segmentation_reads_back_pixel_equal_and_names_its_source(single: Path, tmp_path: Path) -> None:
    finding = _finding()
    path = _stored(make_segmentation(finding, read_header(single), single), tmp_path)
    header = dcmread(single)
    seg = highdicom.seg.segread(path)
    pixels = seg.get_pixels_by_source_instance([header.SOPInstanceUID], combine_segments=True)
    np.testing.assert_array_equal(pixels[0] > 0, finding.mask)
    np.testing.assert_array_equal(dcmread(path).pixel_array > 0, finding.mask)
    np.testing.assert_array_equal(read_mask(path, single), finding.mask)
    assert seg.StudyInstanceUID == header.StudyInstanceUID
    assert seg.SeriesInstanceUID != header.SeriesInstanceUID
    description = seg.get_segment_description(1)
    assert description.segmented_property_type == codes.SCT.Lesion
    assert "a" * 64 in description.algorithm_identification.parameters["weights"]


def test_a_segmentation_of_a_frame_among_several_is_refused_in_one_line(cine: Path) -> None:
    with pytest.raises(InputError, match="needs a frame of reference") as error:
        make_segmentation(_finding(frame=2), read_header(cine), cine)
    assert "\n" not in str(error.value)


def test_a_segmentation_lies_in_the_axes_of_its_picture(single: Path) -> None:
    for spacing_mm, written in (((0.1, 0.12), [0.1, 0.12]), (None, [1, 1])):
        dataset = make_segmentation(_finding(spacing_mm=spacing_mm), read_header(single), single)
        shared, frame = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].PixelSpacing == written
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == [0, 0, 0]
        assert "FrameOfReferenceUID" not in dataset
        description = dataset.SegmentSequence[0].SegmentDescription
        assert ("in the SEG a pixel counts as 1 × 1 mm" in description) == (spacing_mm is None)
        assert "not a medical device" in description
        assert "Warning: a warning." in description


@pytest.mark.parametrize("kind", KINDS)
def test_a_multi_frame_file_of_one_frame_is_a_still(kind: str, tmp_path: Path) -> None:
    source = save(ultrasound(np.zeros(SHAPE, np.uint8), SOPClassUID=US_MULTI_FRAME, NumberOfFrames=1), tmp_path / "a")
    dataset = _make(kind, _finding(), source)
    assert _referenced_classes(dataset) == {US_MULTI_FRAME}
    assert _errors(dataset, tmp_path) == []
    if kind == "seg":
        np.testing.assert_array_equal(read_mask(_stored(dataset, tmp_path), source), _finding().mask)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "seg"])
def test_a_single_frame_class_of_two_frames_is_a_cine(kind: str, tmp_path: Path) -> None:
    source = save(ultrasound([np.zeros(SHAPE, np.uint8)] * 2, SOPClassUID=US_IMAGE), tmp_path / "a.dcm")
    dataset = _make(kind, _finding(frame=1), source)
    assert _referenced_classes(dataset) == {US_IMAGE}
    assert {item.value for item in _walk(dataset) if item.keyword == "ReferencedFrameNumber"} == {2}


def _referenced_classes(dataset: Dataset) -> set[str]:
    """Of images: a code's context and the like refer to no object."""
    return {str(item.value) for item in _walk(dataset) if item.keyword == "ReferencedSOPClassUID"}


@pytest.mark.parametrize("known", [True, False])
def test_objects_of_one_series_have_different_instance_numbers(known: bool, tmp_path: Path) -> None:
    numbers = []
    for number in (1, 2, 3):
        frames = [np.zeros(SHAPE, np.uint8)] * (3 if number == 3 else 1)
        scan = ultrasound(frames if number == 3 else frames[0], SeriesInstanceUID="1.2.3")
        if known:
            scan.InstanceNumber = number
        source = save(scan, tmp_path / f"{number}.dcm")
        for frame in (0, 1, 2) if number == 3 else (None,):
            dataset = make_report(_finding(frame=frame), read_header(source), source)
            assert dataset.SeriesInstanceUID == numbers[0][0] if numbers else True
            numbers.append((dataset.SeriesInstanceUID, int(dataset.InstanceNumber)))
    assert len(set(numbers)) == 5
    if known:
        assert [number for _, number in numbers[:2]] == [1, 2]


def test_a_mask_of_another_size_is_refused(single: Path) -> None:
    for kind in KINDS:
        with pytest.raises(InputError, match="90×120"):
            _make(kind, _finding((100, 120)), single)


def _measured(path: Path) -> tuple[Any, dict[str, tuple[float, str]]]:
    report = highdicom.sr.srread(path)
    (group,) = report.content.get_planar_roi_measurement_groups()
    values = {item.name.meaning: (item.value, item.unit.value) for item in group.get_measurements()}
    return group, values


def test_a_report_reads_back_with_equal_measurements(single: Path, tmp_path: Path) -> None:
    finding = _finding()
    group, values = _measured(_stored(make_report(finding, read_header(single), single), tmp_path))
    lesion = finding.lesion
    assert values == {
        "Area": (round(lesion["area_mm2"], 2), "mm2"),
        "Long axis": (round(lesion["long_axis_mm"], 1), "mm"),
        "Short axis": (round(lesion["short_axis_mm"], 1), "mm"),
        "Perimeter": (round(lesion["perimeter_mm"], 1), "mm"),
        "Probability of cancer": (81.2, "%"),
    }
    assert group.finding_type == codes.SCT.Lesion
    assert [site.value for site in group.finding_sites] == [codes.SCT.Breast]
    decisions = {item.name.meaning: item.value for item in group.get_qualitative_evaluations()}
    assert decisions["Decision at probability 0.5"] == codes.SCT.Malignant
    assert decisions["Decision at sensitivity 0.95"] == codes.SCT.Benign
    assert group.get_measurements(name=codes.SCT.LongAxis)[0].method == ELLIPSE


@pytest.mark.parametrize(("state", "presence"), [("none found", 0.03), ("unusable", None)])
def test_a_report_says_that_nothing_was_outlined_and_why(
    single: Path, tmp_path: Path, state: str, presence: float | None
) -> None:
    finding = _empty(state, lesion_probability=presence)
    report = highdicom.sr.srread(_stored(make_report(finding, read_header(single), single), tmp_path))
    assert not report.content.get_planar_roi_measurement_groups()
    (group,) = report.content.get_image_measurement_groups()
    (told,) = [item for item in group.get_qualitative_evaluations() if item.name == STATE]
    assert told.value.meaning == {"none found": "No lesion found", "unusable": "Image unusable"}[state]
    assert [item.value for item in group.get_measurements()] == ([] if presence is None else [3.0])
    texts = [str(item.value) for item in _walk(report)]
    assert any("the reason" in text for text in texts)
    assert not {"Malignant", "Benign"} & set(texts)


@pytest.mark.parametrize("state", ["none found", "unusable"])
def test_nothing_outlined_gives_no_segmentation_and_says_so(single: Path, tmp_path: Path, state: str) -> None:
    image = read_image(single)
    kinds = ("png", "nifti", "seg", "sr", "pr", "sc")
    written = write_case(_empty(state), image, single, Path("a.png"), tmp_path / "out", kinds)
    refused = {entry["output"]: entry["reason"] for entry in written.refused}
    assert "no lesion is outlined" in refused["seg"]
    # An empty mask says "looked at, none": an unusable image has none at all.
    assert set(refused) == {"seg"} | ({"png", "nifti"} if state == "unusable" else set())
    assert {Path(file).parts[0] for file in written.files} == {"masks", "nifti", "seg", "sr", "pr", "sc"} - {
        {"png": "masks"}.get(name, name) for name in refused
    }
    capture = dcmread(tmp_path / "out" / "sc" / "a.sc.dcm")
    assert "Nothing outlined: the reason" in capture.DerivationDescription
    (drawn,) = dcmread(tmp_path / "out" / "pr" / "a.pr.dcm").GraphicAnnotationSequence
    assert "GraphicObjectSequence" not in drawn
    words = {"none found": "no lesion found", "unusable": "unusable image"}
    assert drawn.TextObjectSequence[0].UnformattedTextValue == words[state]
    if state == "none found":
        assert not np.asarray(PIL.Image.open(tmp_path / "out" / "masks" / "a.png")).any()
        assert not read_mask(tmp_path / "out" / "nifti" / "a.nii.gz").any()


def test_the_state_of_the_search_is_in_every_report(single: Path, tmp_path: Path) -> None:
    group, _ = _measured(_stored(make_report(_finding(), read_header(single), single), tmp_path))
    states = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert states["State of the search for a lesion"] == "Lesion outlined"


def test_a_report_says_which_software_and_weights_found_it(single: Path) -> None:
    texts = [str(item.value) for item in _walk(make_report(_finding(), read_header(single), single))]
    assert any("a" * 64 in text for text in texts)
    assert any("b" * 64 in text for text in texts)
    assert any("malignant from 0.9000" in text for text in texts)


def _page_of(dataset: Dataset, tmp_path: Path) -> str:
    """The page that DCMTK makes of a report, as text."""
    program = shutil.which("dsr2html")
    if program is None:
        pytest.skip("dsr2html, of Debian's dcmtk, is not installed")
    path = tmp_path / "page.html"
    subprocess.run([program, str(_stored(dataset, tmp_path)), str(path)], check=True, capture_output=True)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", path.read_text())).split())


def test_a_report_says_whose_calibration_was_in_use(single: Path) -> None:
    models = {**_finding().models, "site": "5" * 64}
    report = make_report(replace(_finding(), site="St. Anna", models=models), read_header(single), single)
    texts = [str(item.value) for item in _walk(report)]
    assert "Calibrated for St. Anna" in texts
    assert f"site calibration sha256 {'5' * 64}" in texts
    plain = make_report(_finding(), read_header(single), single)
    assert not any("Calibrated" in str(item.value) for item in _walk(plain))
    assert plain.SeriesInstanceUID != report.SeriesInstanceUID  # not to be taken for one another


def test_the_page_of_a_report_names_its_numbers_and_warns(single: Path, tmp_path: Path) -> None:
    finding = _finding()
    page = _page_of(make_report(finding, read_header(single), single), tmp_path)
    lesion = finding.lesion
    assert f"Area: {round(lesion['area_mm2'], 2)} mm2" in page
    assert f"Long axis: {round(lesion['long_axis_mm'], 1)} mm" in page
    assert "Probability of cancer: 81.2 %" in page
    assert "Decision at sensitivity 0.95: Benign" in page
    assert "P(malignant) 0.81. Research software, not a medical device." in page
    assert "Warning: a warning" in page


def test_a_viewer_of_cornerstone_finds_the_outline_in_the_area(single: Path) -> None:
    dataset = make_report(_finding(), read_header(single), single)
    items = [item.value for item in _walk(dataset) if item.keyword == "ContentSequence"]
    (group,) = [items for items in items if any(item.ValueType == "NUM" for item in items)]
    (identifier,) = [item.TextValue for item in group if _name(item) == "Tracking Identifier"]
    assert identifier.startswith("Cornerstone3DTools@^0.1.0:PlanarFreehandROI")
    first = next(item for item in group if item.ValueType == "NUM")
    (beside,) = [item for item in group if item.ValueType == "SCOORD"]
    (inside,) = first.ContentSequence
    assert _name(first) == "Area"
    assert inside.GraphicData == beside.GraphicData
    assert inside.ContentSequence[0].ReferencedSOPSequence == beside.ContentSequence[0].ReferencedSOPSequence


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


@pytest.mark.parametrize(
    ("value", "step", "rounded"), [(7.4176, 0.1, 7.4), (7.4176, 0.05, 7.42), (7.4176, 1.0, 7), (21.6014, 0.012, 21.6)]
)
def test_a_size_is_rounded_to_a_pixel(value: float, step: float, rounded: float) -> None:
    assert round_to(value, step) == rounded


def test_sizes_are_in_pixels_where_the_spacing_is_unknown(single: Path, tmp_path: Path) -> None:
    finding = _finding(spacing_mm=None)
    _, values = _measured(_stored(make_report(finding, read_header(single), single), tmp_path))
    assert values["Long axis"] == (round(finding.lesion["long_axis_px"]), "{pixels}")
    assert values["Area"] == (finding.lesion["area_px"], "{pixels}2")


def test_a_report_on_a_cine_names_the_frame_counted_from_one(cine: Path, tmp_path: Path) -> None:
    path = _stored(make_report(_finding(frame=2), read_header(cine), cine), tmp_path)
    group, _ = _measured(path)
    numbers = [item.value for item in _walk(highdicom.sr.srread(path)) if item.keyword == "ReferencedFrameNumber"]
    assert set(numbers) == {3}
    assert group.roi is not None
    with pytest.raises(InputError, match="no frame 5"):
        make_report(_finding(frame=5), read_header(cine), cine)


def test_a_capture_reads_back_pixel_equal_and_references_its_frame(cine: Path, tmp_path: Path) -> None:
    finding = _finding(frame=4)
    picture = draw_overlay(np.full(SHAPE, 90.0), finding.mask)
    path = _stored(make_capture(finding, read_header(cine), cine, picture), tmp_path)
    capture = dcmread(path)
    np.testing.assert_array_equal(capture.pixel_array, picture)
    assert capture.SourceImageSequence[0].ReferencedFrameNumber == 5
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == dcmread(cine).SOPInstanceUID


def test_each_writing_is_a_new_instance_of_one_series(single: Path) -> None:
    first, second = (make_report(_finding(), read_header(single), single) for _ in range(2))
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    other = replace(_finding(), models={"segmenter": "c" * 64, "classifier": "b" * 64})
    assert make_report(other, read_header(single), single).SeriesInstanceUID != first.SeriesInstanceUID


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID"])
def test_a_source_without_a_uid_is_refused_without_quoting_its_header(tmp_path: Path, keyword: str) -> None:
    path = save(ultrasound(np.zeros(SHAPE, np.uint8)), tmp_path / "a.dcm")
    header = read_header(path)
    delattr(header, keyword)
    with pytest.raises(InputError, match=keyword) as error:
        source_of(header, "a.dcm")
    assert "Doe" not in str(error.value)


@pytest.mark.parametrize("retired", ["1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3"])
def test_objects_name_the_retired_class_of_their_source(retired: str, tmp_path: Path) -> None:
    path = save(ultrasound(np.zeros(SHAPE, np.uint8), SOPClassUID=retired), tmp_path / "a.dcm")
    for kind in KINDS:
        assert _referenced_classes(_make(kind, _finding(), path)) == {retired}, kind


def test_values_that_break_the_standard_become_empty(single: Path) -> None:
    header = read_header(single)
    with config.disable_value_validation():
        header.PatientBirthDate, header.PatientSex, header.StudyTime = "about 1950", "FEMALE", "noon"
    source = source_of(header, single)
    assert (source.PatientBirthDate, source.PatientSex, source.StudyTime) == ("", "", "")
    assert source.PatientID == "P-0001"


def test_a_name_in_any_alphabet_survives(single: Path, tmp_path: Path) -> None:
    header = read_header(single)
    header.SpecificCharacterSet, header.PatientName = "ISO_IR 192", "Ωμέγα^Ünal"
    source = save(header, tmp_path / "named.dcm")
    for kind in KINDS:
        dataset = _make(kind, _finding(), source)
        assert str(dcmread(_stored(dataset, tmp_path)).PatientName) == "Ωμέγα^Ünal"


@pytest.mark.parametrize("where", ["inside", "at the border", "one pixel", "with a hole"])
def test_the_outline_encloses_the_mask(where: str) -> None:
    mask = np.zeros((60, 80), bool)
    if where == "one pixel":
        mask[7, 9] = True
    else:
        yy, xx = np.mgrid[:60, :80]
        centre = (30, 40) if where != "at the border" else (5, 75)
        mask |= (yy - centre[0]) ** 2 / 15**2 + (xx - centre[1]) ** 2 / 25**2 <= 1
    outline = trace_outline(mask & ~(np.hypot(yy - 30, xx - 40) < 4) if where == "with a hole" else mask)
    np.testing.assert_array_equal(outline[0], outline[-1])
    assert (outline >= 0).all()
    assert (outline <= (80, 60)).all()
    drawn = np.zeros((600, 800), np.uint8)  # a tenth of a pixel
    cv2.fillPoly(drawn, [np.rint(outline * 10).astype(np.int32)], 1)
    large = np.kron(mask, np.ones((10, 10), np.uint8))
    overlap = 2 * (drawn & large).sum() / (drawn.sum() + large.sum())
    assert overlap > (0.97 if mask.sum() > 1 else 0.6)


def _errors(dataset: Dataset, tmp_path: Path) -> list[str]:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy, of Debian's dicom3tools, is not installed")
    path = _stored(dataset, tmp_path)
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing_mm", [(0.1, 0.12), None])
def test_objects_of_a_single_image_conform(kind: str, spacing_mm: Any, single: Path, tmp_path: Path) -> None:
    assert _errors(_make(kind, _finding(spacing_mm=spacing_mm), single), tmp_path) == []


@pytest.mark.parametrize("kind", ["sr", "pr", "sc"])
def test_objects_of_a_cine_conform(kind: str, cine: Path, tmp_path: Path) -> None:
    assert _errors(_make(kind, _finding(frame=2), cine), tmp_path) == []


@pytest.fixture
def real_file() -> Callable[[str], Path]:
    if "DICOM_DIR" not in os.environ:
        pytest.skip("DICOM_DIR names no folder of real ultrasound DICOM")

    def find(name: str) -> Path:
        path = Path(os.environ["DICOM_DIR"]) / name
        return path if path.exists() else pytest.skip(f"{name} is not in DICOM_DIR")

    return find


@pytest.mark.parametrize("name", [*REAL, *REAL_CINES])
@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_real_files_conform(kind: str, name: str, real_file: Callable[[str], Path], tmp_path: Path) -> None:
    source = real_file(name)
    frames, header = count_frames(source), read_header(source)
    finding = _finding((header.Rows, header.Columns), frame=1 if frames > 1 else None)
    if kind == "seg" and frames > 1:
        with pytest.raises(InputError, match="frame of reference"):
            _make(kind, finding, source)
        return
    dataset = _make(kind, finding, source)
    assert _errors(dataset, tmp_path) == []
    if kind == "seg":
        np.testing.assert_array_equal(dcmread(_stored(dataset, tmp_path)).pixel_array > 0, finding.mask)


def test_what_is_written_is_whole_or_absent(single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="No space left"):
        write_dicom(make_report(_finding(), read_header(single), single), tmp_path / "out" / "a.dcm")
    assert list((tmp_path / "out").iterdir()) == []
