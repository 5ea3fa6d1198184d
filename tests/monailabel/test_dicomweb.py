# SPDX-License-Identifier: Apache-2.0
"""Claims about studies in a DICOMweb archive, against a real Orthanc.

It is looked for where Debian's packages orthanc and orthanc-dicomweb put it; ORTHANC and ORTHANC_DICOMWEB name the
program and the plugin elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from label_server import Server, write_dicom, write_segmentation
from PIL import Image

from bundle.prediction import Predictor

PROGRAM = os.environ.get("ORTHANC") or shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = os.environ.get("ORTHANC_DICOMWEB", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MODEL = "breast_ultrasound"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an empty Orthanc on the loopback interface."""
    requests = pytest.importorskip("requests")
    if not (Path(PROGRAM).is_file() and Path(PLUGIN).is_file()):
        pytest.skip("no Orthanc with its DICOMweb plugin here: apt-get install orthanc orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": [PLUGIN],
        "Locale": "C",
    }
    settings |= {"StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomWeb": {"Enable": True}}
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(f"{address}/system", timeout=5).raise_for_status()
            break
        except requests.RequestException:
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(timeout=20)
    assert process.returncode == 0, (folder / "log").read_text()[-2000:]


def test_an_ultrasound_series_of_an_archive_is_segmented(
    environment: None, archive: str, phantom: Path, copy_bundle: Callable[[Path], Path], tmp_path: Path
) -> None:
    import requests
    import SimpleITK

    write_dicom(np.asarray(Image.open(phantom / "malignant" / "malignant (1).png")), tmp_path / "one.dcm")
    requests.post(f"{archive}/instances", data=(tmp_path / "one.dcm").read_bytes(), timeout=20).raise_for_status()
    root = copy_bundle(tmp_path / "bundle")
    server = Server(
        root / "scripts" / "monailabel_app",
        f"{archive}/dicom-web",
        tmp_path,
        {},
        MONAI_LABEL_DICOMWEB_SEARCH_FILTER='{"Modality": "US"}',
        MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path / "cache"),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    try:
        assert server.call("GET", "/datastore/").json()["total"] == 1
        series = server.call("POST", "/activelearning/first").json()["id"]
        label = SimpleITK.ReadImage(str(server.mask(MODEL, series, tmp_path, ".nrrd")))
        mask = SimpleITK.GetArrayFromImage(label)[0] > 0
        expected = Predictor.from_folder(root / "models", "cpu").predict(tmp_path / "one.dcm")
        assert mask.shape == expected.mask.shape
        assert 2 * (mask & expected.mask).sum() / (mask.sum() + expected.mask.sum()) >= 0.99
        answer = server.call("POST", f"/infer/{MODEL}?image={series}&output=json").json()
        assert answer["finding"]["probability"] == pytest.approx(expected.probability, abs=0.01)
        assert "is unknown" in server.call("POST", f"/infer/{MODEL}?image=nobody", status=404).json()["detail"]
    finally:
        server.stop()


STILL, OURS, ANNOTATED, DAMAGED, STACK, SIZES, LATER = (f"1.2.826.0.1.3680043.8.498.{number}" for number in range(1, 8))


def _post(archive: str, file: Path) -> None:
    import requests

    requests.post(f"{archive}/instances", data=file.read_bytes(), timeout=20).raise_for_status()


