# SPDX-License-Identifier: Apache-2.0
"""Readers: one file -> one clean grey image (H, W) and what is known of it."""

from .files import CLIP, DICOM, NIFTI, count_frames, kind_of, read_image, read_mask, split_frame
from .nifti import is_upside_down
from .ultrasound import MAX_PIXELS, UltrasoundImage

__all__ = [
    "CLIP",
    "DICOM",
    "MAX_PIXELS",
    "NIFTI",
    "UltrasoundImage",
    "count_frames",
    "is_upside_down",
    "kind_of",
    "read_image",
    "read_mask",
    "split_frame",
]
