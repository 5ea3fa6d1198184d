# SPDX-License-Identifier: Apache-2.0
"""One picture, stored as hospitals and converters store it: right, odd or wrong, and what may come out of it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from fabricate import (
    PLACED,
    US_MULTI_FRAME,
    encapsulated,
    even,
    lossless_jpeg,
    put_stream,
    region,
    regions,
    rgb_jpeg,
    save,
    save_nifti,
    ultrasound,
    without_jfif,
    ybr_jpeg,
)
from PIL import Image
from pydicom.encaps import encapsulate_extended
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)


@dataclass(frozen=True)
class Container:
    """A way to store a picture.

    Args:
        write: writes the grey picture (H, W) uint8 below a folder, with what chance it wants; returns what to read,
            which may name a frame.
        atol: grey levels by which the tissue may differ.
        is_lossy: compressed with losses.
    """

    write: Callable[[np.ndarray, Path, random.Random], str | Path]
    atol: float = 0.0
    is_lossy: bool = False


def rgb(grey: np.ndarray) -> np.ndarray:
    """The picture in three equal channels."""
    return np.repeat(grey[..., None], 3, axis=2)


def _picture(name: str, change: Callable[[np.ndarray], np.ndarray], **options: Any) -> Callable[..., Path]:
    def write(grey: np.ndarray, folder: Path, dice: random.Random) -> Path:
        Image.fromarray(change(grey)).save(folder / name, **options)
        return folder / name

    return write


def _dicom(make: Callable[[np.ndarray, random.Random], Any]) -> Callable[..., str | Path]:
    def write(grey: np.ndarray, folder: Path, dice: random.Random) -> str | Path:
        made = make(grey, dice)
        dataset, frame = made if isinstance(made, tuple) else (made, None)
        path = save(dataset, folder / "a.dcm")
        return path if frame is None else f"{path}[{frame}]"

    return write


def _turned(grey: np.ndarray, folder: Path, dice: random.Random) -> Path:
    """A photograph's orientation: the picture lies on its side, and the EXIF block says so."""
    number, turns = dice.choice([(3, 2), (6, 1), (8, 3)])
    exif = Image.Exif()
    exif[0x0112] = number
    Image.fromarray(np.ascontiguousarray(np.rot90(grey, turns))).save(folder / "turned.png", exif=exif)
    return folder / "turned.png"


def _palette_png(grey: np.ndarray, folder: Path, dice: random.Random) -> Path:
    order = list(range(256))
    dice.shuffle(order)
    indices = np.argsort(order).astype(np.uint8)[grey]
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette([level for level in order for _ in range(3)])
    picture.save(folder / "palette.png")
    return folder / "palette.png"


def _affine(grey: np.ndarray, folder: Path, dice: random.Random) -> Path:
    """Any signs and codes: a frame of a hand-held probe has no orientation in the patient."""
    step = dice.uniform(0.05, 0.2)
    affine = np.diag([dice.choice((-1, 1)) * step, dice.choice((-1, 1)) * step, 1.0, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(grey.T[..., None]), affine)
    image.set_qform(affine, dice.choice((0, 1)))
    nibabel.save(image, folder / "affine.nii.gz")
    return folder / "affine.nii.gz"


def _nifti(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Path]:
    """Pictures (H, W) become columns first; other axes stay as they are."""

    def write(grey: np.ndarray, folder: Path, dice: random.Random) -> Path:
        stored = np.ascontiguousarray(change(grey.T))
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), folder / "a.nii.gz")
        return folder / "a.nii.gz"

    return write


def _overshoot(grey: np.ndarray) -> np.ndarray:
    values = grey.astype(np.float32)
    values[grey >= 254] = 255.4
    return values


def _by_simpleitk(make: Callable[[np.ndarray], Any]) -> Callable[..., Path]:
    def write(grey: np.ndarray, folder: Path, dice: random.Random) -> Path:
        image = SimpleITK.ReadImage(str(save(make(grey), folder / "a.dcm")))
        SimpleITK.WriteImage(image, str(folder / "itk.nii.gz"))
        return folder / "itk.nii.gz"

    return write


def _by_dcm2niix(make: Callable[[np.ndarray], Any]) -> Callable[..., Path]:
    def write(grey: np.ndarray, folder: Path, dice: random.Random) -> Path:
        save(make(grey), folder / "dicom" / "a.dcm")
        tool = Path(sys.executable).with_name("dcm2niix")
        words = [str(tool), "-b", "n", "-z", "y", "-f", "d2n", "-o", str(folder), str(folder / "dicom")]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
        return next(folder.glob("d2n*.nii.gz"))

    return write


