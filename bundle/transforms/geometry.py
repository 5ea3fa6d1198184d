# SPDX-License-Identifier: Apache-2.0
"""From an image of any size to the network's size and back, and the pixel preprocessing that may come with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

FRAME_SHAPE, REGION, UNUSABLE = "frame_shape", "region", "unusable"
"""Metadata of a loaded image: (H, W) of the stored frame, the box of it that was loaded, and why it shows nothing."""


def resize(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize (C, H, W) to (C, *size), bilinear, smoothed before it shrinks so that speckle does not alias.

    MONAI's Resize smooths with zeros beyond the edge, which darkens the outermost ring by 10 to 20 %; this does not.
    """
    height, width = (max(1, int(length)) for length in size)
    if height >= image.shape[-2] and width >= image.shape[-1] and _is_plain(image):
        # Nothing shrinks, so nothing is smoothed: OpenCV does the same in a fifth of the time.
        planes = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in image.float().numpy()]
        return torch.from_numpy(planes[0][None] if len(planes) == 1 else np.stack(planes))
    return F.interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True)[0]


def _is_plain(image: torch.Tensor) -> bool:
    """Whether NumPy may look at it: on the CPU, without a gradient, no subclass that carries more than values."""
    return type(image) is torch.Tensor and image.device.type == "cpu" and not image.requires_grad


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


def fit(image: torch.Tensor, size: Sequence[int], letterbox: bool = False) -> torch.Tensor:
    """Bring an image (C, H, W) to the network's size, (C, *size); `restore` leads back.

    Args:
        image: float.
        size: (H, W) of the result.
        letterbox: keep the aspect ratio and fill with zeros on both sides, instead of stretching.
    """
    inner, (top, left) = placement(image.shape[-2:], size, letterbox)
    if inner == tuple(size):
        return resize(image, inner)
    bottom, right = size[0] - inner[0] - top, size[1] - inner[1] - left
    return F.pad(resize(image, inner), (left, right, top, bottom))


def restore(values: torch.Tensor, native: Sequence[int], letterbox: bool = False) -> torch.Tensor:
    """Bring a map (C, h, w) at the network's size back to the (H, W) that its image had before `fit`."""
    (height, width), (top, left) = placement(native, values.shape[-2:], letterbox)
    return resize(values[..., top : top + height, left : left + width], native)


def placement(native: Sequence[int], target: Sequence[int], letterbox: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (H, W) that an image gets inside the target, and its (top, left) there."""
    if not letterbox:
        return (int(target[0]), int(target[1])), (0, 0)
    scale = min(target[0] / native[0], target[1] / native[1])
    height, width = (min(int(t), max(1, round(n * scale))) for n, t in zip(native, target, strict=True))
    return (height, width), ((int(target[0]) - height) // 2, (int(target[1]) - width) // 2)


def equalise(image: torch.Tensor, clip_limit: float) -> torch.Tensor:
    """Contrast-limited adaptive histogram equalisation (CLAHE, 8×8 tiles) of an image (1, H, W) in [0, 1].

    Args:
        image: one of fewer than 32 pixels a side is returned as it is, its tiles would hold nothing.
        clip_limit: how far a tile's histogram may be stretched; with 0 the image is returned as it is.
    """
    if not clip_limit or min(image.shape[-2:]) < 32:
        return image
    from kornia.enhance import equalize_clahe  # off by default, and it takes long to import

    equal: torch.Tensor = equalize_clahe(image, clip_limit=clip_limit)
    return equal
