# SPDX-License-Identifier: Apache-2.0
"""DICOM segmentations as masks: the frames of a BINARY SEG that belong to one image, merged by OR over segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from bundle.errors import InputError

from .dicom import SEGMENTATION_CLASS, check_geometry, name_of, opened, read_header, whole
from .dicom_frames import NATIVE, check_present, enter

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_SEGMENTATION_FRAMES = 2_000

_OF_ANOTHER, _GIVE_ITS_OWN = "segments another image than the one it is given for", "give the image's own mask"


def read_segmentation(path: str, image: str | None = None, frame: int | None = None) -> np.ndarray:
    """Read a BINARY segmentation as one mask, bool (H, W).

    Args:
        path: the SEG file.
        image: the DICOM file that the mask is wanted for; where the SEG names its sources, only their frames count.
        frame: of the image, from 0; None for a file of one.

    Raises:
        InputError: no BINARY SEG, it segments another image, or it does not say which of its frames is meant.
    """
    wanted = None if image is None else str(read_header(image).get("SOPInstanceUID", ""))
    with opened(path) as (header, content):
        _check_kind(path, header)
        _, _, frames = check_geometry(path, header)
        if frames > MAX_SEGMENTATION_FRAMES:
            raise InputError(path, f"has {frames} frames, more than {MAX_SEGMENTATION_FRAMES}", "give a smaller one")
        chosen = _choose(path, header, frames, wanted, frame)
        return _decode(path, header, content, chosen)


def _check_kind(path: str, header: Dataset) -> None:
    kind = str(header.get("SOPClassUID", ""))
    if kind != SEGMENTATION_CLASS:
        raise InputError(
            path, f"is a DICOM object of class {name_of(kind)}", "give the mask as PNG, NIfTI or DICOM SEG"
        )
    syntax, form = str(header.file_meta.TransferSyntaxUID), str(header.get("SegmentationType", "not told"))
    one_bit = whole(header.get("BitsAllocated"), 0) == 1 and whole(header.get("SamplesPerPixel"), 0) == 1
    if form != "BINARY" or syntax not in NATIVE or not one_bit:
        reason = f"is a segmentation of type {form} in {name_of(syntax)}, which is not read"
        raise InputError(path, reason, "export it as BINARY, uncompressed")


def _choose(path: str, header: Dataset, frames: int, wanted: str | None, frame: int | None) -> list[int]:
    """The frames of the segmentation that belong to the wanted frame of the wanted image."""
    items = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    if items and len(items) != frames:
        reason = f"describes {len(items)} frames where its header claims {frames}"
        raise InputError(path, reason, "export it again")
    items = items or [None] * frames
    shared = _sources(next(iter(header.get("SharedFunctionalGroupsSequence") or ()), None))
    sources = [_sources(item) or shared for item in items]
    if wanted is not None and not any(sources):
        _check_referenced(path, header, wanted)
    if wanted is not None and any(sources):
        chosen = [
            number
            for number, source in enumerate(sources)
            if any(uid == wanted and (not of or frame is None or frame + 1 in of) for uid, of in source)
        ]
        # An image without lesion has no frame in a segmentation of the whole series; another image has no source.
        if not chosen and not any(uid == wanted for source in sources for uid, _ in source):
            raise InputError(path, _OF_ANOTHER, _GIVE_ITS_OWN)
        return chosen
    segments = [_segment(item) for item in items]
    if len(set(segments)) < frames and frames > 1:
        reason = f"has {frames} frames and does not say which belongs to this image"
        raise InputError(path, reason, "export the mask of this one image, or give the DICOM image it was made for")
    return list(range(frames))


def _check_referenced(path: str, header: Dataset, wanted: str) -> None:
    """Refuse a segmentation whose frames name no source and whose header lists other images than the wanted one."""
    listed = {
        str(instance.get("ReferencedSOPInstanceUID", ""))
        for series in header.get("ReferencedSeriesSequence") or ()
        for instance in series.get("ReferencedInstanceSequence") or ()
    }
    if listed and wanted not in listed:
        raise InputError(path, _OF_ANOTHER, _GIVE_ITS_OWN)


def _sources(item: Dataset | None) -> list[tuple[str, list[int]]]:
    """What one frame was derived from: (SOP instance UID, frame numbers from 1, empty for all)."""
    found = []
    for derivation in (item.get("DerivationImageSequence") or ()) if item is not None else ():
        for source in derivation.get("SourceImageSequence") or ():
            numbers = source.get("ReferencedFrameNumber")
            listed = [] if numbers in (None, "") else list(np.atleast_1d(np.asarray(numbers, dtype=int)))
            found.append((str(source.get("ReferencedSOPInstanceUID", "")), [int(number) for number in listed]))
    return found


def _segment(item: Dataset | None) -> int:
    groups = (item.get("SegmentIdentificationSequence") or ()) if item is not None else ()
    return whole(groups[0].get("ReferencedSegmentNumber"), 0) if groups else 0


def _decode(path: str, header: Dataset, content: BinaryIO, chosen: list[int]) -> np.ndarray:
    rows, columns, frames = check_geometry(path, header)
    length, _ = enter(path, header, content)
    start = content.tell()
    present = check_present(path, content, length, (rows * columns * frames + 7) // 8)
    if present >= (rows * columns * (frames + 1) + 7) // 8:
        reason = f"holds {present} bytes of pixels, those of more than the {frames} frames that its header claims"
        raise InputError(path, reason, "export it again")
    mask = np.zeros(rows * columns, dtype=bool)
    for number in chosen:
        first = number * rows * columns  # in bits: a frame may start inside a byte
        content.seek(start + first // 8)
        data = np.frombuffer(content.read((first % 8 + rows * columns + 7) // 8), dtype=np.uint8)
        mask |= np.unpackbits(data, bitorder="little")[first % 8 :][: rows * columns].astype(bool)
    return mask.reshape(rows, columns)
