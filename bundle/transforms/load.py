# SPDX-License-Identifier: Apache-2.0
"""MONAI dictionary transforms that read files with our readers, H×W and once."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

from bundle.readers import read_image
from bundle.transforms.geometry import FRAME_SHAPE, REGION, UNUSABLE, crop_to_region
from bundle.transforms.masks import merge_masks, read_probability


class LoadUltrasoundd(MapTransform):
    """Read the tissue of image files as MetaTensors (1, H, W) float32 in [0, 1].

    MONAI's own loaders give W×H for PNG, ignore EXIF rotation and do not limit the size of what they decode.
    ``meta`` holds ``filename_or_obj``, ``spatial_shape`` (H, W), ``spacing_mm`` (row, column) or NaN, ``warnings``, and
    where the tissue lies: ``region`` (top, left, bottom, right) of the stored frame of ``frame_shape`` (H, W).
    ``unusable`` says why nothing can be seen in it, see
    `bundle.readers.contrast.why_unusable`; empty where something can.

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
                "spatial_shape": np.asarray(image.tissue.shape),
                FRAME_SHAPE: np.asarray(image.pixels.shape),
                REGION: np.asarray(image.box),
                "spacing_mm": np.asarray(spacing),
                "warnings": "; ".join(image.warnings),
                UNUSABLE: image.unusable or "",
            }
            out[key] = MetaTensor(torch.from_numpy(image.tissue / 255.0)[None], meta=meta)
        return out


class LoadLesionMaskd(MapTransform):
    """Read a mask file, or several merged by OR, as a MetaTensor (1, H, W) float32 of 0 and 1.

    ``meta["filename_or_obj"]`` is the first file: MONAI's data statistics want a name.

    A mask is brought to the size of the whole frame, see `merge_masks`, and cut to the region that its image was
    loaded from.

    Args:
        keys: of the paths.
        image_key: of the image, loaded before; without it nothing is resized or cut.

    Raises:
        InputError: a file can not be used, or two masks of one image differ in size.
    """

    def __init__(self, keys: KeysCollection, image_key: Hashable = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path, or list of paths, under the keys by its mask."""
        out = dict(data)
        image = out.get(self.image_key)
        meta = meta_of(image)
        whole = meta.get(FRAME_SHAPE, image.shape[-2:] if isinstance(image, torch.Tensor) else None)
        shape = None if whole is None else tuple(int(side) for side in whole)
        for key in self.key_iterator(out):
            paths = out[key]
            names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
            first = os.fspath(names[0]) if names else str(meta.get("filename_or_obj", ""))
            mask = merge_masks(paths, meta.get("filename_or_obj"), shape).astype(np.float32)[None]
            out[key] = MetaTensor(torch.from_numpy(crop_to_region(mask, meta)), meta={"filename_or_obj": first})
        return out


class LoadProbabilityd(MapTransform):
    """Read predicted lesion probabilities as tensors (1, H, W) float32 in [0, 1].

    A path is an 8-bit grey PNG, 255 for certainty. A list of paths is ground-truth masks, merged by OR: the oracle's.
    A map of the whole frame is cut to the region that its image was loaded from.

    Args:
        keys: of the maps.
        image_key: of the image, loaded before; a record without it has nothing cut.

    Raises:
        InputError: a file can not be used, or is coloured, as an overlay is.
    """

    def __init__(self, keys: KeysCollection, image_key: Hashable = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each path under the keys by its map."""
        out = dict(data)
        meta = meta_of(out.get(self.image_key))
        for key in self.key_iterator(out):
            if isinstance(out[key], (str, os.PathLike)):
                values = read_probability(out[key])
            else:
                values = merge_masks(out[key], meta.get("filename_or_obj")).astype(np.float32)
            out[key] = torch.from_numpy(crop_to_region(values[None], meta))
        return out


def meta_of(image: Any) -> Mapping[str, Any]:
    """The metadata of a loaded image; nothing of what is none."""
    return image.meta if isinstance(image, MetaTensor) else {}
