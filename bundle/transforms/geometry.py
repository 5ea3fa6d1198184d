# SPDX-License-Identifier: Apache-2.0
"""From an image of any size to the network's size and back, and the pixel preprocessing that may come with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from kornia.enhance import equalize_clahe
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

NATIVE_SHAPE = "native_shape"
FRAME_SHAPE, REGION = "frame_shape", "region"
"""Metadata of a loaded image: (H, W) of the stored frame, and the box of it that was loaded."""


def resize(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize (C, H, W) to (C, *size), bilinear, smoothed before it shrinks so that speckle does not alias.

    MONAI's Resize smooths with zeros beyond the edge, which darkens the outermost ring by 10 to 20 %; this does not.
    """
    height, width = (max(1, int(length)) for length in size)
    return F.interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True)[0]


def crop_to_region(values: Any, meta: Mapping[str, Any]) -> Any:
    """Cut a map (C, H, W) of the stored frame to the region that its image was loaded from; others pass unchanged.

    Args:
        values: array or tensor.
        meta: of the image, as `LoadUltrasoundd` leaves it.
    """
    if REGION not in meta or tuple(values.shape[-2:]) != tuple(int(n) for n in meta[FRAME_SHAPE]):
        return values
    top, left, bottom, right = (int(edge) for edge in meta[REGION])
    return values[..., top:bottom, left:right]


def place_in_frame(values: np.ndarray, frame_shape: Sequence[int], region: Sequence[int]) -> np.ndarray:
    """Undo a crop to a region: (…, h, w) -> (…, H, W), zero outside; the array itself where nothing was cut.

    Args:
        values: of the region.
        frame_shape: (H, W).
        region: (top, left, bottom, right), half-open.
    """
    height, width = (int(length) for length in frame_shape)
    top, left, bottom, right = (int(edge) for edge in region)
    if (top, left, bottom, right) == (0, 0, height, width):
        return values
    frame = np.zeros((*values.shape[:-2], height, width), dtype=values.dtype)
    frame[..., top:bottom, left:right] = values
    return frame


class FitTod(MapTransform):
    """Bring images (C, H, W) to the network's size; `RestoreSized` leads back.

    ``meta["native_shape"]`` of a MetaTensor keeps the (H, W) that it had.

    Args:
        keys: of images and of masks; a mask is to be binarised afterwards.
        spatial_size: (H, W) of the result.
        letterbox: keep the aspect ratio and fill with zeros on both sides, instead of stretching.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int],
        letterbox: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(spatial_size) != 2 or min(spatial_size) < 1:
            raise ValueError(f"spatial_size: {list(spatial_size)} must be [H, W], both 1 or more")
        self.spatial_size = (int(spatial_size[0]), int(spatial_size[1]))
        self.letterbox = bool(letterbox)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize each image under the keys."""
        out = dict(data)
        for key in self.key_iterator(out):
            image = out[key]
            native = (int(image.shape[-2]), int(image.shape[-1]))
            size, (top, left) = placement(native, self.spatial_size, self.letterbox)
            plain = image.as_tensor() if isinstance(image, MetaTensor) else image
            bottom, right = self.spatial_size[0] - size[0] - top, self.spatial_size[1] - size[1] - left
            fitted = F.pad(resize(plain, size), (left, right, top, bottom))
            meta = {**image.meta, NATIVE_SHAPE: torch.tensor(native)} if isinstance(image, MetaTensor) else None
            out[key] = fitted if meta is None else MetaTensor(fitted, meta=meta)
        return out


class RestoreSized(MapTransform):
    """Bring maps (C, H, W) at the network's size back to the size of the frame they were computed from.

    Where the image was a region of its frame, the map is placed there; outside it is 0.

    Args:
        keys: of maps, such as probabilities.
        orig_keys: of the image whose ``meta["native_shape"]`` says how large it was.
        letterbox: as `FitTod` had it.
    """

    def __init__(self, keys: KeysCollection, orig_keys: Hashable = "image", letterbox: bool = False) -> None:
        super().__init__(keys)
        self.orig_key = orig_keys
        self.letterbox = bool(letterbox)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resize each map under the keys."""
        out = dict(data)
        meta = out[self.orig_key].meta
        native = tuple(int(length) for length in meta[NATIVE_SHAPE])
        for key in self.key_iterator(out):
            plain = out[key].as_tensor() if isinstance(out[key], MetaTensor) else out[key]
            (height, width), (top, left) = placement(native, plain.shape[-2:], self.letterbox)
            restored = resize(plain[..., top : top + height, left : left + width], native)
            if REGION in meta:
                placed = place_in_frame(restored.cpu().numpy(), meta[FRAME_SHAPE], meta[REGION])
                restored = torch.from_numpy(placed).to(restored.device)
            out[key] = restored
        return out


def placement(native: Sequence[int], target: Sequence[int], letterbox: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (H, W) that an image gets inside the target, and its (top, left) there."""
    if not letterbox:
        return (int(target[0]), int(target[1])), (0, 0)
    scale = min(target[0] / native[0], target[1] / native[1])
    height, width = (min(int(t), max(1, round(n * scale))) for n, t in zip(native, target, strict=True))
    return (height, width), ((int(target[0]) - height) // 2, (int(target[1]) - width) // 2)


class EnhanceContrastd(MapTransform):
    """Contrast-limited adaptive histogram equalisation (CLAHE, 8×8 tiles) of images (1, H, W) in [0, 1].

    Args:
        keys: of images; one of fewer than 32 pixels a side is left as it is, its tiles would hold nothing.
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
        for key in self.key_iterator(out):
            image = out[key]
            if self.clip_limit and min(image.shape[-2:]) >= 32:
                plain = image.as_tensor() if isinstance(image, MetaTensor) else image
                equal = equalize_clahe(plain, clip_limit=self.clip_limit)
                out[key] = MetaTensor(equal, meta=image.meta) if isinstance(image, MetaTensor) else equal
        return out