def _framed(grey: np.ndarray, dice: random.Random) -> tuple[np.ndarray, Any]:
    """The picture in a frame with text-like noise beside it, and its region."""
    top, left, bottom, right = (dice.randrange(4, 60) for _ in range(4))
    rows, columns = grey.shape
    frame = np.zeros((rows + top + bottom, columns + left + right), np.uint8)
    frame[::7, ::3] = 255
    frame[top : top + rows, left : left + columns] = grey
    step = dice.uniform(0.05, 0.2)
    return frame, regions(region(top, left, top + rows, left + columns, (step, step)))


def _region(photometric: str) -> Callable[..., Any]:
    def make(grey: np.ndarray, dice: random.Random) -> Any:
        frame, items = _framed(grey, dice)
        return ultrasound(frame, photometric, SequenceOfUltrasoundRegions=items)

    return make


def _others(grey: np.ndarray, dice: random.Random) -> tuple[list[np.ndarray], int]:
    """A cine with the picture at one place of it."""
    frames = [np.roll(grey, 11 * number, axis=1)[::-1].copy() for number in range(dice.randrange(2, 5))]
    place = dice.randrange(len(frames) + 1)
    frames.insert(place, grey)
    return frames, place


def _cine(syntax: str | None = None, **elements: Any) -> Callable[..., Any]:
    def make(grey: np.ndarray, dice: random.Random) -> Any:
        frames, place = _others(grey, dice)
        return ultrasound(frames, **({"syntax": syntax} if syntax else {}), **elements), place

    return make


def _jpeg_cine(table: Callable[[list[int]], list[int]], parts: int = 1) -> Callable[..., Any]:
    def make(grey: np.ndarray, dice: random.Random) -> Any:
        frames, place = _others(grey, dice)
        streams = [even(ybr_jpeg(frame)) for frame in frames]
        offsets = [sum(8 + len(stream) for stream in streams[:number]) for number in range(len(streams))]
        items = streams
        if parts > 1:
            items = [part for stream in streams for part in (stream[:600], stream[600:])]
        return put_stream(ultrasound(frames), encapsulated(items, table(offsets)), JPEGBaseline8Bit), place

    return make


def _extended_table(grey: np.ndarray, dice: random.Random) -> Any:
    """Right, or of zeros."""
    frames, place = _others(grey, dice)
    data, offsets, lengths = encapsulate_extended([even(ybr_jpeg(frame)) for frame in frames])
    table = dice.choice((offsets, bytes(len(offsets))))
    dataset = ultrasound(frames, ExtendedOffsetTable=table, ExtendedOffsetTableLengths=lengths)
    return put_stream(dataset, data, JPEGBaseline8Bit), place


def _cut_cine(grey: np.ndarray, folder: Path, dice: random.Random) -> str:
    """A cine whose file ends inside its last frame, compressed or not."""
    frames = [grey, grey[::-1].copy(), grey[:, ::-1].copy()]
    syntax = dice.choice([None, RLELossless, JPEGLSLossless])
    dataset = ultrasound(frames, **({"syntax": syntax} if syntax else {}))
    path = save(dataset, folder / "cut.dcm")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 2000])
    return f"{path}[0]"


def _stream(
    make: Callable[[np.ndarray], bytes], photometric: str, syntax: str = JPEGBaseline8Bit
) -> Callable[..., Any]:
    def build(grey: np.ndarray, dice: random.Random) -> Any:
        dataset = ultrasound(rgb(grey), "RGB")
        dataset.PhotometricInterpretation = photometric
        return put_stream(dataset, encapsulated([even(make(rgb(grey)))]), syntax)

    return build


def _mislabelled(stored: str, said: str) -> Callable[..., Any]:
    def make(grey: np.ndarray, dice: random.Random) -> Any:
        pixels = rgb(grey) if stored == "RGB" else convert_color_space(rgb(grey), "RGB", "YBR_FULL")
        dataset = ultrasound(pixels, "RGB")
        dataset.PhotometricInterpretation = said
        return dataset

    return make


def _wrong_planes(grey: np.ndarray, dice: random.Random) -> Any:
    dataset = ultrasound(rgb(grey), "RGB")
    if dice.random() < 0.5:
        dataset.PlanarConfiguration = 1
    else:
        dataset.PixelData = np.ascontiguousarray(np.moveaxis(rgb(grey), -1, 0)).tobytes()
    return dataset


def _falling_palette(grey: np.ndarray, dice: random.Random) -> Any:
    falling = (np.arange(255, -1, -1, dtype="<u2") * 257).tobytes()
    tables = {f"{colour}PaletteColorLookupTableData": falling for colour in ("Red", "Green", "Blue")}
    return ultrasound(255 - grey, "PALETTE COLOR", **tables)


def _shallow_palette(grey: np.ndarray, dice: random.Random) -> Any:
    table = (np.arange(256, dtype="<u2") * 16).tobytes()
    tables = {f"{colour}PaletteColorLookupTableData": table for colour in ("Red", "Green", "Blue")}
    return ultrasound(grey, "PALETTE COLOR", **tables)


