# SPDX-License-Identifier: Apache-2.0
"""Clinical files that tests make for themselves: small ultrasound DICOM of every kind, DICOM SEG and NIfTI.

`speckle` is a picture like a scan's: grey, noisy, with a lesion.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

PLACED = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0], "PixelSpacing": [0.1, 0.2]}
"""Elements of a picture with a place in space, for which dcm2niix writes codes."""

US_IMAGE, US_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def speckle(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Grey (H, W) uint8 of speckle with a dark ellipse, elsewhere for another seed, and one white corner."""
    rng = np.random.default_rng(seed)
    noise = rng.rayleigh(1.0, (height // 2 + 1, width // 2 + 1)).repeat(2, 0).repeat(2, 1)[:height, :width]
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows / height - 0.3 - 0.08 * seed) / 0.2) ** 2 + ((columns / width - 0.5) / 0.2) ** 2 < 1
    grey = np.clip(noise * np.where(inside, 15, 75), 0, 255).astype(np.uint8)
    grey[:2, :2] = 255
    return grey


def ultrasound(
    frames: np.ndarray | Sequence[np.ndarray],
    photometric: str = "MONOCHROME2",
    syntax: str = ExplicitVRLittleEndian,
    **elements: Any,
) -> Dataset:
    """An ultrasound dataset of grey frames (H, W) uint8 or uint16; other elements by keyword, None leaves one out."""
    stack = [np.asarray(frame) for frame in (frames if isinstance(frames, (list, tuple)) else [frames])]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID = US_MULTI_FRAME if len(stack) > 1 else US_IMAGE
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (generate_uid() for _ in range(3))
    dataset.Modality, dataset.PatientID, dataset.PatientName = "US", "P-0001", "Doe^Jane"
    dataset.Rows, dataset.Columns = stack[0].shape[:2]
    if len(stack) > 1:
        dataset.NumberOfFrames = len(stack)
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = photometric, 0
    dataset.BitsAllocated = dataset.BitsStored = stack[0].dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.SamplesPerPixel = 3 if photometric.startswith(("RGB", "YBR")) else 1
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
        stack = [frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2) for frame in stack]
    if photometric == "MONOCHROME1":
        stack = [np.iinfo(frame.dtype).max - frame for frame in stack]
    if photometric == "PALETTE COLOR":
        ramp = (np.arange(256, dtype="<u2") * 257).tobytes()
        for colour in ("Red", "Green", "Blue"):
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(dataset, f"{colour}PaletteColorLookupTableData", ramp)
    if photometric == "YBR_FULL" and not UID(syntax).is_encapsulated:
        stack = [convert_color_space(frame, "RGB", "YBR_FULL") for frame in stack]
    _put_pixels(dataset, stack, syntax)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def _put_pixels(dataset: Dataset, stack: list[np.ndarray], syntax: str) -> None:
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

    if not UID(syntax).is_encapsulated:
        data = b"".join(frame.tobytes() for frame in stack)
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OB" if stack[0].itemsize == 1 else "OW"
    elif syntax == JPEGBaseline8Bit:
        dataset.PixelData = encapsulate([_jpeg(frame) for frame in stack])
        dataset["PixelData"].VR = "OB"
    elif syntax in (JPEG2000Lossless, JPEGLSLossless, RLELossless):
        arrays = np.stack(stack) if len(stack) > 1 else stack[0]
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.PixelData = arrays.tobytes()
        dataset.compress(UID(syntax), arrays, generate_instance_uid=False)
    else:
        raise ValueError(f"no encoder for {syntax}")


