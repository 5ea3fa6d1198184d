# SPDX-License-Identifier: Apache-2.0
"""DICOM headers, gated: what a file claims is checked against the file and our limits before a pixel is decoded.

pydicom is imported where it is used: the configs' modules must import without it, and with its version 2.4.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from bundle.errors import InputError, NotAnImageError

from .ultrasound import CONVERT, MAX_PIXELS, REPLACE, SCALE_DOWN, check_file, plain

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FRAMES = 100_000
MAX_HEADER_BYTES = 32_000_000
"""Read of a header at most; larger elements, such as a vendor's private volume, are passed over unread."""
MAX_INFLATED_BYTES = 160_000_000
"""Of a deflated file: a colour image of `MAX_PIXELS`, doubled. Deflate can turn 1 MB into 1 GB."""

_LARGE_ELEMENT = 1 << 20
_DEFLATED, _PLAIN = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_STORAGE = "1.2.840.10008.5.1.4.1.1."
IMAGE_CLASSES = {_STORAGE + "6.1", _STORAGE + "3.1", _STORAGE + "6", _STORAGE + "3"}
"""Ultrasound Image and Ultrasound Multi-frame Image Storage, with their retired forerunners."""
CAPTURE_CLASSES = {_STORAGE + f"7{kind}" for kind in ("", ".1", ".2", ".3", ".4")}
"""Secondary captures: screen shots, accepted with a warning where their modality is ultrasound."""
MULTI_FRAME_CLASSES = {_STORAGE + kind for kind in ("3.1", "3", "7.1", "7.2", "7.3", "7.4")}
SEGMENTATION_CLASS = _STORAGE + "66.4"

MANUFACTURER = "Breast ultrasound bundle developers"
"""Written into every DICOM object of ours: by it, our own picture in a study is known and not predicted from."""

_NOT_IMAGES = {
    **{_STORAGE + kind: "DICOM segmentations" for kind in ("66.4", "66.5", "66.7", "66.8")},
    **{_STORAGE + kind: "other DICOM objects without pictures" for kind in ("66", "66.1", "66.2", "66.3", "9.", "67")},
    _STORAGE + "88.": "DICOM structured reports",
    _STORAGE + "11.": "DICOM presentation states",
    _STORAGE + "104.": "documents in DICOM",
    "1.2.840.10008.1.3.10": "DICOM directories",
}
"""Classes of what a study holds beside images, or how their UIDs begin, and how they are counted."""

LIBRARY_LOCK = threading.RLock()
"""Held while warnings and the log of pydicom are held back: both belong to the whole process, not to a thread."""


class BoundedReader(io.BufferedIOBase):
    """A file that never reads past its end for a lying length, nor more than a number of bytes in all.

    Args:
        file: open for reading.
        size: of the file in bytes.
        budget: bytes that may be read.
    """

    def __init__(self, file: BinaryIO, size: int, budget: int) -> None:
        self.file, self.size, self.budget = file, size, budget

    def read(self, count: int | None = -1, /) -> bytes:
        """Read as a file does.

        Raises:
            ValueError: more is read than the budget allows, or all, as pydicom does to inflate without a limit.
        """
        if count is None or count < 0:
            raise ValueError("it is deflated, and its meta information is not of the length that it says")
        wanted = min(count, max(0, self.size - self.file.tell()))
        self.budget -= wanted
        if self.budget < 0:
            raise ValueError(f"its header is larger than the limit of {MAX_HEADER_BYTES / 1e6:.0f} MB")
        return self.file.read(wanted)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move as a file does."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self.file.tell()


def read_header(path: str | os.PathLike[str]) -> Dataset:
    """Read and check the header of an ultrasound image, without its pixels.

    Elements of more than 1 MB are left unread. The sequence, the size, the encoding and the modality are those of an
    image that `read_image` can read; only the pixels themselves are unchecked.

    Raises:
        InputError: no readable DICOM file, another modality or class, or more than the limits allow.
    """
    with opened(path) as (header, _):
        check_is_ultrasound(path, header)
        check_geometry(path, header)
        return header


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[Dataset, BinaryIO]]:
    """Give the header, and the file positioned at its pixel element; whatever goes wrong inside is one InputError.

    One thread at a time: warnings and the log of pydicom are held back inside, and both are global.
    """
    name = os.fspath(path)
    check_file(name)
    with LIBRARY_LOCK, warnings.catch_warnings(), open_or_refuse(name) as file:
        warnings.simplefilter("ignore")
        log = logging.getLogger("pydicom")
        was_disabled, log.disabled = log.disabled, True
        try:
            content = _inflated(name, file)
            yield _parse(name, content), content
        except NotAnImageError as error:
            raise NotAnImageError(error.path, plain(error.reason), error.mend, error.kind) from error
        except InputError as error:
            raise InputError(error.path, plain(error.reason), error.mend) from error
        except ImportError as error:
            raise InputError(path, f"needs a package that is missing ({error})", "install requirements.txt") from error
        except Exception as error:
            # pydicom and the decoders raise whatever a damaged element led them to, RecursionError and MemoryError too.
            reason = plain(str(error)) or type(error).__name__
            raise InputError(path, f"is no readable DICOM file ({reason})", REPLACE) from error
        finally:
            log.disabled = was_disabled


