# SPDX-License-Identifier: Apache-2.0
"""Claims about what the tools of the field make of our objects; `make tools` runs them and records the table.

Where a tool does not read an object, the test says what it does instead: it fails on the day when that changes.
"""

from __future__ import annotations

import base64
import contextlib
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from bundle.outputs.dicom import write_dicom
from bundle.outputs.dicom_sr import trace_outline
from bundle.outputs.nifti import grid_of, write_nifti_mask
from bundle.readers import read_image
from tests.outputs.conftest import free_port
from tests.outputs.test_dicom_objects import SHAPE, _errors, _finding, _make
from tests.readers.fabricate import region, regions, save, ultrasound

highdicom = pytest.importorskip("highdicom", reason="highdicom, of requirements.txt, is not installed")
pytestmark = pytest.mark.slow

SEG, SR, PR, SC, NIFTI = "SEG", "SR", "Presentation State", "Secondary Capture", "NIfTI mask"
KINDS = {"seg": SEG, "sr": SR, "pr": PR, "sc": SC}
ODD_BYTES = (90, 114)
"""A mask of this size packs into 1283 bytes; DICOM pads them to 1284."""


def _pixels(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def _write(
    kind: str,
    folder: Path,
    shape: tuple[int, int] = SHAPE,
    spacing_mm: Any = (0.1, 0.12),
    frame: int | None = None,
    photometric: str = "MONOCHROME2",
) -> tuple[Path, Path]:
    """An object of a finding, and its source."""
    tissue = regions(region(5, 6, 85, 110, spacing_mm)) if spacing_mm else None
    frames = _pixels(shape) if frame is None else [_pixels(shape)] * 3
    scan = ultrasound(frames, photometric, InstanceNumber=4, StudyDate="20261128", StudyTime="1200", StudyID="1")
    if tissue:
        scan.SequenceOfUltrasoundRegions = tissue
    source = save(scan, folder / "source.dcm")
    path = folder / f"finding.{kind}.dcm"
    write_dicom(_make(kind, _finding(shape, spacing_mm, frame), source), path)
    return path, source


def _debian(package: str) -> str:
    """The version of a Debian package without its packaging's own number."""
    done = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=False)
    return re.sub(r"^\d+:|-[^-]*$", "", done.stdout) or "not of Debian"


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    return path or pytest.skip(f"{name}, of Debian's {package}, is not installed")


def _mask_of(found: dict[str, Any]) -> np.ndarray:
    mask = np.zeros(found["shape"], bool)
    mask[tuple(np.array(found["lesion"]).T)] = True
    return mask


@pytest.mark.parametrize("tool", ["dcmqi", "pydicom-seg", "SimpleITK"])
@pytest.mark.parametrize("shape", [SHAPE, ODD_BYTES])
@pytest.mark.parametrize("spacing_mm", [(0.1, 0.12), None])
def test_a_segmentation_is_read_with_its_millimetres(
    tool: str, shape: tuple[int, int], spacing_mm: Any, read_elsewhere: Any, seen: Any, tmp_path: Path
) -> None:
    path, _ = _write("seg", tmp_path, shape, spacing_mm)
    found = read_elsewhere(tool, path)
    assert "error" not in found, found
    np.testing.assert_array_equal(_mask_of(found), _finding(shape).mask)
    assert found["spacing_mm"] == pytest.approx(spacing_mm or (1, 1))
    assert found["origin"] == [0, 0, 0]
    assert found["direction"] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    if tool == "dcmqi":
        assert "not a medical device" in found["segment"]["SegmentDescription"]
    name = {"dcmqi": "dcmqi segimage2itkimage (3D Slicer's way)"}.get(tool, tool)
    seen(SEG, name, PINNED[tool], "reads the mask pixel by pixel, with its millimetres")


