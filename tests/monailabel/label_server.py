# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server as a client sees it, and the file of a scanner."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

EXTENSIONS = ["*.png", "*.jpg", "*.nii.gz", "*.dcm"]
START_SECONDS, TASK_SECONDS = 180.0, 300.0


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


def write_dicom(
    pixels: np.ndarray, path: Path, spacing: tuple[float, float] = (0.1, 0.2), series: str | None = None
) -> None:
    """Write a single-frame ultrasound image (H, W) uint8 as scanners do; no patient is in it."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UltrasoundImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[series]) if series else generate_uid()
    dataset.SeriesInstanceUID = series or generate_uid()
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


def write_segmentation(mask: np.ndarray, source: Path, path: Path, kind: str, name: str = "somebody") -> None:
    """Write a mask (H, W) bool as a BINARY SEG of an image, by an algorithm of a kind, such as MANUAL."""
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    dataset = pydicom.dcmread(source)
    image, series = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = dataset.SeriesInstanceUID, [image]
    derivation, number, frame, segment = Dataset(), Dataset(), Dataset(), Dataset()
    derivation.SourceImageSequence, number.ReferencedSegmentNumber = [image], 1
    frame.DerivationImageSequence, frame.SegmentIdentificationSequence = [derivation], [number]
    segment.SegmentNumber, segment.SegmentLabel = 1, "Lesion"
    segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = kind, name
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SegmentationType = generate_uid(), "SEG", "BINARY"
    dataset.ReferencedSeriesSequence, dataset.PerFrameFunctionalGroupsSequence = [series], [frame]
    dataset.SegmentSequence, dataset.NumberOfFrames = [segment], 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    bits = np.packbits(mask.ravel(), bitorder="little").tobytes()
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    pydicom.dcmwrite(path, dataset, write_like_original=False)
