# SPDX-License-Identifier: Apache-2.0
"""From an image of any size to the network's size, and the pixel preprocessing that may come with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from kornia.enhance import equalize_clahe
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform, Resized, SpatialPadd


def fit_to(keys: KeysCollection, spatial_size: Sequence[int], letterbox: bool = False) -> Compose:
    """Make the transform that brings (1, H, W) images to the network's size; ``Invertd`` of it leads back.

    Args:
        keys: of images; smoothed before they shrink, so that speckle does not alias.
        spatial_size: (H, W) of the result.
        letterbox: keep the aspect ratio and fill with black, instead of stretching.
    """
    height, width = (int(size) for size in spatial_size)
    if not letterbox:
        return Compose([Resized(keys, (height, width), mode="bilinear", anti_aliasing=True)])
    if height != width:
        raise ValueError(f"letterbox: needs a square spatial_size, not {height}×{width}")
    return Compose(
        [
            Resized(keys, height, size_mode="longest", mode="bilinear", anti_aliasing=True),
            SpatialPadd(keys, (height, width)),
        ]
    )


class EnhanceContrastd(MapTransform):
    """Contrast-limited adaptive histogram equalisation (CLAHE) of images (1, H, W) in [0, 1].

    Args:
        keys: of images.
        clip_limit: how far a tile's histogram may be stretched; 0 switches the transform off.
    """

    def __init__(self, keys: KeysCollection, clip_limit: float = 0.0, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if clip_limit < 0:
            raise ValueError(f"clip_limit: {clip_limit} must be 0 (off) or more")
        self.clip_limit = float(clip_limit)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Equalise each image under the keys; its metadata stays."""
        out = dict(data)
        if self.clip_limit:
            for key in self.key_iterator(out):
                plain = torch.as_tensor(out[key].as_tensor() if hasattr(out[key], "as_tensor") else out[key])
                out[key] = out[key] * 0 + equalize_clahe(plain, clip_limit=self.clip_limit)
        return out
