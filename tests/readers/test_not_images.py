# SPDX-License-Identifier: Apache-2.0
"""Claims about files that lie among images and are none: told apart from damaged ones, so that they can be counted."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fabricate import save, segmentation, speckle, ultrasound
from pydicom.dataset import Dataset

from bundle.errors import InputError, NotAnImageError
from bundle.readers import count_frames, read_image
from bundle.readers.dicom import MANUFACTURER, read_header

GREY = speckle()


def _without_pixels(kind: str, modality: str) -> Dataset:
    dataset = ultrasound(GREY, SOPClassUID=kind, Modality=modality)
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "PixelData"):
        delattr(dataset, keyword)
    return dataset


OBJECTS = {
    "DICOM segmentations": lambda: segmentation([GREY > 99]),
    "DICOM structured reports": lambda: _without_pixels("1.2.840.10008.5.1.4.1.1.88.33", "SR"),
    "DICOM presentation states": lambda: _without_pixels("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
    "documents in DICOM": lambda: _without_pixels("1.2.840.10008.5.1.4.1.1.104.1", "DOC"),
    "DICOM directories": lambda: _without_pixels("1.2.840.10008.1.3.10", "US"),
    "pictures of ours": lambda: ultrasound(
        np.repeat(GREY[..., None], 3, axis=2),
        "RGB",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        Modality="OT",
        Manufacturer=MANUFACTURER,
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_other_objects_of_a_study_are_no_images_and_no_damage(tmp_path: Path, kind: str) -> None:
    make: Callable[[], Dataset] = OBJECTS[kind]
    path = save(make(), tmp_path / "a.dcm")
    for read in (read_image, count_frames, read_header):
        with pytest.raises(NotAnImageError, match=r"a\.dcm: is ") as caught:
            read(path)
        assert caught.value.kind == kind
        assert pickle.loads(pickle.dumps(caught.value)).kind == kind  # noqa: S301, our own


def test_a_side_file_of_macos_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "._scan.png"
    path.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(200))
    for read in (read_image, count_frames):
        with pytest.raises(NotAnImageError, match="side file of macOS") as caught:
            read(path)
        assert caught.value.kind == "side files of macOS"


def test_a_picture_whose_name_begins_so_is_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(GREY).save(tmp_path / "._scan.png")
    np.testing.assert_array_equal(read_image(tmp_path / "._scan.png").pixels, GREY)


def test_other_modalities_and_damaged_files_are_still_errors(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    for path in (save(ultrasound(GREY, Modality="CT"), tmp_path / "ct.dcm"), tmp_path / "a.png"):
        with pytest.raises(InputError) as caught:
            read_image(path)
        assert not isinstance(caught.value, NotAnImageError)