@pytest.fixture(scope="module")
def ward(
    environment: None,
    archive: str,
    phantom: Path,
    copy_bundle: Callable[[Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, Path]]:
    """A server over an archive of stills, labels of annotators and of models, and series of several stills."""
    folder = tmp_path_factory.mktemp("ward")
    for number, series in enumerate((STILL, OURS, ANNOTATED, DAMAGED, LATER), 1):
        name = "benign" if number % 2 else "malignant"
        write_dicom(np.asarray(Image.open(phantom / name / f"{name} ({number}).png")), folder / series, series=series)
    for series, sizes in ((STACK, (60, 60)), (SIZES, (60, 70))):
        for number, rows in enumerate(sizes):
            write_dicom(np.full((rows, 90), 80, np.uint8), folder / f"{series}.{number}", series=series)
    for series, kind, name in ((OURS, "AUTOMATIC", "Breast ultrasound"), (ANNOTATED, "MANUAL", "somebody")):
        rows, columns = np.asarray(Image.open(_picture_of(series, phantom))).shape[:2]
        drawn = np.zeros((rows, columns), bool)
        drawn[20:40, 30:60] = True
        write_segmentation(drawn, folder / series, folder / f"{series}.seg", kind, name)
    write_segmentation(np.ones((8, 8), bool), folder / DAMAGED, folder / f"{DAMAGED}.seg", "MANUAL")
    for file in folder.iterdir():
        if file.name != LATER:
            _post(archive, file)
    root = copy_bundle(folder / "bundle")
    server = Server(
        root / "scripts" / "monailabel_app",
        f"{archive}/dicom-web",
        folder,
        {},
        MONAI_LABEL_DICOMWEB_SEARCH_FILTER='{"Modality": "US"}',
        MONAI_LABEL_DICOMWEB_CACHE_PATH=str(folder / "cache"),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    yield server, folder
    server.stop()


def _picture_of(series: str, phantom: Path) -> Path:
    number = (STILL, OURS, ANNOTATED, DAMAGED, LATER).index(series) + 1
    name = "benign" if number % 2 else "malignant"
    return phantom / name / f"{name} ({number}).png"


def test_a_segmentation_of_a_model_is_no_label(ward: tuple[Server, Path]) -> None:
    server, _ = ward
    state = server.call("GET", "/datastore/").json()
    assert state["completed"] == 2  # of annotators, one of them damaged
    assert state["total"] >= 6


def test_series_of_several_stills_are_told_in_one_line_and_end_no_scoring(ward: tuple[Server, Path]) -> None:
    server, _ = ward
    for series in (STACK, SIZES):
        detail = server.call("POST", f"/infer/{MODEL}?image={series}&output=json", status=422).json()["detail"]
        assert detail == (
            f"{series}: its series holds 2 images, and MONAI Label takes a series for one; annotate them as a folder "
            "of files"
        )
    scores = server.call("POST", "/scoring/uncertainty?run_sync=true").json()
    assert set(scores["failed"]) >= {STACK, SIZES}
    assert scores["scored"] >= 2  # the stills, OURS among them


def test_what_is_trained_on_is_what_annotators_drew(ward: tuple[Server, Path], phantom: Path) -> None:
    import nibabel

    server, folder = ward
    label = folder / "submitted.png"
    rows, columns = np.asarray(Image.open(_picture_of(STILL, phantom))).shape[:2]
    mask = np.zeros((rows, columns), np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(mask).save(label)
    with label.open("rb") as file:
        server.call("PUT", f"/datastore/label?image={STILL}&tag=final", files={"label": ("label.png", file)})
    records = server.call("GET", "/datastore/?output=train").json()
    found = {Path(record["image"]).name.removesuffix(".nii.gz"): Path(record["label"]) for record in records}
    assert set(found) == {STILL, ANNOTATED}
    image = nibabel.load(found[ANNOTATED])
    stored = np.asarray(image.dataobj).squeeze().T
    assert stored[20:40, 30:60].all()
    assert stored.sum() == 20 * 30
    log = server.log.read_text()
    assert f"left out: {DAMAGED}: its label" in log
    assert "Traceback" not in log


def test_an_image_that_came_later_is_known_in_seconds(ward: tuple[Server, Path], archive: str) -> None:
    server, folder = ward
    _post(archive, folder / LATER)
    time.sleep(11)
    assert server.call("POST", f"/infer/{MODEL}?image={LATER}&output=json").json()["finding"]["probability"] >= 0


def test_a_torchvision_of_another_build_is_one_line(
    environment: None, copy_bundle: Callable[[Path], Path], tmp_path: Path
) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    (tmp_path / "studies").mkdir()
    app = copy_bundle(tmp_path / "bundle") / "scripts" / "monailabel_app"
    words = ["-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(tmp_path / "studies")]
    environment_of = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words, "--host", "127.0.0.1", "--port", "8899"],
        env=environment_of,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "torchvision does not fit torch" in done.stderr
