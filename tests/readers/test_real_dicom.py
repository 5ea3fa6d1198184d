# SPDX-License-Identifier: Apache-2.0
"""Claims about files that others made: pydicom's own, and, where DICOM_DIR names a folder, real ultrasound."""

from __future__ import annotations

import copy
import csv
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from bundle.readers import count_frames, read_image

US_CLASSES = ("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1")


def _pydicom_files() -> list[Path]:
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", _pydicom_files(), ids=lambda path: path.name)
def test_pydicoms_own_files_are_read_if_they_are_ultrasound_and_refused_by_name_if_not(path: Path) -> None:
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        is_ultrasound = header.get("Modality") == "US" and header.get("SOPClassUID") in US_CLASSES
    except Exception:
        is_ultrasound = False
    if not is_ultrasound:
        with pytest.raises(InputError) as caught:
            read_image(path, 0)
        assert path.name in str(caught.value)
        assert caught.value.mend
        return
    image = read_image(path, 0)
    np.testing.assert_allclose(image.pixels, _grey_by_hand(path, 0), atol=1.01)


@lru_cache(maxsize=1)
def _decode_all(path: Path) -> tuple[Any, np.ndarray]:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        return dataset, dataset.pixel_array


def _grey_by_hand(path: Path, frame: int) -> np.ndarray:
    """The luma of one frame by pydicom's whole-file way, which our reader does not take."""
    from pydicom.pixels import apply_color_lut

    dataset, values = _decode_all(path)
    values = values[frame] if int(dataset.get("NumberOfFrames") or 1) > 1 else values
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        dataset = copy.deepcopy(dataset)
        if not dataset.original_encoding[1] and "RedPaletteColorLookupTableData" in dataset:
            for colour in ("Red", "Green", "Blue"):
                element = dataset[f"{colour}PaletteColorLookupTableData"]
                element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()
        values = apply_color_lut(values, dataset) // 256
    if values.ndim == 2:
        window = dataset.get("WindowWidth")
        if window is None:
            return values.astype(float)
        centre = float(dataset.WindowCenter) - 0.5
        return np.clip((values - centre) / (float(window) - 1) + 0.5, 0, 1) * 255
    return values.astype(float) @ (0.299, 0.587, 0.114)


def _real_files() -> list[dict[str, str]]:
    folder = os.environ.get("DICOM_DIR")
    if not folder or not (Path(folder) / "index.csv").is_file():
        return []
    with open(Path(folder) / "index.csv", newline="", encoding="utf-8") as file:
        return [{**row, "path": str(Path(folder) / row["file"])} for row in csv.DictReader(file)]


@pytest.mark.parametrize("row", _real_files() or [None], ids=lambda row: row["file"] if row else "none")
def test_real_ultrasound_is_read_as_its_index_says_or_refused_by_name(row: dict[str, str] | None) -> None:
    if row is None:
        pytest.skip("DICOM_DIR names no folder with an index.csv of real ultrasound files")
    path, frames = Path(row["path"]), int(row["frames"])
    if not row["pydicom_decode"].startswith("ok"):
        with pytest.raises(InputError, match=rf"{path.name}: its transfer syntax .* is not read; convert it"):
            read_image(path, 0)
        return
    assert count_frames(path) == frames
    for frame in {0, frames - 1}:
        image = read_image(path, frame)
        assert image.pixels.shape == (int(row["rows"]), int(row["cols"]))
        assert image.frames == frames
        np.testing.assert_allclose(image.pixels, _grey_by_hand(path, frame), atol=1.01)
        if image.region:
            assert image.tissue.any()


def test_the_same_image_in_two_encodings_reads_alike() -> None:
    files = {row["file"]: row["path"] for row in _real_files()}
    pairs = [
        ("OBXXXX1A.dcm", "OBXXXX1A_rle.dcm"),
        ("OBXXXX1A_2frame.dcm", "OBXXXX1A_rle_2frame.dcm"),
        ("color-pl.dcm", "color-px.dcm"),
    ]
    pairs = [pair for pair in pairs if set(pair) <= files.keys()]
    if not pairs:
        pytest.skip("DICOM_DIR names no folder with these files")
    for one, other in pairs:
        np.testing.assert_array_equal(read_image(files[one], 0).pixels, read_image(files[other], 0).pixels)


def test_a_real_jpeg_frame_is_what_pillow_makes_of_it() -> None:
    """An independent way: the frame cut out of the file by its markers, decoded by Pillow alone."""
    files = {row["file"]: row["path"] for row in _real_files()}
    if "DIRW0007.dcm" not in files:
        pytest.skip("DICOM_DIR names no folder with DIRW0007.dcm")
    import io

    data = Path(files["DIRW0007.dcm"]).read_bytes()
    start = data.index(b"\xff\xd8\xff", data.index(b"\xe0\x7f\x10\x00"))
    picture = Image.open(io.BytesIO(data[start : data.index(b"\xff\xd9", start) + 2])).convert("RGB").convert("L")
    difference = np.abs(read_image(files["DIRW0007.dcm"], 0).pixels - np.asarray(picture))
    assert difference.mean() < 0.5
    assert difference.max() <= 4
