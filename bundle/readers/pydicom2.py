# SPDX-License-Identifier: Apache-2.0
"""What the readers need of pydicom 3, for environments that hold pydicom 2: MONAI Label 0.8.5 does.

Its decoders differ, so fewer transfer syntaxes are read there: uncompressed, RLE, and JPEG and JPEG 2000 of 8 bits.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bundle.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_RLE = "1.2.840.10008.1.2.5"
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_PIXEL_KEYS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)


def has_decoders() -> bool:
    """Whether pydicom brings its decoders itself, as it does from version 3 on."""
    import pydicom

    return int(pydicom.__version__.split(".")[0]) >= 3


def lookup_tables() -> Any:
    """The module with `apply_modality_lut`, `apply_voi_lut`, `apply_color_lut` and `convert_color_space`."""
    if has_decoders():
        from pydicom.pixels import processing

        return processing
    from pydicom.pixel_data_handlers import util

    return util


def encoding_of(header: Dataset) -> tuple[bool, bool]:
    """How a header was written: (implicit VR, little endian)."""
    if hasattr(header, "original_encoding"):
        implicit, little = header.original_encoding
        return bool(implicit), bool(little)
    return bool(header.is_implicit_VR), bool(header.is_little_endian)


def pixel_elements(header: Dataset) -> Dataset:
    """What a header says of a single frame's pixels, as a dataset of its own."""
    from pydicom.dataset import Dataset

    alone = Dataset()
    for key in _PIXEL_KEYS:
        if key in header:
            alone.add(header[key])
    return alone


def ybr_to_rgb(values: np.ndarray) -> np.ndarray:
    """Convert YBR_FULL (H, W, 3) uint8 to RGB."""
    return np.asarray(lookup_tables().convert_color_space(values, "YBR_FULL", "RGB"))


def decode_alone(path: str, header: Dataset, data: bytes, syntax: str, photometric: str) -> tuple[np.ndarray, str]:
    """Decode one frame: its samples as they are stored, (H, W) or (H, W, 3), and what they are.

    Args:
        path: for errors.
        header: of the file.
        data: the frame, as it is stored.
        syntax: transfer syntax.
        photometric: what the samples are taken for.

    Raises:
        InputError: a syntax that is not read with this version of pydicom.
    """
    if syntax in _JPEG_2000:
        with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as image:
            values = np.asarray(image if header.SamplesPerPixel == 1 else image.convert("RGB"))
        if values.dtype != np.uint8:
            raise _unread(path, syntax)
        return values, photometric if header.SamplesPerPixel == 1 else "RGB"
    if syntax != _RLE and syntax.startswith("1.2.840.10008.1.2.4."):
        raise _unread(path, syntax)
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate

    alone = pixel_elements(header)
    alone.PhotometricInterpretation = photometric
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    alone.is_implicit_VR, alone.is_little_endian = encoding_of(header)
    alone.PixelData = encapsulate([data]) if syntax == _RLE else data
    alone["PixelData"].is_undefined_length = syntax == _RLE
    return alone.pixel_array, photometric


def _unread(path: str, syntax: str) -> InputError:
    reason = f"its transfer syntax {syntax} is not read with pydicom 2"
    return InputError(path, reason, "convert it to an uncompressed one, or use an environment with pydicom 3")
