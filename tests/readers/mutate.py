# SPDX-License-Identifier: Apache-2.0
"""Damage files at random: what a reader must survive. `python tests/readers/mutate.py 20000 OUT.json` records a run."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fabricate import (
    encapsulated,
    even,
    lossless_jpeg,
    put_stream,
    region,
    regions,
    save,
    save_nifti,
    segmentation,
    ultrasound,
    ybr_jpeg,
)
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from bundle.errors import InputError
from bundle.readers import count_frames, read_image, read_mask

DECODERS = ("pydicom", "pillow", "nibabel", "pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls")
LONGEST_SECONDS = 10.0
LARGEST_MB = 1000.0
_GREY = (np.add.outer(np.arange(34) * 5, np.arange(40) * 3) % 256).astype(np.uint8)


def dicom_seeds(folder: Path) -> list[bytes]:
    """Small whole files, one of each syntax and kind of pixels."""
    tissue = {"SequenceOfUltrasoundRegions": regions(region(2, 3, 30, 38))}
    datasets = [
        ultrasound(_GREY, syntax=ExplicitVRLittleEndian, **tissue),
        ultrasound(_GREY, "RGB", ImplicitVRLittleEndian, **tissue),
        ultrasound(_GREY, "MONOCHROME1", ExplicitVRBigEndian, WindowCenter=128, WindowWidth=200),
        ultrasound(_GREY, "YBR_FULL", DeflatedExplicitVRLittleEndian),
        ultrasound([_GREY, _GREY], "PALETTE COLOR", RLELossless),
        ultrasound([_GREY] * 3, "YBR_FULL_422", JPEGBaseline8Bit, **tissue),
        ultrasound(_GREY.astype(np.uint16) * 16, "MONOCHROME2", JPEG2000Lossless, BitsStored=12, HighBit=11),
        ultrasound(_GREY, "MONOCHROME2", JPEGLSLossless),
        segmentation([_GREY > 99, _GREY > 200], segments=[1, 2]),
    ]
    lossless = ultrasound(_GREY)
    lossless.file_meta.TransferSyntaxUID, lossless.PixelData = JPEGLosslessSV1, encapsulate([lossless_jpeg(_GREY)])
    lossless["PixelData"].VR = "OB"
    stream = even(ybr_jpeg(_GREY))
    cine = put_stream(
        ultrasound([_GREY] * 3), encapsulated([stream[:300], stream[300:]] * 3, [0, 0, 0]), JPEGBaseline8Bit
    )
    seeds = [save(dataset, folder / "seed.dcm").read_bytes() for dataset in [*datasets, lossless, cine]]
    for data in seeds:
        (folder / "seed.dcm").write_bytes(data)
        (read_mask if b"BINARY" in data else lambda path: read_image(path, 0))(folder / "seed.dcm")
    return seeds


def picture_seeds(folder: Path) -> list[bytes]:
    """Small whole pictures and NIfTI files."""
    seeds = []
    for suffix, mode in (("png", "L"), ("png", "P"), ("jpg", "RGB"), ("bmp", "L"), ("tif", "L"), ("tif", "I;16")):
        values = _GREY.astype(np.uint16) * 256 if mode == "I;16" else _GREY
        image = Image.fromarray(values)
        (image if mode == "I;16" else image.convert(mode)).save(folder / f"seed.{suffix}")
        seeds.append((folder / f"seed.{suffix}").read_bytes())
    for suffix in ("nii", "nii.gz"):
        seeds.append(save_nifti(_GREY, folder / f"seed.{suffix}", (0.1, 0.1)).read_bytes())
    seeds.append(save_nifti(np.stack([_GREY] * 3), folder / "seed.nii").read_bytes())  # colours or frames
    return seeds


def damage(data: bytes, dice: random.Random) -> bytes:
    """Change a file as disks, networks and people do: bits, bytes, lengths, cuts, insertions, swapped parts."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(changed)) if changed else 0
        # Half of the changes fall on the header, where a byte means more.
        if dice.random() < 0.5:
            at = min(at, dice.randrange(1, 700))
        kind = dice.randrange(7)
        if kind == 0 and changed:
            changed[at % len(changed)] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at : at + 1] = bytes([dice.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, dice.randrange(256)))])
        elif kind == 2:
            changed[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\1\0"))
        elif kind == 3:
            del changed[at : at + dice.choice((1, 2, 4, 8, 100))]
        elif kind == 4:
            changed[at:at] = dice.randbytes(dice.choice((1, 2, 4, 8, 100)))
        elif kind == 5:
            del changed[dice.randrange(1, max(2, len(changed))) :]
        else:
            other = dice.randrange(len(changed) + 1)
            changed[at : at + 16] = changed[other : other + 16]
    return bytes(changed)


def attack(seeds: list[bytes], count: int, folder: Path, start: int = 0) -> dict[str, Any]:
    """Read so many damaged files with every entry of the readers; a break of a promise raises.

    Returns:
        how many were read and refused, the slowest in seconds of processor time, the peak memory of the process in MB.

    Raises:
        AssertionError: anything but an `InputError` came out, or a file took longer than the limit.
    """
    entries: list[Callable[[Path], Any]] = [lambda path: read_image(path, 0), read_image, read_mask, count_frames]
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    path = folder / "damaged"
    for number in range(start, start + count):
        dice = random.Random(number)
        path.write_bytes(damage(seeds[number % len(seeds)], dice))
        entry = entries[0] if dice.random() < 0.7 else dice.choice(entries[1:])
        began = time.process_time()  # of this process: the machine may be busy with others
        try:
            entry(path)
            outcomes["read"] += 1
        except InputError as error:
            if "\n" in str(error) or not error.mend or str(path) not in str(error):
                raise AssertionError(f"file {number}: a poor message: {error!r}") from error
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"file {number}: {type(error).__name__}: {error}") from error
        slowest = max(slowest, time.process_time() - began)
        if slowest > LONGEST_SECONDS:
            raise AssertionError(f"file {number}: took {slowest:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"files": count, **outcomes, "slowest_cpu_seconds": round(slowest, 3), "peak_memory_mb": round(peak)}


def main(argv: list[str]) -> int:
    """Attack with DICOM and with pictures and NIfTI, and write what came out with the run's provenance."""
    import tempfile

    from bundle.files import write_json
    from bundle.provenance import describe_run

    count, target = int(argv[0]), Path(argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        result = {
            "dicom": attack(dicom_seeds(folder), count, folder),
            "pictures_and_nifti": attack(picture_seeds(folder), count // 4, folder),
        }
        seconds = round(time.perf_counter() - began)
    decoders = {name: version(name) for name in DECODERS}
    write_json(target, {"run": describe_run(), "decoders": decoders, "seconds": seconds, **result})
    print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