def _wide_colour(grey: np.ndarray, dice: random.Random) -> Any:
    return ultrasound(
        rgb(grey).astype(np.uint16), "RGB", BitsStored=8, HighBit=7, PlanarConfiguration=dice.choice((0, 1))
    )


def _unsigned_by_header(grey: np.ndarray, dice: random.Random) -> Any:
    bits = dice.choice((10, 12, 14))
    signed = (grey.astype(int) - 128) * 2 ** (bits - 8)
    return ultrasound((signed % 2**bits).astype(np.uint16), BitsStored=bits, HighBit=bits - 1)


def _padded(grey: np.ndarray, dice: random.Random) -> Any:
    """The region of a frame whose rest is padding."""
    frame, items = _framed(grey, dice)
    item = items[0]
    top, left = int(item.RegionLocationMinY0), int(item.RegionLocationMinX0)
    padding, kind = dice.choice(((65535, np.uint16), (-32768, np.int16)))
    deep = np.full(frame.shape, padding, kind)
    deep[top : top + grey.shape[0], left : left + grey.shape[1]] = grey.astype(kind) * 16
    elements = {"PixelPaddingValue": padding, "PixelRepresentation": int(padding < 0)}
    return ultrasound(deep, SequenceOfUltrasoundRegions=items, **elements)


def _windowed(grey: np.ndarray, dice: random.Random) -> Any:
    bits = dice.choice((10, 12, 14))
    deep = grey.astype(np.uint16) * 2 ** (bits - 8)
    white = 255 * 2 ** (bits - 8)
    elements = {"BitsStored": bits, "HighBit": bits - 1, "WindowCenter": white / 2 + 0.5, "WindowWidth": white + 1}
    return ultrasound(deep, **elements)


def _deep(bits: int, stored: int, kind: Any = np.uint16, **elements: Any) -> Callable[..., Any]:
    def make(grey: np.ndarray, dice: random.Random) -> Any:
        deep = grey.astype(kind) * 2 ** (bits - 8)
        return ultrasound(deep, BitsStored=stored, HighBit=stored - 1, **elements)

    return make


def _no_window(grey: np.ndarray, dice: random.Random) -> Any:
    return ultrasound(grey, WindowCenter=dice.choice((0, 128, 40)), WindowWidth=dice.choice((0, 1)))


def _uncounted(grey: np.ndarray, dice: random.Random) -> Any:
    frames, place = _others(grey, dice)
    dataset = ultrasound(frames)
    if dice.random() < 0.5:
        del dataset.NumberOfFrames
    else:
        dataset.NumberOfFrames = 0
    return dataset, place


def _tiff_page(grey: np.ndarray, folder: Path, dice: random.Random) -> str:
    frames, place = _others(grey, dice)
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(folder / "pages.tif", save_all=True, append_images=others)
    return f"{folder / 'pages.tif'}[{place}]"


def _nifti_stack(grey: np.ndarray, folder: Path, dice: random.Random) -> str:
    frames, place = _others(grey, dice)
    return f"{save_nifti(np.stack(frames), folder / 'stack.nii.gz')}[{place}]"


