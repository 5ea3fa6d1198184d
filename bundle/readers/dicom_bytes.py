# SPDX-License-Identifier: Apache-2.0
"""How many bytes a frame of uncompressed DICOM pixels has, where header, file and picture do not say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from bundle.errors import InputError

from .dicom import whole
from .ultrasound import REPLACE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def raw_bytes(header: Dataset, samples: int | None = None) -> int:
    """The size of one frame, uncompressed, of so many samples per pixel; of YBR_FULL_422 there are 2."""
    if samples is None:
        subsampled = header.PhotometricInterpretation == "YBR_FULL_422"
        samples = 2 if subsampled else whole(header.SamplesPerPixel, 1)
    return whole(header.Rows, 0) * whole(header.Columns, 0) * samples * (whole(header.BitsAllocated, 8) // 8)


def bytes_of_422(path: str, header: Dataset, present: int, claimed: int | None) -> int:
    """Bytes of a frame that says YBR_FULL_422: two per pixel, or three where its chroma was expanded and not told."""
    fits = []
    for samples in (2, 3):
        frame = raw_bytes(header, samples)
        frames = claimed or max(1, present // frame)
        # A byte of padding makes the length even.
        if 0 <= present - frames * frame <= 1:
            fits.append(frame)
    if len(fits) != 1:
        reason = f"says YBR_FULL_422 and holds {present} bytes, which are neither 2 nor 3 for each pixel"
        if present < raw_bytes(header, 2) * (claimed or 1):
            reason = f"holds {present} bytes of pixels where its header claims {raw_bytes(header, 2) * (claimed or 1)}"
        raise InputError(path, reason, REPLACE)
    return fits[0]


def check_frame_bytes(path: str, header: Dataset, content: BinaryIO, present: int, claimed: int) -> None:
    """Refuse a cine that is not short: it has the bytes of all its frames, at fewer for a pixel, and rows to fit them.

    Raises:
        InputError: it is one.
    """
    start, columns = content.tell(), whole(header.Columns, 0)
    says = raw_bytes(header) // (whole(header.Rows, 0) * columns)
    holds = next((n for n in range(1, says) if 0 <= present - claimed * raw_bytes(header) // says * n <= 1), None)
    if holds is None:
        return
    samples = np.frombuffer(content.read(raw_bytes(header)), np.uint8).astype(np.float32)
    content.seek(start)
    if row_likeness(samples, columns * holds) > row_likeness(samples, columns * says):
        reason = f"says {says} bytes for a pixel, and holds all of its {claimed} frames at {holds}"
        raise InputError(path, reason, "correct its Bits Allocated or Samples per Pixel")


def row_likeness(samples: np.ndarray, row: int) -> float:
    """The correlation of samples with those a row below, if a row has so many."""
    centred = samples - samples.mean()
    return float((centred[row:] * centred[:-row]).mean() / (centred.var() + 1e-6))
