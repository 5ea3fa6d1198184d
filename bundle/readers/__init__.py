# SPDX-License-Identifier: Apache-2.0
"""Readers: one file -> one clean grey image (H, W) and what is known of it."""

from .image import MAX_PIXELS, UltrasoundImage, read_image, read_mask

__all__ = ["MAX_PIXELS", "UltrasoundImage", "read_image", "read_mask"]
