# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/predict.py on clinical files: outputs, cines, privacy, memory."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from PIL import Image
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from bundle.outputs.case import OF_A_CASE, OF_ALL
from bundle.readers import read_mask
from scripts.predict import DEFAULT, OUTPUTS, main
from tests.readers.fabricate import region, regions, save, ultrasound

SHAPE = (70, 90)
IDENTITY = {
    "PatientName": "CANARY01^ANN",
    "PatientID": "CANARY02",
    "PatientBirthDate": "19020304",
    "StudyID": "CANARY04",
    "AccessionNumber": "CANARY05",
    "ReferringPhysicianName": "CANARY06^BOB",
}
"""What the modules Patient and General Study of a DICOM object need."""

ELSEWHERE = (
    *("OtherPatientIDs", "PatientAddress", "PatientComments", "EthnicGroup", "MilitaryRank", "Occupation"),
    *("StudyDescription", "SeriesDescription", "InstitutionName", "InstitutionAddress", "StationName"),
    *("OperatorsName", "PerformingPhysicianName", "PhysiciansOfRecord", "DeviceSerialNumber", "ProtocolName"),
    *("ImageComments", "RequestedProcedureDescription", "AdditionalPatientHistory", "InstitutionalDepartmentName"),
)


def _pixels(frames: int = 0) -> Any:
    """Dark blobs on speckle, one image or a list of frames."""
    rng, (yy, xx) = np.random.default_rng(0), np.mgrid[: SHAPE[0], : SHAPE[1]]
    blob = np.hypot(yy - 30, xx - 40) < 15
    made = [np.where(blob, 20, rng.integers(60, 200, SHAPE)).astype(np.uint8) for _ in range(max(1, frames))]
    return made if frames else made[0]


def _stuffed(frames: int = 0, **elements: Any) -> Dataset:
    """A scan with a canary in every corner of its header."""
    scan = ultrasound(_pixels(frames), SequenceOfUltrasoundRegions=regions(region(4, 5, 66, 86)))
    for keyword, value in IDENTITY.items():
        setattr(scan, keyword, value)
    for number, keyword in enumerate(ELSEWHERE, 10):
        setattr(scan, keyword, f"CANARY{number}")
    block = scan.private_block(0x0011, "CANARY31", create=True)
    block.add_new(0x01, "LO", "CANARY32")
    nested = Dataset()
    nested.PatientID = "CANARY33"
    scan.OtherPatientIDsSequence = Sequence([nested])
    for keyword, value in elements.items():
        setattr(scan, keyword, value)
    return scan


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single image, a cine, one whose values break the standard, and pictures of odd names."""
    folder = tmp_path_factory.mktemp("ward") / "FOLDERCANARY" / "scans"
    save(_stuffed(), folder / "sub" / "single.dcm")
    save(_stuffed(frames=3), folder / "cine.dcm")
    with config.disable_value_validation():
        save(_stuffed(PatientBirthDate="CANARY41", StudyTime="CANARY42", PatientSex="CANARY43"), folder / "odd.dcm")
    for name in ("=cmd|calc.png", "<script>alert(1)<b>.png", "@a.png", "-b.png", "+c.png"):
        picture = Image.fromarray(_pixels())
        picture.info["comment"] = "CANARY44"
        picture.save(folder / name, exif=_exif())
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"CANARY45" * 9)
    return folder


def _exif() -> Any:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = "CANARY46", "CANARY47"
    return exif


@pytest.fixture(scope="module")
def predicted(ward: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Path, str]:
    """The output folder of a run with every output, and what the terminal showed."""
    missing = {"pdf": not _has_weasyprint(), "parquet": find_spec("pyarrow") is None}
    outputs = [output for output in OUTPUTS if not missing.get(output)]
    words = [root / "scripts" / "predict.py", ward, "--models", tiny_models, "--device", "cpu"]
    folder = tmp_path_factory.mktemp("predicted") / "out"
    words += ["--output", folder, "--explain", "--write", *outputs]
    done = warm.run([sys.executable, *map(str, words)], root, {**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 3, done.stderr[-2000:]
    return folder, done.stdout + done.stderr


def _has_weasyprint() -> bool:
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def _contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what its compression hides."""
    content = path.read_bytes()
    yield content
    if path.suffix == ".gz":
        yield gzip.decompress(content)
    elif path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            yield repr((image.info, image.getexif(), getattr(image, "text", ""))).encode()
    elif path.suffix == ".parquet":
        from pyarrow.parquet import read_table

        yield repr(read_table(path).to_pylist()).encode()
    elif path.suffix == ".pdf":
        for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, flags=re.DOTALL):
            try:
                yield zlib.decompress(stream)
            except zlib.error:
                yield stream


