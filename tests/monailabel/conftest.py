# SPDX-License-Identifier: Apache-2.0
"""Real MONAI Label servers on the loopback interface, each with its own copy of the bundle and its own studies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STOCK_MODEL = "breast_ultrasound_segmentation_classification"
EXTENSIONS = ["*.png", "*.jpg", "*.nii.gz", "*.dcm"]
START_SECONDS, TASK_SECONDS = 120.0, 240.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs MONAI Label's own environment."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.monailabel)


class Server:
    """A server in a process group of its own, so that trainings end with it.

    Args:
        app: folder of the app.
        studies: folder of images, or address of a DICOMweb server.
        folder: gets ``server.log``.
        conf: name and value pairs.
        environment: further variables.
    """

    def __init__(self, app: Path, studies: object, folder: Path, conf: dict[str, str], **environment: str) -> None:
        import requests

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = [word for pair in conf.items() for word in ("--conf", *pair)]
        command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
        command += ["--host", "127.0.0.1", "--port", port, *words]
        paths = [] if _torchvision_fits() else [str(Path(__file__).parent / "shim")]
        self.log, self.session = folder / "server.log", requests.Session()
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
            "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(EXTENSIONS),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, **settings, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        import requests

        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.session.get(f"{self.url}/info/", timeout=10).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.3)
        self.stop()
        raise AssertionError(f"the server did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """End the server and what it started; a training survives its server's own end."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def call(self, method: str, path: str, status: int = 200, **arguments: Any) -> Any:
        """Send a request; return the response, whose status must be the expected one."""
        response = self.session.request(method, self.url + path, timeout=TASK_SECONDS, **arguments)
        assert response.status_code == status, f"{path}: {response.text[:500]}\n{self.log.read_text()[-2000:]}"
        return response

    def mask(self, model: str, image: str, folder: Path, extension: str | None = None) -> Path:
        """Ask for a mask and save it as a client does, under the name that the server gives."""
        params = {"result_extension": extension, "result_dtype": "uint8"} if extension else {}
        path = f"/infer/{model}?output=image"
        response = self.call("POST", path, params={"image": image}, data={"params": json.dumps(params)})
        name = response.headers["content-disposition"].split("filename=")[-1].strip('"')
        file = folder / name
        file.write_bytes(response.content)
        return file

    def train(self, model: str, **params: Any) -> dict[str, Any]:
        """Train in the background and wait for the end; return the task."""
        self.call("POST", f"/train/{model}", json=params)
        deadline = time.monotonic() + TASK_SECONDS
        while time.monotonic() < deadline:
            task = self.call("GET", "/train/").json()
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                return task
            time.sleep(0.5)
        raise AssertionError(f"the training did not end:\n{self.log.read_text()[-3000:]}")


@cache
def _torchvision_fits() -> bool:
    """Whether torchvision's build is one for this torch; MONAI Label imports it."""
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture(scope="session")
def copy_bundle() -> Callable[[Path], Path]:
    """Copy what the bundle needs to run: trainings publish into it."""

    def copy(folder: Path) -> Path:
        for name in ("bundle", "configs", "models", "scripts"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "versions", "logs")
            )
        return folder

    return copy


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic images that are wider than high, and their masks."""
    from bundle.data.phantom import make_phantom

    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, counts={"benign": 5, "malignant": 5}, size_range=((80, 100), (130, 160)))
    return folder


@pytest.fixture
def mask_of(phantom: Path) -> Callable[[str], Path]:
    """Name the true mask of an image of the studies, ``benign1`` or ``malignant3``."""
    return lambda image: phantom / image[:-1] / f"{image[:-1]} ({image[-1]})_mask.png"


@pytest.fixture(scope="session")
def make_studies(phantom: Path) -> Callable[[Path], Path]:
    """Fill a folder with PNG images, and with one JPEG, NIfTI and single-frame DICOM file each."""

    def make(folder: Path) -> Path:
        import nibabel

        folder.mkdir(parents=True)
        for label in ("benign", "malignant"):
            for number in range(1, 5):
                shutil.copy(phantom / label / f"{label} ({number}).png", folder / f"{label}{number}.png")
        picture = Image.open(phantom / "benign" / "benign (5).png")
        picture.save(folder / "photo.jpg", quality=95)
        pixels = np.asarray(picture)
        turned = np.array([[0.0, -0.2, 0, 3], [-0.1, 0, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]])
        nibabel.save(nibabel.Nifti1Image(pixels.T[..., None], turned), folder / "volume.nii.gz")
        write_dicom(pixels, folder / "frame.dcm")
        return folder

    return make


def write_dicom(pixels: np.ndarray, path: Path, spacing: tuple[float, float] = (0.1, 0.2)) -> None:
    """Write a single-frame ultrasound image (H, W) uint8 as scanners do; no patient is in it."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UltrasoundImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Phantom", "phantom", "US"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.AccessionNumber = dataset.StudyID = dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelSpacing = list(spacing)
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    dataset["PixelData"].VR = "OB"
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    pydicom.dcmwrite(path, dataset, write_like_original=False)


@pytest.fixture(scope="module")
def own(
    tmp_path_factory: pytest.TempPathFactory,
    copy_bundle: Callable[[Path], Path],
    make_studies: Callable[[Path], Path],
) -> Iterator[tuple[Server, Path, Path]]:
    """The bundle's own app: server, root of the copied bundle, studies."""
    pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-monailabel")
    folder = tmp_path_factory.mktemp("own")
    root, studies = copy_bundle(folder / "bundle"), make_studies(folder / "studies")
    server = Server(root / "scripts" / "monailabel_app", studies, folder, {})
    yield server, root, studies
    server.stop()


@pytest.fixture(scope="module")
def stock(
    tmp_path_factory: pytest.TempPathFactory,
    copy_bundle: Callable[[Path], Path],
    make_studies: Callable[[Path], Path],
) -> Iterator[tuple[Server, Path, Path]]:
    """MONAI Label's own app `monaibundle` with the bundle in its model folder: server, root of the bundle, studies."""
    pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-monailabel")
    folder = tmp_path_factory.mktemp("stock")
    # What `monailabel apps --download` does.
    shutil.copytree(Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle", folder / "monaibundle")
    root, studies = copy_bundle(folder / "bundle"), make_studies(folder / "studies")
    (folder / "monaibundle" / "model").mkdir(exist_ok=True)
    (folder / "monaibundle" / "model" / STOCK_MODEL).symlink_to(root)
    conf = {"models": STOCK_MODEL, "zoo_source": "local", "sam2": "false"}
    conf |= {"epistemic_model": STOCK_MODEL, "epistemic_simulation_size": "2", "epistemic_max_samples": "2"}
    server = Server(folder / "monaibundle", studies, folder, conf)
    yield server, root, studies
    server.stop()
