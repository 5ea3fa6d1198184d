# SPDX-License-Identifier: Apache-2.0
"""MONAI dictionary transforms that read files with our readers, H×W and once."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

from bundle.errors import InputError
from bundle.readers import read_image, read_mask


class LoadUltrasoundd(MapTransform):
    """Read image files as MetaTensors (1, H, W) float32 in [0, 1].

    MONAI's own loaders give W×H for PNG, ignore EXIF rotation and do not limit the size of what they decode.
    ``meta`` holds ``filename_or_obj``, ``spatial_shape`` (H, W), ``spacing_mm`` (row, column) or NaN, and ``warnings``.

    Raises:
        InputError: a file can not be used; it names the file, the reason and the mend.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path under the keys by its image."""
        out = dict(data)
        for key in self.key_iterator(out):
            path = os.fspath(out[key])
            image = read_image(path)
            # A tensor per batch can not hold None.
            spacing = image.spacing_mm or (float("nan"), float("nan"))
            meta = {
                "filename_or_obj": path,
                "spatial_shape": np.asarray(image.pixels.shape),
                "spacing_mm": np.asarray(spacing),
                "warnings": "; ".join(image.warnings),
            }
            out[key] = MetaTensor(torch.from_numpy(image.pixels / 255.0)[None], meta=meta)
        return out


class LoadLesionMaskd(MapTransform):
    """Read a mask file, or several merged by OR, as a MetaTensor (1, H, W) float32 of 0 and 1.

    ``meta["filename_or_obj"]`` is the first file: MONAI's data statistics want a name.

    Raises:
        InputError: a file can not be used, or two masks of one image differ in size.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path, or list of paths, under the keys by its mask."""
        out = dict(data)
        for key in self.key_iterator(out):
            paths = out[key]
            first = os.fspath(paths if isinstance(paths, (str, os.PathLike)) else paths[0])
            mask = torch.from_numpy(merge_masks(paths).astype(np.float32))[None]
            out[key] = MetaTensor(mask, meta={"filename_or_obj": first})
        return out


def merge_masks(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> np.ndarray:
    """Read one or more mask files and merge them by OR into a (H, W) bool array."""
    names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    merged = read_mask(names[0])
    for name in names[1:]:
        mask = read_mask(name)
        if mask.shape != merged.shape:
            raise InputError(
                name, f"mask of {mask.shape}, but {names[0]} has {merged.shape}", "give both the same size"
            )
        merged = merged | mask
    return merged
