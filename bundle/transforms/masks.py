# SPDX-License-Identifier: Apache-2.0
"""Mask files and probability maps as arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from bundle.errors import InputError
from bundle.readers import read_mask
from bundle.readers.image import read_fractions
from bundle.readers.masks import fit_mask


def read_probability(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the lesion probability that a segmentation wrote: 8-bit grey PNG, 255 for certainty -> (H, W) in [0, 1].

    Raises:
        InputError: the file can not be used, or is coloured, as an overlay is.
    """
    return read_fractions(os.fspath(path))


def merge_masks(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    image: str | os.PathLike[str] | None = None,
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Read one or more mask files and merge them by OR into a (H, W) bool array.

    Args:
        paths: of the masks; none at all stands for an image without a lesion, whose shape must be given.
        image: that they belong to, for a DICOM SEG of several; see `read_mask`.
        shape: (H, W) of the image. A dataset's check refuses masks of another size, but for the layouts whose masks it
            brings to the image's size; this does so here as well.

    Raises:
        InputError: a file can not be used, the masks differ in size, or are of another shape than the image.
    """
    names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not names:
        if shape is None:
            raise InputError(image or "record", "has no mask, and its size is not known", "name its mask")
        return np.zeros(shape[:2], dtype=bool)
    merged = _read_fitting(names[0], image, shape)
    for name in names[1:]:
        mask = _read_fitting(name, image, shape)
        if mask.shape != merged.shape:
            raise InputError(
                name, f"mask of {mask.shape}, but {names[0]} has {merged.shape}", "give both the same size"
            )
        merged = merged | mask
    return merged


def _read_fitting(
    name: str | os.PathLike[str], image: str | os.PathLike[str] | None, shape: tuple[int, ...] | None
) -> np.ndarray:
    mask = read_mask(name, image)
    return mask if shape is None else fit_mask(name, mask, (shape[0], shape[1]))
