# SPDX-License-Identifier: Apache-2.0
"""Claims about the node beside DCMTK and Orthanc: programs of others, on their own ports of 127.0.0.1."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_lab import scan, wait_for
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bundle.serving.node import Node
from bundle.serving.targets import Peer
from scripts import predict
from tests.readers.fabricate import save

pytestmark = pytest.mark.slow
Start = Callable[..., Node]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_dcmtk = pytest.mark.skipif(not (shutil.which("storescu") and shutil.which("storescp")), reason="no DCMTK")
needs_orthanc = pytest.mark.skipif(not (shutil.which("Orthanc") and PLUGIN.exists()), reason="no Orthanc, DICOMweb")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _study(folder: Path, count: int = 3) -> list[Dataset]:
    study, common = generate_uid(), {"StudyDate": "20260101", "StudyTime": "120000", "StudyID": "1"}
    images = [
        scan(n, StudyInstanceUID=study, Laterality="LR"[n % 2], InstanceNumber=n + 1, **common) for n in range(count)
    ]
    for number, image in enumerate(images):
        save(image, folder / f"{number}.dcm")
    return images


@needs_dcmtk
def test_storescu_sends_and_storescp_gets_the_answers(start_node: Start, tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out"
    out.mkdir()
    storescp = subprocess.Popen(["storescp", "-aet", "STORESCP", "-od", str(out), "+xa", str(port)])
    try:
        peer = Peer("STORESCP", "127.0.0.1", port, "BUS_NODE")
        node = start_node(outputs=("seg", "sr", "pr", "sc"), targets=(peer,), quiet=1.0)
        _study(tmp_path / "in")
        echo = ["echoscu", "-aec", "BUS_NODE", "127.0.0.1", str(node.port)]
        assert subprocess.run(echo, check=False).returncode == 0
        send = [
            "storescu",
            "-aet",
            "SCANNER",
            "-aec",
            "BUS_NODE",
            "+sd",
            "127.0.0.1",
            str(node.port),
            str(tmp_path / "in"),
        ]
        assert subprocess.run(send, check=False).returncode == 0
        wait_for(lambda: len(list(out.iterdir())) == 13, 60)
        wait_for(lambda: not node.queue.one("select 1 from deliveries where state = 'waiting'"))
        kinds = sorted(dcmread(path).Modality for path in out.iterdir())
        assert kinds == ["OT"] * 3 + ["PR"] * 3 + ["SEG"] * 3 + ["SR"] * 4
    finally:
        storescp.terminate()
        storescp.wait()


@needs_dcmtk
def test_storescu_is_told_why_it_is_refused(start_node: Start, tmp_path: Path) -> None:
    node = start_node(max_bytes=2000)
    _study(tmp_path / "in", 1)
    send = ["storescu", "-d", "-aec", "BUS_NODE", "127.0.0.1", str(node.port), str(tmp_path / "in" / "0.dcm")]
    told = subprocess.run(send, capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert "0xa700" in (told.stdout + told.stderr).lower()


class Orthanc:
    """Orthanc with its DICOMweb plugin, in a folder of its own; it sends all new images to the node by its queue."""

    def __init__(self, folder: Path, node_port: int) -> None:
        self.dicom, self.http, folder = free_port(), free_port(), folder / "orthanc"
        folder.mkdir()
        settings = {
            **{"StorageDirectory": str(folder), "IndexDirectory": str(folder), "Plugins": [str(PLUGIN)]},
            **{"DicomAet": "ORTHANC", "DicomPort": self.dicom, "HttpPort": self.http, "AuthenticationEnabled": False},
            **{"RemoteAccessAllowed": False, "DicomCheckCalledAet": True, "StableAge": 1},
            "DicomModalities": {"node": ["BUS_NODE", "127.0.0.1", node_port]},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
        self.log = open(folder / "log", "wb")  # noqa: SIM115, closed with it
        self.process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=self.log, stderr=self.log)
        wait_for(self._listens, 60)

    def _listens(self) -> bool:
        try:
            return bool(self.get("system"))
        except OSError:
            return False

    @property
    def web(self) -> str:
        """The root of its DICOMweb service."""
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def get(self, path: str, data: bytes | None = None) -> Any:
        """Ask its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/{path}", data) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@needs_orthanc
def test_a_study_goes_from_orthanc_through_the_node_and_back_and_is_committed_to(
    start_node: Start, tmp_path: Path
) -> None:
    port = free_port()
    orthanc = Orthanc(tmp_path, port)
    try:
        peer = Peer("ORTHANC", "127.0.0.1", orthanc.dicom, "BUS_NODE")
        node = start_node(port=port, outputs=("seg", "sr", "pr", "sc"), targets=(peer,), quiet=1.0, commit=30.0)
        images = _study(tmp_path / "in")
        for path in sorted((tmp_path / "in").iterdir()):
            orthanc.get("instances", path.read_bytes())
        (study,) = orthanc.get("studies")
        orthanc.get("modalities/node/store", json.dumps({"Resources": [study]}).encode())
        wait_for(lambda: len(orthanc.get("instances")) == len(images) * 5 + 1, 60)
        assert orthanc.get("studies") == [study]
        wait_for(lambda: not node.queue.one("select 1 from deliveries where commitment != 'committed'"), 60)
        # The archive sends everything of the study again, our objects too: none is answered.
        orthanc.get("modalities/node/store", json.dumps({"Resources": [study]}).encode())
        time.sleep(3)
        assert len(orthanc.get("instances")) == len(images) * 5 + 1
    finally:
        orthanc.stop()


@needs_orthanc
def test_predict_takes_a_study_from_dicomweb_and_stores_its_objects_there(tmp_path: Path, tiny_models: Path) -> None:
    orthanc = Orthanc(tmp_path, free_port())
    try:
        images = _study(tmp_path / "in")
        for path in sorted((tmp_path / "in").iterdir()):
            orthanc.get("instances", path.read_bytes())
        words = ["--dicomweb", orthanc.web, "--study", images[0].StudyInstanceUID, "--models", str(tiny_models)]
        words += ["--output", str(tmp_path / "out"), "--write", "seg", "sr", "pr", "--device", "cpu", "--store"]
        assert predict.main(words) == 0
        assert len(orthanc.get("instances")) == 4 * len(images)
        assert len(orthanc.get("studies")) == 1
        words[3] = generate_uid()
        assert predict.main(words) == 2
    finally:
        orthanc.stop()
