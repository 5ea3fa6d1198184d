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
from label_server import Server, write_dicom
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
