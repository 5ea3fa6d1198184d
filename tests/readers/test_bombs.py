# SPDX-License-Identifier: Apache-2.0
"""Claims about files that are small and claim to be large: refused soon, before memory is taken for them."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fabricate import save, ultrasound
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

GREY = np.zeros((40, 60), np.uint8)
_LARGEST_MB, _LONGEST_SECONDS = 300, 2.0  # of CPU; inflating all takes several

_MEASURE = """
import json, resource, sys, time
from bundle.errors import InputError
from bundle.readers import read_image
import pydicom.filereader, pydicom.pixels, nibabel, PIL.Image  # else their import would be measured
results = []
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    try:
        read_image(path, 0)
        reason = None
    except InputError as error:
        reason = error.reason
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    results.append({"reason": reason, "seconds": seconds, "mb": grown})
print(json.dumps(results))
"""


def _png(folder: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    packer, rows = zlib.compressobj(1), []
    for _ in range(13_000):
        rows.append(packer.compress(bytes(13_001)))
    data = b"".join(rows) + packer.flush()
    path = folder / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def _deflated(folder: Path, lying_length: bool = False) -> Path:
    """1 MB of deflated zeros that would be 1 GB."""
    start = bytearray(save(ultrasound(GREY, syntax=DeflatedExplicitVRLittleEndian), folder / "a.dcm").read_bytes())
    end = 144 + int.from_bytes(start[140:144], "little")
    data = _zeros(1000)
    if lying_length:
        start[140:144] = (8).to_bytes(4, "little")
    path = folder / f"deflated{lying_length}.dcm"
    path.write_bytes(bytes(start[:end]) + data)
    return path


def _nifti(folder: Path, shape: tuple[int, ...], inflated: int) -> Path:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1\0", 352
    path = folder / f"bomb{len(shape)}_{shape[0]}.nii.gz"
    start = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = start.compress(header.binaryblock + bytes(4 + 60 * 40)) + start.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(gzip.compress(b"")[:10] + head + _zeros(inflated >> 20))
    return path


def _zeros(megabytes: int) -> bytes:
    """A raw deflate stream of zeros, made by repeating what stands for one megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * megabytes + packer.flush()


def _runs(folder: Path) -> Path:
    """RLE of 40×60 pixels that unpacks to 128 MB: two bytes stand for 128."""
    segment = b"\x81\x00" * 4_000
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + segment
    dataset = ultrasound(np.zeros((16, 16), np.uint8))
    dataset.file_meta.TransferSyntaxUID, dataset.PixelData = RLELossless, encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return save(dataset, folder / "runs.dcm")


def _jpeg(folder: Path) -> Path:
    """A stream of 60000×60000 pixels under a header of 40×60."""
    dataset = ultrasound(GREY, syntax=JPEGBaseline8Bit)
    at = dataset.PixelData.index(b"\xff\xc0") + 5
    dataset.PixelData = dataset.PixelData[:at] + struct.pack(">HH", 60_000, 60_000) + dataset.PixelData[at + 4 :]
    return save(dataset, folder / "jpeg.dcm")


def _palette(folder: Path) -> Path:
    """A segmented palette of 60 KB that unpacks to hundreds of millions of entries."""
    dataset = ultrasound(GREY, "PALETTE COLOR")
    segments = struct.pack("<3H", 0, 1, 7) + struct.pack("<3H", 1, 65_535, 9) * 10_000
    for colour in ("Red", "Green", "Blue"):
        delattr(dataset, f"{colour}PaletteColorLookupTableData")
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", segments)
    return save(dataset, folder / "palette.dcm")


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bombs")
    lies = {"Rows": 65_535, "Columns": 65_535, "NumberOfFrames": 2_000_000_000}
    return {
        "more than the limit of 25 Mpx": _png(folder),
        "inflates to more than the limit": _deflated(folder),
        "not of the length that it says": _deflated(folder, lying_length=True),
        "more than the limit of 25": save(ultrasound(GREY, **lies), folder / "lies.dcm"),
        "header claims 24000000": save(ultrasound(GREY, Rows=4_000, Columns=6_000), folder / "more.dcm"),
        "frames, more than": save(ultrasound(GREY, NumberOfFrames=2_000_000_000), folder / "frames.dcm"),
        "the limit is 400 MB": _nifti(folder, (5_000, 5_000, 1_000), 0),
        "unpacks to more than": _runs(folder),
        "states 60000×60000": _jpeg(folder),
        "palette unpacks to": _palette(folder),
    }


def test_small_files_that_claim_to_be_large_are_refused_soon_and_cheaply(bombs: dict[str, Path], root: Path) -> None:
    assert max(path.stat().st_size for path in bombs.values()) < 2_000_000
    command = [sys.executable, "-c", _MEASURE, *map(str, bombs.values())]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=120)
    for expected, found in zip(bombs, json.loads(result.stdout), strict=True):
        assert found["reason"] is not None, expected
        assert expected in found["reason"]
        assert found["seconds"] < _LONGEST_SECONDS, expected
        assert found["mb"] < _LARGEST_MB, expected


def test_what_follows_a_small_image_in_an_archive_is_never_inflated(tmp_path: Path, root: Path) -> None:
    path = _nifti(tmp_path, (60, 40), 1 << 30)
    command = [sys.executable, "-c", _MEASURE, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=120)
    (found,) = json.loads(result.stdout)
    assert found["reason"] is None
    assert found["seconds"] < _LONGEST_SECONDS
    assert found["mb"] < 50