def _jpeg(frame: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", **{"quality": 95, **options})
    return buffer.getvalue()


def even(data: bytes) -> bytes:
    """Data with the byte of padding that DICOM wants of odd lengths."""
    return data + b"\0" * (len(data) % 2)


def without_jfif(stream: bytes) -> bytes:
    """A JPEG stream without its first marker segment, as many scanners write it."""
    length = struct.unpack(">H", stream[4:6])[0]
    return stream[:2] + stream[4 + length :]


def rgb_jpeg(frame: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as JPEG of RGB samples, without a marker that says so: as RGB-storing scanners do."""
    return _jpeg(frame, keep_rgb=True, subsampling=0)


def ybr_jpeg(frame: np.ndarray, **options: Any) -> bytes:
    """Encode (H, W, 3) uint8 as JPEG of YCbCr samples with a JFIF marker; options as Pillow's."""
    return _jpeg(frame, **options)


def encapsulated(items: Sequence[bytes], table: Sequence[int] | None = None, end: bool = True) -> bytes:
    """Pixel data of fragments behind an offset table, right by default, for one fragment per frame."""
    offsets = [sum(8 + len(item) for item in items[:number]) for number in range(len(items))]
    first = struct.pack(f"<{len(items if table is None else table)}L", *(offsets if table is None else table))
    body = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in (first, *items))
    return body + (b"\xfe\xff\xdd\xe0" + bytes(4) if end else b"")


def put_stream(dataset: Dataset, data: bytes, syntax: str) -> Dataset:
    """The dataset with these bytes, of `encapsulated`, as its pixels."""
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = data
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def lossless_jpeg(frame: np.ndarray) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8 as JPEG lossless, process 14, first-order prediction, a flat Huffman table."""
    height, width = frame.shape[:2]
    values = frame.reshape(height, width, -1).astype(int)
    parts = values.shape[2]
    left = np.empty_like(values)
    left[:, 1:] = values[:, :-1]
    left[1:, 0], left[0, 0] = values[:-1, 0], 128
    bits = []
    for difference in (values - left).ravel():
        size = int(abs(difference)).bit_length()
        bits.append(f"{size:04b}")  # code n of the table stands for the size n
        if size:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)).replace(b"\xff", b"\xff\x00")
    table = bytes([0, 0, 0, 0, 9, *[0] * 12]) + bytes(range(9))
    shape = struct.pack(">HH", height, width) + bytes([parts]) + b"".join(bytes([n + 1, 0x11, 0]) for n in range(parts))
    scan = bytes([parts]) + b"".join(bytes([n + 1, 0]) for n in range(parts)) + b"\x01\x00\x00"
    segments = ((b"\xff\xc3", b"\x08" + shape), (b"\xff\xc4", table), (b"\xff\xda", scan))
    written = b"".join(marker + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + written + data + b"\xff\xd9"


def region(
    top: int, left: int, bottom: int, right: int, deltas_mm: tuple[float, float] = (0.1, 0.1), **elements: Any
) -> Dataset:
    """An ultrasound region of 2-D tissue, its bounds half-open here and inclusive in the file; deltas (row, column)."""
    item = Dataset()
    item.RegionSpatialFormat = item.RegionDataType = 1
    item.RegionFlags = 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right - 1, bottom - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaY, item.PhysicalDeltaX = (step / 10 for step in deltas_mm)
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def regions(*items: Dataset) -> Items:
    """A Sequence of Ultrasound Regions."""
    return Items(items)


def save(dataset: Dataset, path: Path) -> Path:
    """Write a dataset as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def segmentation(
    masks: Sequence[np.ndarray], sources: Sequence[tuple[str, int | None]] = (), segments: Sequence[int] = ()
) -> Dataset:
    """A BINARY segmentation of masks (H, W) bool, each of a source (SOP instance UID, frame from 1 or None)."""
    stack = np.stack(list(masks))
    dataset = ultrasound(np.zeros(stack.shape[1:], np.uint8))
    dataset.SOPClassUID, dataset.Modality, dataset.SegmentationType = SEGMENTATION, "SEG", "BINARY"
    dataset.NumberOfFrames = len(stack)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    data = np.packbits(stack.ravel(), bitorder="little").tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    items = []
    for number in range(len(stack)):
        item = Dataset()
        segment = Dataset()
        segment.ReferencedSegmentNumber = segments[number] if segments else 1
        item.SegmentIdentificationSequence = Items([segment])
        if sources:
            source, derivation = Dataset(), Dataset()
            source.ReferencedSOPInstanceUID, frame = sources[number]
            if frame is not None:
                source.ReferencedFrameNumber = frame
            derivation.SourceImageSequence = Items([source])
            item.DerivationImageSequence = Items([derivation])
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = Items(items)
    return dataset


def save_nifti(pixels: np.ndarray, path: Path, spacing_mm: tuple[float, float] | None = None) -> Path:
    """Write (H, W) or a stack (N, H, W) as NIfTI, columns first as ITK does, with a (row, column) spacing."""
    import nibabel

    row, column = spacing_mm or (1.0, 1.0)
    stored = np.moveaxis(pixels, 0, 2).swapaxes(0, 1) if pixels.ndim == 3 else pixels.T
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored), np.diag([-column, -row, 1.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path
