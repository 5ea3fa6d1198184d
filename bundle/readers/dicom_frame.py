# SPDX-License-Identifier: Apache-2.0
"""One frame of a DICOM file, decoded by permissively licensed decoders after its claims were checked.

The size that a compressed frame states for itself is compared with the header's before it is decoded, and each
transfer syntax has one decoder: what a damaged file can reach is a known list. Where pixels and header disagree about
bits, planes or colours, the pixels decide with a warning, or the file is refused.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from bundle.errors import InputError

from .dicom import name_of, whole
from .dicom_bytes import raw_bytes
from .dicom_claims import SLACK, check_palette, check_run_lengths, jpeg_claims, stated_size
from .dicom_colour import settle_colours, settle_planes
from .dicom_frames import NATIVE, RLE, Frames, locate_frames
from .dicom_samples import check_bits, check_sides, settle_sign, without_padding
from .pydicom2 import decode_alone, has_decoders, pixel_elements
from .ultrasound import REPLACE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_JPEG = "1.2.840.10008.1.2.4."
PLUGINS = {
    RLE: "pydicom",
    **{_JPEG + kind: "pyjpegls" for kind in ("80", "81")},
    **{_JPEG + kind: "pylibjpeg" for kind in ("90", "91", "201", "202", "203")},
}
"""Transfer syntax -> pydicom's name of the decoder: RLE, JPEG-LS, JPEG 2000 and HTJ2K."""

LOSSY_JPEG = {_JPEG + kind for kind in ("50", "51")}
LOSSLESS_JPEG = {_JPEG + kind for kind in ("57", "70")}
"""JPEG, which Pillow decodes without pydicom. GDCM does too, but it ends the process at a damaged stream."""