PINNED = {
    name: number
    for name, _, number in (
        line.partition("==")
        for line in (Path(__file__).parents[2] / "requirements-tools.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
}


def test_highdicom_reads_a_segmentation(seen: Any, tmp_path: Path) -> None:
    path, source = _write("seg", tmp_path)
    seg = highdicom.seg.segread(path)
    uid = dcmread(source).SOPInstanceUID
    np.testing.assert_array_equal(seg.get_pixels_by_source_instance([uid])[0, ..., 0] > 0, _finding().mask)
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.1, 0.12]
    seen(SEG, "highdicom", version("highdicom"), "reads the mask of the source image, with its millimetres")


def _by_cornerstone(node: Any, kind: str, path: Path, source: Path) -> dict[str, Any]:
    done = node("cornerstone.mjs", kind, path, source)
    if done.returncode:
        return {"error": done.stderr}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


ADAPTERS = "@cornerstonejs/adapters"


def _package(name: str) -> str:
    wanted: str = json.loads((Path(__file__).parent / "tools" / "package.json").read_text())["dependencies"][name]
    return wanted


def test_cornerstone_reads_a_segmentation_of_an_even_number_of_bytes(node: Any, seen: Any, tmp_path: Path) -> None:
    path, source = _write("seg", tmp_path)
    found = _by_cornerstone(node, "seg", path, source)
    np.testing.assert_array_equal(np.reshape(found["pixels"], SHAPE) == 1, _finding().mask)
    assert found["segments"] == ["Lesion"]
    path, source = _write("seg", tmp_path, ODD_BYTES)
    assert "error" in _by_cornerstone(node, "seg", path, source)
    seen(
        SEG,
        ADAPTERS,
        _package(ADAPTERS),
        "reads the mask; refuses one whose packed bits are an odd number of bytes, such as 90 × 114 pixels",
    )


def test_dcm2niix_writes_a_segmentation_upside_down(read_elsewhere: Any, seen: Any, tmp_path: Path) -> None:
    path, _ = _write("seg", tmp_path)
    (image,) = read_elsewhere("dcm2niix", path)["images"]
    np.testing.assert_array_equal(_mask_of(image)[::-1], _finding().mask)
    seen(SEG, "dcm2niix", PINNED["dcm2niix"], "writes the mask upside down; take `--write nifti`")


def test_monai_reads_no_segmentation_of_one_segment(seen: Any, tmp_path: Path) -> None:
    from monai.transforms import LoadImage

    path, _ = _write("seg", tmp_path)
    with pytest.raises(RuntimeError):
        LoadImage(reader="PydicomReader", image_only=True)(path)
    seen(SEG, "MONAI PydicomReader", version("monai"), "does not read it; take `bundle.readers.read_mask`")


def test_a_nifti_mask_lies_on_the_dicom_image_that_itk_converts(read_elsewhere: Any, seen: Any, tmp_path: Path) -> None:
    from monai.transforms import Compose, LoadImage, Orientation

    mask = _finding().mask
    source = save(ultrasound(mask.astype(np.uint8) * 200), tmp_path / "image.dcm")
    target = tmp_path / "mask.nii.gz"
    write_nifti_mask(mask, target, grid=grid_of(source, None, None))
    image, found = read_elsewhere("SimpleITK to NIfTI", source), read_elsewhere("SimpleITK", target)
    np.testing.assert_array_equal(_mask_of(found), _mask_of(image))
    for place in ("spacing_mm", "origin", "direction"):
        assert found[place] == image[place]
    converted = tmp_path / "image.dcm.nii.gz"
    canonical = [nibabel.as_closest_canonical(nibabel.load(file)) for file in (converted, target)]
    np.testing.assert_array_equal(*(np.asarray(file.dataobj) > 0 for file in canonical))
    turn = Compose([LoadImage(image_only=True, ensure_channel_first=True), Orientation("RAS")])
    np.testing.assert_array_equal(turn(converted).numpy() > 0, turn(target).numpy() > 0)
    does = "lies on the image that ITK reads or converts, before and after a turn to RAS"
    seen(NIFTI, "SimpleITK", PINNED["SimpleITK"], does)
    seen(NIFTI, "nibabel, MONAI", f"{version('nibabel')}, {version('monai')}", does)


def test_dsr2html_names_every_number(seen: Any, tmp_path: Path) -> None:
    path, _ = _write("sr", tmp_path)
    page = tmp_path / "page.html"
    subprocess.run([_program("dsr2html", "dcmtk"), str(path), str(page)], check=True, capture_output=True)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.read_text())).split())
    for wanted in ("Area: 21.6 mm2", "Long axis: 7.4 mm", "Probability of cancer: 81.2 %", "Warning: a warning"):
        assert wanted in text
    assert "not a medical device" in text
    seen(SR, "DCMTK dsr2html", _debian("dcmtk"), "names and shows every number, decision and warning")


def test_a_report_comes_back_whole_from_dcmtks_xml(seen: Any, tmp_path: Path) -> None:
    path, _ = _write("sr", tmp_path)
    as_xml, back = tmp_path / "report.xml", tmp_path / "back.dcm"
    kept = {}
    for word in ("+Wt", "-Ee"):  # the latter changes nothing here
        subprocess.run([_program("dsr2xml", "dcmtk"), word, str(path), str(as_xml)], check=True, capture_output=True)
        subprocess.run([_program("xml2dsr", "dcmtk"), str(as_xml), str(back)], check=True, capture_output=True)
        kept[word] = dcmread(back)
    assert kept["+Wt"].ContentSequence == dcmread(path).ContentSequence
    assert kept["+Wt"].ContentTemplateSequence == dcmread(path).ContentTemplateSequence
    assert "ContentTemplateSequence" not in kept["-Ee"]
    does = "all of its content comes back; without `+Wt` the templates' numbers are lost"
    seen(SR, "DCMTK dsr2xml, xml2dsr", _debian("dcmtk"), does)