def _leaks(path: Path, canaries: tuple[bytes, ...]) -> set[str]:
    return {canary.decode() for part in _contents(path) for canary in canaries if canary in part}


def test_no_header_value_leaves_the_source_but_where_the_standard_needs_it(
    predicted: tuple[Path, str], ward: Path, tmp_path: Path
) -> None:
    folder, terminal = predicted
    canaries = (b"CANARY", b"19020304", str(ward.parents[1]).encode(), str(folder.parent).encode())
    terminal_canaries = [f"CANARY{number:02d}" for number in range(1, 50)]
    assert [word for word in (*terminal_canaries, "19020304") if word in terminal] == []
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if "CANARY" in path.relative_to(folder).as_posix()]
    assert {path.suffix for path in files} >= {".png", ".gz", ".dcm", ".json", ".csv", ".html", ".jpg"}
    clean = [path for path in files if path.suffix != ".dcm"]
    below = {path: _leaks(path, canaries) for path in clean}
    assert {path: found for path, found in below.items() if found} == {}
    objects = [path for path in files if path.suffix == ".dcm"]
    assert len(objects) == 2 + 3 * 5  # seg of two single images; sr, pr and sc of them and of three frames
    for path in objects:
        dataset = dcmread(path)
        for keyword in IDENTITY:
            assert "CANARY" in str(dataset[keyword].value) or keyword == "PatientBirthDate"
            del dataset[keyword]
        assert "CANARY" not in str(dataset)
        rest = tmp_path / "rest.dcm"
        dataset.save_as(rest)
        assert _leaks(rest, canaries) == set()


def test_names_run_neither_as_formulas_nor_as_markup(predicted: tuple[Path, str]) -> None:
    folder, _ = predicted
    table = (folder / "findings.csv").read_text()
    cells = [cell for line in table.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if re.match(r"\"?[=@]|\"?[+-](?![\d.])", cell)]
    assert "'=cmd|calc.png" in table
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_every_output_is_there_and_says_what_could_not_be(predicted: tuple[Path, str], ward: Path) -> None:
    folder, terminal = predicted
    content = json.loads((folder / "findings.json").read_text())
    assert [bad["path"] for bad in content["skipped"]] == ["broken.dcm"]
    assert len(content["findings"]) == 2 + 3 + 5
    refused = {(entry["output"], len(entry["images"])): entry["reason"] for entry in content["not_written"]}
    no_dicom = {key for key, reason in refused.items() if "no DICOM file" in reason}
    assert no_dicom == {("seg", 5), ("sr", 5), ("pr", 5), ("sc", 5)}
    assert "frame of reference" in refused["seg", 3]
    assert "no seg, sr, pr, sc of 5 image(s)" in terminal
    mask = read_mask(folder / "masks" / "sub" / "single.dcm.png")
    np.testing.assert_array_equal(read_mask(folder / "nifti" / "sub" / "single.dcm.nii.gz"), mask)
    segmentation = folder / "seg" / "sub" / "single.dcm.seg.dcm"
    np.testing.assert_array_equal(read_mask(segmentation, ward / "sub" / "single.dcm"), mask)
    assert mask.shape == SHAPE
    assert not mask[:4].any()  # outside the tissue region
    assert content["cines"][0]["file"] == "cine.dcm"
    assert content["cines"][0]["most_suspicious"]["frame"] in (0, 1, 2)
    assert not list(folder.rglob(".*.tmp"))


