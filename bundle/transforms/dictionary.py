# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of this room as MONAI dictionary transforms, for configs; those that read files stand in `load`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform

from bundle.errors import UserError
from bundle.transforms.features import FEATURES, describe_lesion
from bundle.transforms.geometry import FRAME_SHAPE, REGION, UNUSABLE, equalise, fit, place_in_frame, restore
from bundle.transforms.lesion import LesionCrop, find_lesion, quantise, split_presence
from bundle.transforms.marks import remove_marks

NATIVE_SHAPE = "native_shape"


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
        for key in self.key_iterator(out) if self.clip_limit else ():
            image = out[key]
            equal = equalise(_plain(image), self.clip_limit)
            out[key] = MetaTensor(equal, meta=image.meta) if isinstance(image, MetaTensor) else equal
        return out


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
            fitted = fit(_plain(image), self.spatial_size, self.letterbox)
            if isinstance(image, MetaTensor):
                fitted = MetaTensor(fitted, meta={**image.meta, NATIVE_SHAPE: torch.tensor(image.shape[-2:])})
            out[key] = fitted
        return out


class RestoreSized(MapTransform):
    """Bring maps (C, H, W) at the network's size back to the size of the frame they were computed from.

    Where the image was a region of its frame, the map is placed there; outside it is 0. Where the image shows nothing
    (``meta["unusable"]``) the map is 0 everywhere: what a network makes of a blank screen is not told.

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
            restored = restore(_plain(out[key]), native, self.letterbox)
            if REGION in meta:
                placed = place_in_frame(restored.cpu().numpy(), meta[FRAME_SHAPE], meta[REGION])
                restored = torch.from_numpy(placed).to(restored.device)
            out[key] = torch.zeros_like(restored) if meta.get(UNUSABLE) else restored
        return out


class OutlineLesiond(MapTransform):
    """Turn what a segmenter gives, (C, H, W) float in [0, 1], into the mask (1, H, W) uint8, 1 is lesion.

    Adds ``probability``, the map (1, H, W) float; and ``lesion_probability``, what a presence head says of the image,
    None without one, see `split_presence`.

    Args:
        keys: of one such answer.
        threshold: a pixel whose probability reaches it is lesion.
        none_below: the mask is empty where a lesion is less probable than this, see
            `bundle.networks.weights.none_below`; the map stays.
    """

    def __init__(self, keys: KeysCollection, threshold: float = 0.5, none_below: float = 0.0) -> None:
        super().__init__(keys)
        self.threshold, self.none_below = float(threshold), float(none_below)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Outline the lesion."""
        out = dict(data)
        for key in self.key_iterator(out):
            _, presence = split_presence(_plain(out[key]))
            probability = _plain(out[key])[:1]
            told = presence is None or presence >= self.none_below
            out[key] = (probability >= self.threshold).to(torch.uint8) * told
            out |= {"probability": probability, "lesion_probability": presence}
        return out


class DescribeLesiond(Transform):
    """Add ``data["features"]``, (F,) float32: the `FEATURES` of the lesion; and ``data["outlined"]``, 0 or 1.

    Where no pixel reaches the threshold, ``outlined`` is 0 and the most probable region stands in: a network may train
    on its crop, but nothing is fitted on its features, and an evaluation counts it as not classified.

    It stands before `CropLesiond`, while the image is whole: (1, H, W) float in [0, 1], as is the probability.

    Args:
        key: of the image.
        probability_key: of the lesion's probability.
        threshold: a pixel whose probability reaches it is lesion.
    """

    def __init__(self, key: str = "image", probability_key: str = "probability", threshold: float = 0.5) -> None:
        self.key, self.probability_key, self.threshold = key, probability_key, float(threshold)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Describe the lesion."""
        levels = quantise(torch.as_tensor(data[self.probability_key]).detach().float().cpu().numpy())[0]
        pixels = torch.as_tensor(data[self.key]).float().cpu().numpy()[0] * 255
        region = find_lesion(levels, self.threshold)
        values = describe_lesion(pixels, levels, region)
        features = torch.tensor([values[name] for name in FEATURES], dtype=torch.float32)
        return {**data, "features": features, "outlined": int(not region.is_fallback)}


class CropLesiond(MapTransform):
    """Show the classifier the lesion: (1, H, W) images in [0, 1] -> (C, h, w) float32, with what was found.

    Adds ``data["lesion"]``: ``box`` (4,) int64, ``components`` and ``is_fallback`` ints; see `LesionRegion`.

    Args:
        keys: of images.
        probability_key: (1, H, W) float in [0, 1], of the images' size; it stays as it is.
        threshold, variant, margin, spatial_size, min_size: see `LesionCrop`.

    Raises:
        ValueError: an unknown variant or an impossible number.
        UserError: image and map differ in size, or the map leaves [0, 1].
    """

    def __init__(
        self,
        keys: KeysCollection,
        probability_key: str = "probability",
        threshold: float = 0.5,
        variant: str = "crop+mask",
        margin: float = 0.25,
        spatial_size: Sequence[int] = (128, 128),
        min_size: int = 32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.probability_key = probability_key
        self.crop = LesionCrop(threshold, variant, margin, spatial_size, min_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image under the keys by what the classifier sees."""
        out = dict(data)
        levels = quantise(torch.as_tensor(out[self.probability_key]).detach().float().cpu().numpy())
        region = find_lesion(levels[0], self.crop.threshold)
        for key in self.key_iterator(out):
            image = out[key]
            plain = torch.as_tensor(_plain(image))
            if plain.shape != levels.shape:
                raise UserError(
                    f"{_name(image)}: {tuple(plain.shape)}, but its probability map is {levels.shape}; segment it again"
                )
            seen = self.crop.show(plain[0].float().cpu().numpy(), levels[0], region)
            out[key] = MetaTensor(seen, meta=image.meta) if isinstance(image, MetaTensor) else seen
        out["lesion"] = {
            "box": torch.tensor(region.box),
            "components": region.components,
            "is_fallback": int(region.is_fallback),
        }
        return out


class RemoveMarksd(MapTransform):
    """Put a copy of an image without drawn strokes beside it or in its place, see `remove_marks`.

    Args:
        keys: of images (1, H, W) float in [0, 1].
        names: of the copies; None to replace the images, which keep their metadata.
        active: false to do nothing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        names: KeysCollection | None = None,
        active: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        copies = self.keys if names is None else names
        self.names = (copies,) if isinstance(copies, str) else tuple(copies)  # type: ignore[arg-type]
        self.active = bool(active)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the copies, which carry no metadata, or replace the images."""
        out = dict(data)
        if not self.active:
            return out
        for key, name in self.key_iterator(out, self.names):
            grey = np.rint(_plain(out[key])[0].cpu().numpy() * 255).astype(np.uint8)
            clean = torch.from_numpy(remove_marks(grey)[None].astype(np.float32) / 255)
            image = out[key]
            out[name] = MetaTensor(clean, meta=image.meta) if name == key and isinstance(image, MetaTensor) else clean
        return out


def _plain(image: Any) -> Any:
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def _name(image: Any) -> str:
    return str(getattr(image, "meta", {}).get("filename_or_obj", "image"))