def test_tid1500reader_keeps_numbers_decisions_and_warnings(read_elsewhere: Any, seen: Any, tmp_path: Path) -> None:
    path, _ = _write("sr", tmp_path)
    (group,) = read_elsewhere("tid1500reader", path)["report"]["Measurements"]
    values = {item["quantity"]["CodeMeaning"]: item["value"] for item in group["measurementItems"]}
    assert (values["Area"], values["Probability of cancer"]) == ("21.6", "81.2")
    said = [str(item["conceptValue"]) for item in group["qualitativeEvaluations"]]
    assert any("not a medical device" in text for text in said)
    assert any("a warning" in text for text in said)
    assert len(group["measurementAlgorithmIdentification"]["AlgorithmParameters"]) == 1
    assert "30.0" not in json.dumps(group)  # the outline
    does = "keeps numbers, decisions, warnings; of the algorithm's parameters the first; no outline"
    seen(SR, "dcmqi tid1500reader", PINNED["dcmqi"], does)


def test_highdicom_reads_a_report(seen: Any, tmp_path: Path) -> None:
    path, _ = _write("sr", tmp_path)
    (group,) = highdicom.sr.srread(path).content.get_planar_roi_measurement_groups()
    np.testing.assert_array_equal(group.roi.value, trace_outline(_finding().mask))
    assert {item.name.meaning for item in group.get_measurements()} >= {"Area", "Probability of cancer"}
    seen(SR, "highdicom", version("highdicom"), "reads outline, numbers and decisions")


def test_cornerstone_finds_the_outline_of_a_report(node: Any, seen: Any, tmp_path: Path) -> None:
    path, source = _write("sr", tmp_path)
    found = _by_cornerstone(node, "sr", path, source)
    assert found["tools"] == ["PlanarFreehandROI"]
    (measurement,) = found["measurements"]
    # Its coordinates count from the centre of the first pixel.
    np.testing.assert_allclose(np.array(measurement["polyline"]) + 0.5, trace_outline(_finding().mask)[:-1])
    assert "P(malignant) 0.81" in measurement["label"]
    seen(SR, ADAPTERS, _package(ADAPTERS), "draws the outline, with area, perimeter and P(malignant)")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", [None, 1])
def test_dciodvfy_finds_no_error(kind: str, frame: int | None, seen: Any, tmp_path: Path) -> None:
    if (kind, frame) == ("seg", 1):
        return  # a SEG of a frame among several is refused
    path, _ = _write(kind, tmp_path, frame=frame)
    assert _errors(dcmread(path), tmp_path) == []
    seen(KINDS[kind], "dicom3tools dciodvfy", _debian("dicom3tools"), "no error")


def test_dcmp2pgm_shows_the_picture_without_graphics(seen: Any, tmp_path: Path) -> None:
    path, source = _write("pr", tmp_path)
    shown = tmp_path / "shown.pgm"
    words = [_program("dcmp2pgm", "dcmtk"), "--pstate", str(path), str(source), str(shown)]
    subprocess.run(words, check=True, capture_output=True)
    np.testing.assert_allclose(read_pgm(shown), read_image(source).pixels, atol=1.5)
    path, source = _write("pr", tmp_path, photometric="RGB")
    refused = subprocess.run(
        [words[0], "--pstate", str(path), str(source), str(shown)], capture_output=True, check=False
    )
    assert refused.returncode == 10
    does = "shows the picture with the state's window; draws no graphics, of any state; refuses those in colour"
    seen(PR, "DCMTK dcmp2pgm", _debian("dcmtk"), does)


def test_a_page_of_dwv_draws_the_outline_over_the_picture(packages: Path, seen: Any, tmp_path: Path) -> None:
    path, source = _write("pr", tmp_path)
    data = {"STATE": path, "SOURCE": source}
    texts = [f'const {name} = "{base64.b64encode(file.read_bytes()).decode()}";' for name, file in data.items()]
    (packages / "data.js").write_text("\n".join(texts))
    shot = Path(os.environ.get("TOOLS_PICTURES", tmp_path)) / "presentation_state_in_dwv.png"
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(packages))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/viewer.html"
        words = [_program("chromium", "chromium"), "--headless", "--no-sandbox", "--disable-gpu"]
        words += ["--window-size=960,760", "--virtual-time-budget=20000", f"--screenshot={shot}", page]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
        server.shutdown()
    picture = np.asarray(Image.open(shot).convert("RGB"))[:720].astype(int)
    drawn = (picture[..., 0] - picture[..., 2] > 120) & (np.mgrid[:720, :960][0] < 565)  # above label and notice
    outline = np.zeros((720, 960), np.uint8)
    corners = np.rint(trace_outline(_finding().mask) * 8).astype(np.int32)
    cv2.polylines(outline, [corners], isClosed=True, color=1, thickness=1)
    near = cv2.dilate(outline, np.ones((7, 7))) > 0
    assert drawn[near].sum() == drawn.sum() > 1000
    assert (cv2.dilate(drawn.astype(np.uint8), np.ones((7, 7))) > 0)[outline > 0].mean() > 0.99
    assert picture[:720].std() > 40  # the picture is there
    does = "its parser reads the state, and a page of ours draws it over the picture; dwv itself draws no state"
    seen(PR, "dwv in Chromium", _package("dwv"), does)