CONTAINERS: dict[str, Container] = {
    "bmp": Container(_picture("a.bmp", lambda grey: grey)),
    "tiff": Container(_picture("a.tif", lambda grey: grey)),
    "rgba png": Container(_picture("a.png", lambda grey: np.dstack([rgb(grey), grey]))),
    "palette png": Container(_palette_png),
    "turned by exif": Container(_turned),
    "jpeg": Container(_picture("a.jpg", rgb, quality=95), 40, True),
    "16-bit png": Container(_picture("a.png", lambda grey: grey.astype(np.uint16) * 257), 0.01),
    "12 bits in a 16-bit png": Container(_picture("a.png", lambda grey: grey.astype(np.uint16) * 16), 1.0),
    "8 bits in a 16-bit png": Container(_picture("a.png", lambda grey: grey.astype(np.uint16))),
    "10 bits in a 16-bit tiff": Container(_picture("a.tif", lambda grey: grey.astype(np.uint16) * 4), 1.0),
    "float tiff with an overshoot": Container(_picture("a.tif", _overshoot), 1.0),
    "fractions in a float tiff": Container(_picture("a.tif", lambda grey: grey.astype(np.float32) / 255), 0.01),
    "page of a tiff": Container(_tiff_page),
    "nifti, any affine": Container(_affine),
    "nifti, float with an overshoot": Container(_nifti(_overshoot), 1.0),
    "nifti, 12 bits": Container(_nifti(lambda grey: grey.astype(np.int16) * 16), 1.0),
    "nifti, colours last": Container(_nifti(lambda grey: np.repeat(grey[..., None], 3, axis=2))),
    "nifti, leading axis": Container(_nifti(lambda grey: grey[None])),
    "nifti, slice of a stack": Container(_nifti_stack),
    "simpleitk of grey": Container(_by_simpleitk(ultrasound)),
    "simpleitk of colour": Container(_by_simpleitk(lambda grey: ultrasound(grey, "RGB"))),
    "simpleitk of a palette": Container(_by_simpleitk(lambda grey: ultrasound(grey, "PALETTE COLOR")), 1.0),
    "dcm2niix of grey": Container(_by_dcm2niix(ultrasound)),
    "dcm2niix of a placed picture": Container(_by_dcm2niix(lambda grey: ultrasound(grey, **PLACED))),
    "dcm2niix of colour": Container(_by_dcm2niix(lambda grey: ultrasound(grey, "RGB"))),
    "dicom, implicit": Container(_dicom(lambda grey, dice: ultrasound(grey, "RGB", ImplicitVRLittleEndian))),
    "dicom, big endian": Container(_dicom(lambda grey, dice: ultrasound(grey, "RGB", ExplicitVRBigEndian))),
    "dicom, deflated": Container(_dicom(lambda grey, dice: ultrasound(grey, syntax=DeflatedExplicitVRLittleEndian))),
    "dicom, monochrome1": Container(_dicom(lambda grey, dice: ultrasound(grey, "MONOCHROME1"))),
    "dicom, rle ybr": Container(
        _dicom(
            lambda grey, dice: ultrasound(convert_color_space(rgb(grey), "RGB", "YBR_FULL"), "YBR_FULL", RLELossless)
        ),
        1.0,
    ),
    "dicom, palette": Container(_dicom(_falling_palette)),
    "dicom, palette of 12 bits in 16": Container(_dicom(_shallow_palette)),
    "dicom, colour of 8 bits in 16": Container(_dicom(_wide_colour)),
    "dicom, signed that says unsigned": Container(_dicom(_unsigned_by_header), 1.0),
    "dicom, padding": Container(_dicom(_padded), 1.0),
    "dicom, jpeg 2000": Container(_dicom(lambda grey, dice: ultrasound(grey, "RGB", JPEG2000Lossless))),
    "dicom, jpeg-ls": Container(_dicom(lambda grey, dice: ultrasound(grey, syntax=JPEGLSLossless))),
    "dicom, lossless jpeg": Container(_dicom(_stream(lossless_jpeg, "RGB", JPEGLosslessSV1))),
    "dicom, jpeg": Container(_dicom(_stream(ybr_jpeg, "YBR_FULL_422")), 40, True),
    "dicom, jpeg that says rgb": Container(
        _dicom(_stream(lambda pixels: without_jfif(ybr_jpeg(pixels)), "RGB")), 40, True
    ),
    "dicom, rgb jpeg that says ybr": Container(_dicom(_stream(rgb_jpeg, "YBR_FULL_422")), 40, True),
    "dicom, expanded 422": Container(_dicom(_mislabelled("RGB", "YBR_FULL_422"))),
    "dicom, ybr that says rgb": Container(_dicom(_mislabelled("YBR", "RGB")), 1.0),
    "dicom, rgb that says ybr": Container(_dicom(_mislabelled("RGB", "YBR_FULL"))),
    "dicom, wrong planes": Container(_dicom(_wrong_planes)),
    "dicom, region": Container(_dicom(_region("MONOCHROME2"))),
    "dicom, region in colour": Container(_dicom(_region("RGB"))),
    "dicom, window": Container(_dicom(_windowed), 1.0),
    "dicom, no window": Container(_dicom(_no_window)),
    "dicom, 12 bits of 12": Container(_dicom(_deep(12, 12)), 1.0),
    "dicom, 12 bits of 16": Container(_dicom(_deep(12, 16)), 1.0),
    "dicom, 8 bits of 16, signed": Container(_dicom(_deep(8, 16, np.int16, PixelRepresentation=1))),
    "cine": Container(_dicom(_cine(RLELossless))),
    "cine without a count": Container(_dicom(_uncounted)),
    "cine, retired class": Container(_dicom(_cine(SOPClassUID=US_MULTI_FRAME.replace("3.1", "3")))),
    "cine, no table": Container(_dicom(_jpeg_cine(lambda offsets: [])), 40, True),
    "cine, table of zeros": Container(_dicom(_jpeg_cine(lambda offsets: [0] * len(offsets))), 40, True),
    "cine, short table": Container(_dicom(_jpeg_cine(lambda offsets: [0])), 40, True),
    "cine, extended table": Container(_dicom(_extended_table), 40, True),
    "cine, frames in fragments": Container(_dicom(_jpeg_cine(lambda offsets: [], parts=2)), 40, True),
    "cine, cut short": Container(_cut_cine),
}