@contextlib.contextmanager
def open_or_refuse(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading.

    Raises:
        InputError: it can not be opened.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115, errors inside the block are not of opening
    except OSError as error:
        raise InputError(path, f"can not be opened ({error.strerror})", "check its permissions") from error
    with file:
        yield file


def _parse(path: str, content: BinaryIO) -> Dataset:
    from pydicom.filereader import read_partial

    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    bounded: Any = BoundedReader(content, size, MAX_HEADER_BYTES)
    header = read_partial(bounded, stop_when=lambda tag, _, __: tag in _PIXEL_TAGS, defer_size=_LARGE_ELEMENT)
    if "TransferSyntaxUID" not in header.file_meta:
        raise InputError(path, "does not say its transfer syntax (0002,0010)", REPLACE)
    return header


def _inflated(path: str, file: BinaryIO) -> BinaryIO:
    """The file itself, or, of a deflated one, its content inflated up to the limit.

    pydicom would inflate without a limit; it is given the same meta information with the plain syntax named in it.
    """
    start = file.read(144)
    if start[128:132] != b"DICM":
        raise InputError(path, "is no DICOM file: it lacks the letters DICM at byte 128", REPLACE)
    meta = start + file.read(min(int.from_bytes(start[140:144], "little"), _LARGE_ELEMENT))
    if start[132:136] != b"\x02\x00\x00\x00" or _DEFLATED not in meta:
        return file
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(file.read(MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        reason = f"inflates to more than the limit of {MAX_INFLATED_BYTES / 1e6:.0f} MB"
        raise InputError(path, reason, "store it uncompressed, in smaller files")
    return io.BytesIO(meta.replace(_DEFLATED, _PLAIN) + data)


def check_is_ultrasound(path: str | os.PathLike[str], header: Dataset) -> None:
    """Refuse what is no 2-D ultrasound image.

    Raises:
        InputError: another modality or SOP class.
        NotAnImageError: no image at all, or a picture of ours.
    """
    modality, kind = str(header.get("Modality", "")), str(header.get("SOPClassUID", ""))
    kind = kind or str(header.file_meta.get("MediaStorageSOPClassUID", ""))
    for uid, plural in _NOT_IMAGES.items():
        if kind == uid or (uid.endswith(".") and kind.startswith(uid)):
            raise NotAnImageError(path, f"is no image but {name_of(kind)}", "leave it out", plural)
    if str(header.get("Manufacturer", "")) == MANUFACTURER:
        reason = "is a picture that this bundle drew from an image of the study"
        raise NotAnImageError(path, reason, "predict from the image itself", "pictures of ours")
    mend = "give 2-D B-mode breast ultrasound images"
    if modality != "US":
        raise InputError(path, f"its modality is {modality or 'not told'}, not US", mend)
    if kind not in IMAGE_CLASSES | CAPTURE_CLASSES:
        raise InputError(path, f"is a DICOM object of another class ({name_of(kind) or 'not told'})", mend)


def check_geometry(path: str | os.PathLike[str], header: Dataset) -> tuple[int, int, int]:
    """Return rows, columns and the claimed number of frames, 1 where none is claimed, all within the limits.

    Raises:
        InputError: one is missing, zero or above its limit.
    """
    rows, columns, frames = (whole(header.get(key), 0) for key in ("Rows", "Columns", "NumberOfFrames"))
    if rows < 1 or columns < 1 or frames < 0:
        reason = f"claims {rows} rows, {columns} columns and {frames} frames"
        raise InputError(path, reason, f"{REPLACE}; or, if it holds no image, leave it out")
    if rows * columns > MAX_PIXELS:
        reason = f"{rows}×{columns} pixels are more than the limit of {MAX_PIXELS / 1e6:.0f} Mpx"
        raise InputError(path, reason, SCALE_DOWN)
    if frames > MAX_FRAMES:
        raise InputError(path, f"claims {frames} frames, more than the limit of {MAX_FRAMES}", CONVERT)
    return rows, columns, frames or 1


def whole(value: Any, default: int) -> int:
    """A header's number as an int; the default where it is none, or is several values."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def name_of(uid: str) -> str:
    """The name of a UID, or the UID where it has none."""
    from pydicom.uid import UID

    return str(UID(uid).name)