def read_pgm(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L")).astype(float)


@pytest.mark.parametrize("kind", KINDS)
def test_orthanc_stores_and_returns_it_equal(kind: str, orthanc: Any, seen: Any, tmp_path: Path) -> None:
    path, _ = _write(kind, tmp_path)
    words = [_program("storescu", "dcmtk"), "-R", "-aec", "ORTHANC", "127.0.0.1", str(orthanc["dicom_port"]), str(path)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    stored = _find_in(orthanc["url"], dcmread(path).SOPInstanceUID)
    with urllib.request.urlopen(f"{orthanc['url']}/instances/{stored}/file") as answer:
        (tmp_path / "back.dcm").write_bytes(answer.read())
    assert dcmread(tmp_path / "back.dcm") == dcmread(path)
    preview = _answers(f"{orthanc['url']}/instances/{stored}/preview")
    shows = "; its preview shows it" if preview else "; it has no preview of it"
    seen(KINDS[kind], "Orthanc", orthanc["version"], f"stores and returns it equal{shows}")


def _find_in(url: str, uid: str) -> str:
    query = json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": uid}}).encode()
    with urllib.request.urlopen(f"{url}/tools/find", data=query) as answer:
        (found,) = json.load(answer)
    return str(found)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.read())
    except urllib.error.HTTPError:
        return False


@contextlib.contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    """DCMTK's storescp that writes into a folder; gives its port."""
    folder.mkdir()
    port = free_port()
    words = [_program("storescp", "dcmtk"), "--output-directory", str(folder), str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as peer:
        try:
            time.sleep(1)
            yield port
        finally:
            peer.terminate()


@pytest.mark.parametrize("kind", KINDS)
def test_storescu_sends_it_when_told_to(kind: str, seen: Any, tmp_path: Path) -> None:
    path, _ = _write(kind, tmp_path)
    received = tmp_path / "received"
    with _storescp(received) as port:
        send = [_program("storescu", "dcmtk"), "127.0.0.1", str(port), str(path)]
        plain = subprocess.run(send, capture_output=True, timeout=60, check=False)
        arrived = bool(list(received.iterdir()))
        proposed = subprocess.run([send[0], "-R", *send[1:]], capture_output=True, timeout=60, check=False)
        assert proposed.returncode == 0
        assert [dcmread(file) for file in received.iterdir()] == [dcmread(path)]
    assert arrived == (plain.returncode == 0)
    seen(KINDS[kind], "DCMTK storescu", _debian("dcmtk"), "sends it" if arrived else "sends it with `-R` alone")


@pytest.mark.parametrize("kind", KINDS)
def test_dcmsend_sends_it_and_tells_of_refusals_in_its_report_alone(kind: str, seen: Any, tmp_path: Path) -> None:
    path, _ = _write(kind, tmp_path)
    received, report = tmp_path / "received", tmp_path / "report"
    program = _program("dcmsend", "dcmtk")
    with _storescp(received) as port:
        subprocess.run([program, "127.0.0.1", str(port), str(path)], check=True, capture_output=True, timeout=60)
        assert [dcmread(file) for file in received.iterdir()] == [dcmread(path)]
    pynetdicom = pytest.importorskip("pynetdicom", reason="pynetdicom, of requirements-clinic.txt, is not installed")
    refusing = pynetdicom.AE("REFUSING")
    refusing.add_supported_context(dcmread(path).SOPClassUID)
    handlers = [(pynetdicom.evt.EVT_C_STORE, lambda _: 0xA700)]
    server = refusing.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    words = [program, "--create-report-file", str(report), "127.0.0.1", str(server.server_address[1]), str(path)]
    refused = subprocess.run(words, capture_output=True, timeout=60, check=False)
    refusing.shutdown()
    assert refused.returncode == 0
    assert "with status REFUSED  : 1" in report.read_text()
    does = "sends it; its exit code is 0 where the peer refuses it too, its report (`+crf FILE`) tells"
    seen(KINDS[kind], "DCMTK dcmsend", _debian("dcmtk"), does)