def test_the_help_names_every_output_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert (*OF_A_CASE, *OF_ALL) == OUTPUTS
    assert set(DEFAULT) < set(OUTPUTS)
    assert all(output in text for output in OUTPUTS)
    assert "Exit codes: 0 done; 2 a mistake" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--list FILE"),
        (["a.png", "--write", "seg"], "--output DIR"),
        (["a.png", "--again"], "--output DIR"),
        (["a.png", "--output", "o", "--write", "jpg"], "invalid choice"),
        (["a.png", "--frame", "-1"], "less than 0"),
        (["a.png", "--every", "0"], "less than 1"),
        (["a.png", "--frame", "1", "--all-frames"], "not allowed with"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named_before_any_work(
    ward: Path, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    words = [str(ward), "--models", str(tiny_models), "--output", str(tmp_path / "out"), "--write", "sr"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install -r requirements.txt" in line
    assert not (tmp_path / "out").exists()


def test_a_segmentation_without_a_known_spacing_is_warned_of(tiny_models: Path, tmp_path: Path) -> None:
    save(ultrasound(_pixels()), tmp_path / "scans" / "a.dcm")
    words = [str(tmp_path / "scans"), "--models", str(tiny_models), "--device", "cpu"]
    for outputs, warned in ((["seg", "json"], True), (["sr", "json"], False)):
        output = tmp_path / outputs[0]
        assert main([*words, "--output", str(output), "--write", *outputs]) == 0
        (finding,) = json.loads((output / "findings.json").read_text())["findings"]
        assert ("the spacing is unknown: in the SEG a pixel counts as 1 × 1 mm" in finding["warnings"]) == warned


def _command(root: Path, folder: Path, models: Path, output: Path, *words: str) -> list[str]:
    command = [sys.executable, str(root / "scripts" / "predict.py"), str(folder), "--models", str(models)]
    return [*command, "--device", "cpu", "--output", str(output), *words]


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on(tiny_models: Path, tmp_path: Path, root: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(150):
        Image.fromarray(np.roll(_pixels(), number, 1)).save(tmp_path / "images" / f"{number:03d}.png")
    command = _command(root, tmp_path / "images", tiny_models, tmp_path / "out")
    records = tmp_path / "out" / ".cases"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while len(list(records.glob("*.json"))) < 5:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    done = len(list(records.glob("*.json")))
    assert 5 <= done < 150
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert again.returncode == 0
    assert f"{done} done by an earlier run" in again.stdout
    assert len(json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]) == 150


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(tiny_models: Path, tmp_path: Path, root: Path) -> None:
    peaks = {}
    for count in (50, 400):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            Image.fromarray(np.roll(_pixels(), number, 1)).save(folder / f"{number:03d}.png")
        words = _command(root, folder, tiny_models, tmp_path / f"out{count}")[1:]
        code = (
            "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
            "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "except SystemExit as leaving: assert not leaving.code, leaving.code\n"
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "MALLOC_ARENA_MAX": "2"}
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peaks[count] = int(done.stdout.split()[-1])
    print(f"peak memory by number of files, MB: {peaks}")
    assert peaks[400] - peaks[50] < 40, peaks


def test_unverified_weights_are_used_only_when_allowed_and_every_finding_says_so(
    write_models: Any, ward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = write_models(tmp_path / "models")
    card = json.loads((models / "model.json").read_text())
    (models / "model.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    words = [str(ward / "sub"), "--models", str(models), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "sha256" in capsys.readouterr().err
    assert main([*words, "--allow-unverified", "--write", "json"]) == 0
    (finding,) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert finding["models"]["segmenter"] == card["sha256"]
    assert any(warning.startswith("UNVERIFIED") for warning in finding["warnings"])


def test_what_a_killed_run_left_half_written_is_removed(ward: Path, tiny_models: Path, tmp_path: Path) -> None:
    left = tmp_path / "out" / "masks" / f".{'0a' * 8}.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    words = [str(ward / "sub"), "--models", str(tiny_models), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main([*words, "--write", "json"]) == 0
    assert not left.exists()
