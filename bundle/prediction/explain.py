# SPDX-License-Identifier: Apache-2.0
"""Where the classifier saw malignancy: Grad-CAM of its network, mapped back to the image's own size."""

from __future__ import annotations

import numpy as np
import torch

from bundle.transforms.geometry import resize
from bundle.transforms.lesion import Box, LesionCrop, LesionRegion, place_square, quantise


class ExplainMalignancy:
    """Heat maps of the evidence for malignancy (Selvaraju et al., Grad-CAM, ICCV 2017).

    Hot is where the network's features raise its logit, whatever it decided. A map is scaled to its own maximum, so
    two maps tell nothing about which image has more evidence; it is zero everywhere where there is none. It explains
    the network alone, not features that the probability is joined with afterwards.

    Args:
        network: the classifier, in evaluation mode; its module ``feature_map`` passes on the last feature map.
        crop: what shows it the lesion.
    """

    def __init__(self, network: torch.nn.Module, crop: LesionCrop) -> None:
        from monai.visualize import GradCAM  # which takes seconds to import, and few ask for an explanation

        self.grad_cam = GradCAM(network, target_layers="feature_map", postprocessing=_scale)
        self.crop = crop

    def __call__(self, seen: torch.Tensor, region: LesionRegion) -> np.ndarray:
        """Return the heat map of one image, (H, W) uint8, 255 where the evidence is strongest.

        Args:
            seen: (1, C, h, w) float32, the network's input, on its device.
            region: the lesion that the crop shows.
        """
        with torch.enable_grad():
            heat = self.grad_cam(seen, class_idx=0)[0].cpu()
        height, width = region.mask.shape
        box = (0, 0, height, width)
        if self.crop.variant != "masked":
            box = place_square(region.box, self.crop.margin, self.crop.min_size)
        return quantise(paste(heat, box, (height, width)))


def paste(heat: torch.Tensor, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Undo a crop: (1, h, w) in [0, 1] -> (H, W) float32, zero outside the box.

    Args:
        heat: of what `cut_mirrored` cut out and `resize` resized.
        box: that was cut out; the part of it that leaves the image is dropped.
        size: (H, W) of the image.
    """
    top, left, bottom, right = box
    square = resize(heat, (bottom - top, right - left))[0].clamp(0, 1).numpy()
    frame = np.zeros(size, dtype=np.float32)
    inside = frame[max(0, top) : bottom, max(0, left) : right]
    first_row, first_column = max(0, -top), max(0, -left)
    inside[:] = square[first_row : first_row + inside.shape[0], first_column : first_column + inside.shape[1]]
    return frame


def _scale(heat: torch.Tensor) -> torch.Tensor:
    """Divide by the maximum; MONAI's default would turn the map upside down."""
    heat = heat.detach()
    return heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
