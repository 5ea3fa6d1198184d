# SPDX-License-Identifier: Apache-2.0
"""Cut images of a batch beside their lesion, so that training meets tissue without one from every scanner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F


class RandomWindows(nn.Module):
    """Enlarge a window of some images: beside the lesion, or, alike in size, around it.

    Only windows around lesions of the same sizes keep the enlargement from telling that there is none.

    Args:
        beside: share of the images whose window holds no pixel of the lesion; where no such window is found, the
            image stays as it is.
        around: share of the images whose window holds the middle of the lesion.
        side: (low, high) of the window's sides as fractions of the image's.
        tries: windows that are tried beside a lesion.

    Shape:
        image (N, C, H, W) float, mask (N, 1, H, W) float 0 or 1; returned likewise.
    """

    def __init__(
        self, beside: float = 0.12, around: float = 0.12, side: Sequence[float] = (0.3, 0.8), tries: int = 48
    ) -> None:
        super().__init__()
        if not (len(side) == 2 and 0 < side[0] <= side[1] <= 1):
            raise ValueError(f"side: {list(side)} must be two fractions, 0 < low <= high <= 1")
        if not (beside >= 0 and around >= 0 and beside + around <= 1):
            raise ValueError(f"beside, around: {beside} and {around} must be shares of no more than 1 together")
        self.beside, self.around, self.side, self.tries = beside, around, tuple(side), tries

    @torch.no_grad()
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.rand(len(image))
        # All numbers are drawn for each image, so that what one gets does not hang on the others' masks.
        sides = self.side[0] + (self.side[1] - self.side[0]) * torch.rand(len(image), self.tries, 2)
        corners = torch.rand(len(image), self.tries, 2) * (1 - sides)
        image, mask = image.clone(), mask.clone()
        for index in torch.nonzero(drawn < self.beside + self.around).flatten().tolist():
            lesion = mask[index, 0].cpu() > 0.5
            if not lesion.any():
                continue
            if drawn[index] < self.beside:
                window = _free_window(lesion, corners[index], sides[index])
            else:
                window = _window_around(lesion, corners[index, 0], sides[index, 0])
            if window is not None:
                image[index], mask[index] = _enlarge(image[index], mask[index], window)
        return image, mask


Window = tuple[int, int, int, int]  # top, left, bottom, right; half-open


def _free_window(lesion: torch.Tensor, corners: torch.Tensor, sides: torch.Tensor) -> Window | None:
    """The first window without a pixel of the lesion."""
    height, width = lesion.shape
    for corner, side in zip(corners.tolist(), sides.tolist(), strict=True):
        top, left = int(corner[0] * height), int(corner[1] * width)
        bottom, right = top + max(1, int(side[0] * height)), left + max(1, int(side[1] * width))
        if not lesion[top:bottom, left:right].any():
            return top, left, bottom, right
    return None


def _window_around(lesion: torch.Tensor, corner: torch.Tensor, side: torch.Tensor) -> Window:
    """A window that holds the middle of the lesion, anywhere in it but at its rim."""
    ends = []
    for axis in (0, 1):
        length = lesion.shape[axis]
        places = torch.nonzero(lesion.any(dim=1 - axis)).flatten()
        middle, extent = float(places.float().mean()), max(1, int(side[axis] * length))
        # The corner's place among all that are possible, used as a number between 0 and 1.
        share = 0.2 + 0.6 * float(corner[axis] / max(1e-6, 1 - float(side[axis])))
        first = min(max(0, int(middle - share * extent)), length - extent)
        ends.append((first, first + extent))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def _enlarge(image: torch.Tensor, mask: torch.Tensor, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    top, left, bottom, right = window
    both = torch.cat([image, mask.to(image.dtype)])[None, :, top:bottom, left:right]
    both = F.interpolate(both, image.shape[-2:], mode="bilinear", align_corners=False)[0]
    return both[:-1], (both[-1:] > 0.5).to(mask.dtype)