READABLE = frozenset(NATIVE | PLUGINS.keys() | LOSSY_JPEG | LOSSLESS_JPEG)
"""Transfer syntaxes whose pixels are read; a deflated file is one of `NATIVE` once it is inflated."""

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def decode_frame(
    path: str, header: Dataset, content: BinaryIO, frames: Frames, number: int
) -> tuple[np.ndarray, str, list[str]]:
    """Return the pixels of one frame, (H, W) or RGB (H, W, 3), what they are, and what is doubtful about them.

    What they are is a photometric interpretation: see `MONOCHROME`, PALETTE COLOR, RGB.

    Args:
        path: for errors.
        header: read and checked before, see `check_is_read`.
        content: the file.
        frames: as `locate_frames` found them.
        number: of the frame, from 0.

    Raises:
        InputError: less data than the header claims, or what the header and the pixels say can not be settled.
    """
    syntax = str(header.file_meta.TransferSyntaxUID)
    photometric = str(header.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        check_palette(path, header)
    data = frames.read(content, number)
    if syntax not in NATIVE:
        _check_encoded(path, header, data, number, syntax)
    told = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if syntax in LOSSY_JPEG | LOSSLESS_JPEG:
            values, told = _decode_jpeg(path, header, data)
        else:
            values, photometric = _decode(path, header, data, syntax, frames.vr)
    notes = list(dict.fromkeys(f"pydicom warns of its pixels: {warning.message}" for warning in caught))
    expected = (whole(header.Rows, 0), whole(header.Columns, 0))
    if values.shape[:2] != expected:
        raise InputError(path, f"decodes to {values.shape}, but its header says {expected}", REPLACE)
    values = check_bits(path, header, values)
    for settle in (without_padding, settle_sign):
        values, told_of = settle(header, values)
        notes += told_of
    if photometric not in COLOUR:
        if syntax in NATIVE:
            check_sides(path, values)
        return values, photometric, notes
    if whole(header.BitsStored, 8) <= 8:
        values = values.astype(np.uint8)
    if values.dtype != np.uint8:
        if photometric.startswith("YBR_FULL"):
            raise _unread(path, f"its pixels are {photometric} of more than 8 bits, which is not read")
        return values, "RGB", notes
    planes: list[str] = []
    expanded = _is_expanded(header, data, syntax)
    if syntax in NATIVE and (expanded or photometric != "YBR_FULL_422"):
        values, planes = settle_planes(values)
    if syntax in NATIVE:
        check_sides(path, values)
    values, colours = settle_colours(path, values, photometric, told, expanded)
    return values, "RGB", [*notes, *planes, *colours]


def _decode(path: str, header: Dataset, data: bytes, syntax: str, vr: str) -> tuple[np.ndarray, str]:
    """The samples of one frame as they are stored, and what they are by the header or the decoder."""
    photometric = str(header.PhotometricInterpretation)
    expanded = _is_expanded(header, data, syntax)
    if not has_decoders():
        values, found = decode_alone(path, header, data, syntax, "RGB" if expanded else photometric)
        return values, photometric if expanded else found
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    options = {**as_pixel_options(pixel_elements(header)), "pixel_keyword": "PixelData", "raw": True}
    if expanded:
        options["photometric_interpretation"] = "RGB"
    if vr:
        options["pixel_vr"] = vr
    if syntax not in PLUGINS or syntax == RLE:
        # Bits above those stored would be wiped in silence; `check_bits` looks at them.
        options["correct_unused_bits"] = whole(header.get("PixelRepresentation"), 0) == 1
    if syntax not in NATIVE:
        data = encapsulate([data])
        options["decoding_plugin"] = PLUGINS[syntax]
    values, properties = get_decoder(syntax).as_array(data, index=0, **options)
    # JPEG 2000 and HTJ2K undo their colour transform themselves.
    return values, photometric if expanded else str(properties["photometric_interpretation"])


def _is_expanded(header: Dataset, data: bytes, syntax: str) -> bool:
    """Whether uncompressed pixels that say YBR_FULL_422, two bytes for each, have three."""
    is_422 = header.PhotometricInterpretation == "YBR_FULL_422" and syntax in NATIVE
    return is_422 and len(data) == raw_bytes(header, 3)


def _decode_jpeg(path: str, header: Dataset, data: bytes) -> tuple[np.ndarray, str | None]:
    """The samples of a JPEG frame as they are stored, and RGB or YBR where the stream tells."""
    claims = jpeg_claims(data)
    samples = whole(header.SamplesPerPixel, 1)
    if claims is None or len(claims.ids) != samples:
        count = "no" if claims is None else len(claims.ids)
        raise InputError(path, f"its JPEG stream has {count} components where its header says {samples}", REPLACE)
    if claims.bits != 8:
        raise _unread(path, f"is JPEG of {claims.bits} bits, which is not read")
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if samples == 3 and _becomes_rgb(header, claims.adobe, claims.ids, claims.jfif):
            image.draft("YCbCr", image.size)  # the samples themselves, not what the stream's markers make of them
        return np.array(image), claims.space


def _becomes_rgb(header: Dataset, adobe: int | None, ids: tuple[int, ...], jfif: bool) -> bool:
    """Whether libjpeg takes a stream for YCbCr: by JFIF, by Adobe's marker, else but for components named RGB."""
    if jfif:
        return True
    if adobe is not None:
        return adobe != 0
    is_lossless = str(header.file_meta.TransferSyntaxUID) in LOSSLESS_JPEG
    return not is_lossless and bytes(ids) != b"RGB"


def _unread(path: str, reason: str) -> InputError:
    return InputError(path, reason, "convert it with a DICOM tool to RGB or MONOCHROME2 of 8 bits, uncompressed")


def check_is_read(path: str, header: Dataset) -> None:
    """Refuse transfer syntaxes and kinds of pixels that are not read, and numbers that contradict each other.

    Raises:
        InputError: it is one of these.
    """
    syntax = str(header.file_meta.TransferSyntaxUID)
    if syntax not in READABLE:
        raise _unread(path, f"its transfer syntax {name_of(syntax)} ({syntax}) is not read")
    photometric = str(header.get("PhotometricInterpretation", "not told"))
    if photometric not in (*MONOCHROME, *COLOUR, "PALETTE COLOR"):
        raise _unread(path, f"its photometric interpretation is {photometric}, which is not read")
    samples, allocated, stored = (
        whole(header.get(key), 0) for key in ("SamplesPerPixel", "BitsAllocated", "BitsStored")
    )
    if samples != (3 if photometric in COLOUR else 1):
        raise InputError(path, f"claims {samples} samples per pixel of {photometric}", REPLACE)
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise _unread(path, f"has {stored} bits stored in {allocated}; 8 and 16 are read")
    shape = str(header.get("PresentationLUTShape", ""))
    if (photometric, shape) in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        ends = ("black", "white") if photometric == "MONOCHROME2" else ("white", "black")
        reason = f"says by {photometric} that 0 is {ends[0]}, and by Presentation LUT Shape that it is {ends[1]}"
        raise InputError(path, reason, "correct its Photometric Interpretation or its Presentation LUT Shape")
    if stored < allocated and whole(header.get("HighBit"), stored - 1) != stored - 1:
        raise _unread(path, f"its {stored} bits end at bit {header.HighBit} of {allocated}, not at the lowest")


def find_frames(path: str, header: Dataset, content: BinaryIO) -> Frames:
    """Find the frames of a file that is read, `content` being positioned at its pixel element.

    Raises:
        InputError: a syntax or kind of pixels that is not read, or counts that do not agree.
    """
    check_is_read(path, header)
    return locate_frames(path, header, content)


def _check_encoded(path: str, header: Dataset, frame: bytes, number: int, syntax: str) -> None:
    """Refuse a compressed frame that states another size than the header, or would unpack to more."""
    raw = raw_bytes(header, whole(header.SamplesPerPixel, 1))
    if len(frame) > 2 * raw + SLACK:
        raise InputError(path, f"frame {number} has {len(frame)} bytes for {raw} bytes of pixels", REPLACE)
    if syntax == RLE:
        check_run_lengths(path, frame, raw)
        return
    claims = jpeg_claims(frame) if frame[:2] == b"\xff\xd8" else None
    if claims is not None and claims.bits > whole(header.BitsAllocated, 8):
        reason = f"frame {number} has {claims.bits} bits where the header says {header.BitsAllocated}"
        raise InputError(path, reason, REPLACE)
    size, expected = stated_size(frame), (whole(header.Rows, 0), whole(header.Columns, 0))
    if size != expected:
        stated = "no size" if size is None else f"{size[0]}×{size[1]} pixels"
        reason = f"frame {number} states {stated} where the header says {expected[0]}×{expected[1]}"
        raise InputError(path, reason, REPLACE)
