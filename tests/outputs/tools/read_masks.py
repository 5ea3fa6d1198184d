# SPDX-License-Identifier: Apache-2.0
"""Read a SEG or a NIfTI mask with tools that need their own environment; prints JSON: python read_masks.py TOOL FILE.

Run by that environment's Python (requirements-tools.txt), so it imports nothing of the bundle.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy


def with_simpleitk(path: Path) -> dict[str, Any]:
    """As SimpleITK reads an image file: DICOM by GDCM, NIfTI by ITK."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    return _described(SimpleITK.GetArrayFromImage(image), image)


def to_nifti(path: Path) -> dict[str, Any]:
    """As SimpleITK converts a file to NIfTI, which is left beside it."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    SimpleITK.WriteImage(image, f"{path}.nii.gz")
    return _described(SimpleITK.GetArrayFromImage(image), image)


def with_pydicom_seg(path: Path) -> dict[str, Any]:
    """As pydicom-seg's SegmentReader reads it, which is what MONAI Label's clients use."""
    import pydicom
    import pydicom_seg

    result = pydicom_seg.SegmentReader().read(pydicom.dcmread(path))
    return _described(result.segment_data(1), result.segment_image(1))


def with_dcmqi(path: Path) -> dict[str, Any]:
    """As dcmqi's segimage2itkimage converts it, with the metadata that it writes beside; 3D Slicer's way."""
    program = Path(sys.executable).with_name("segimage2itkimage")
    with tempfile.TemporaryDirectory() as folder:
        command = [str(program), "--inputDICOM", str(path), "--outputDirectory", folder, "-t", "nrrd"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or done.stdout.strip())
        found = with_simpleitk(next(Path(folder).glob("*.nrrd")))
        metadata = json.loads(next(Path(folder).glob("*.json")).read_text())
    return {**found, "segment": metadata["segmentAttributes"][0][0]}


def with_tid1500reader(path: Path) -> dict[str, Any]:
    """As dcmqi's tid1500reader describes a report."""
    program = Path(sys.executable).with_name("tid1500reader")
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [str(program), "--inputDICOM", str(path), "--outputMetadata", file.name]
        subprocess.run(command, capture_output=True, text=True, check=True)
        return {"report": json.loads(Path(file.name).read_text())}


def with_dcm2niix(path: Path) -> dict[str, Any]:
    """What dcm2niix makes of a file: the shape of each image that it writes."""
    program = Path(sys.executable).with_name("dcm2niix")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(program), "-s", "y", "-o", folder, str(path)], capture_output=True, text=True, check=False
        )
        images = [with_simpleitk(file) for file in sorted(Path(folder).glob("*.nii*"))]
    return {"exit_code": done.returncode, "said": done.stdout, "images": images}


def _described(pixels: Any, image: Any) -> dict[str, Any]:
    pixels = pixels.squeeze()
    return {
        "shape": list(pixels.shape),
        "lesion": numpy.argwhere(pixels).tolist() if pixels.ndim == 2 else None,
        "spacing_mm": [image.GetSpacing()[1], image.GetSpacing()[0]],
        "origin": list(image.GetOrigin()),
        "direction": list(image.GetDirection()),
    }


if __name__ == "__main__":
    readers = {
        "SimpleITK": with_simpleitk,
        "SimpleITK to NIfTI": to_nifti,
        "pydicom-seg": with_pydicom_seg,
        "dcmqi": with_dcmqi,
        "tid1500reader": with_tid1500reader,
        "dcm2niix": with_dcm2niix,
    }
    print(json.dumps(readers[sys.argv[1]](Path(sys.argv[2]))))
