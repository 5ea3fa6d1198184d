# SPDX-License-Identifier: Apache-2.0
"""Augmentation of a whole batch on the training device: image and mask warp together, then the image alone varies.

On two CPU cores this costs a few per cent of a training step; the same transforms per image in a DataLoader cost more
than the small network itself.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F


class RandomWarp(nn.Module):
    """Flip, rotate, shift, zoom, stretch and bend each image of a batch, with one interpolation in all.

    Everything is one sampling grid, so the image is blurred once, and the elastic part is a coarse field that is
    upsampled: a Gaussian-smoothed dense field (63×63 kernel) costs more than the network and looks the same.
    Pixels from outside are mirrored. The numbers are drawn on the CPU from torch's global generator, so that a run
    draws the same on each device and a reseeded epoch repeats itself.

    Args:
        degrees: rotation, uniform in ±degrees. Ultrasound has an up: keep it small.
        translate: shift as a fraction of the image size, uniform in ±translate, for rows and columns.
        zoom: (low, high) factor; above 1 the lesion grows. Drawn log-uniformly.
        stretch: (low, high) of the width-to-height factor, drawn log-uniformly.
        elastic: largest shift of a node of the coarse field, as a fraction of the image size; 0 switches it off.
        elastic_nodes: nodes of the coarse field per side.
        flip: probability of a left-right flip. There is no up-down flip: depth is not symmetric.
        probability: chance that an image is warped (beside the flip, which has its own).
    """

    def __init__(
        self,
        degrees: float = 20.0,
        translate: float = 0.1,
        zoom: Sequence[float] = (0.75, 1.35),
        stretch: Sequence[float] = (0.8, 1.25),
        elastic: float = 0.03,
        elastic_nodes: int = 5,
        flip: float = 0.5,
        probability: float = 0.9,
    ) -> None:
        super().__init__()
        for name, pair in (("zoom", zoom), ("stretch", stretch)):
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise ValueError(f"{name}: {list(pair)} must be two factors, 0 < low <= high")
        self.degrees, self.translate, self.elastic, self.elastic_nodes = degrees, translate, elastic, elastic_nodes
        self.zoom, self.stretch, self.flip, self.probability = tuple(zoom), tuple(stretch), flip, probability

    def draw_grid(self, batch: int, height: int, width: int) -> torch.Tensor:
        """Draw the sampling grid of a batch: (N, H, W, 2) float32, normalised (x, y) as ``grid_sample`` wants them."""
        active = (torch.rand(batch) < self.probability).float()
        angle = torch.deg2rad((torch.rand(batch) * 2 - 1) * self.degrees) * active
        shift = (torch.rand(batch, 2) * 2 - 1) * 2 * self.translate * active[:, None]
        zoom = _log_uniform(self.zoom, batch) ** active
        stretch = _log_uniform(self.stretch, batch) ** (0.5 * active)
        mirror = torch.where(torch.rand(batch) < self.flip, -1.0, 1.0)
        # Output position -> input position: a lesion that shall grow is sampled more densely, hence the division.
        # Rotation acts on pixels, the grid on the unit square: W/H enters where x and y mix.
        scale_x, scale_y = mirror / (zoom * stretch), stretch / zoom
        cos, sin, aspect = torch.cos(angle), torch.sin(angle), height / width
        # The grid is rows @ coefficients @ columns: constant, linear (x along columns, y along rows), then the bend.
        # One product: `F.affine_grid` alone takes longer than to sample the images.
        nodes = self.elastic_nodes if self.elastic else 0
        coefficients = torch.zeros(batch, 2, 2 + nodes, 2 + nodes)
        coefficients[:, :, 0, 0] = shift
        coefficients[:, :, 0, 1] = torch.stack([cos * scale_x, sin * scale_x / aspect], dim=1)
        coefficients[:, :, 1, 0] = torch.stack([-sin * scale_y * aspect, cos * scale_y], dim=1)
        if nodes:
            bend = (torch.rand(batch, 2, nodes, nodes) * 2 - 1) * 2 * self.elastic
            coefficients[:, :, 2:, 2:] = bend * active[:, None, None, None]
        return (_basis(nodes, height) @ coefficients @ _basis(nodes, width).T).permute(0, 2, 3, 1)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Warp a batch.

        Args:
            image: (N, C, H, W) float.
            mask: (N, 1, H, W) float, 0 or 1.

        Returns:
            both, same shapes and dtypes; the mask is 0 or 1 again.
        """
        grid = self.draw_grid(image.shape[0], image.shape[-2], image.shape[-1]).to(image.device)
        both = warp(torch.cat([image, mask.to(image.dtype)], dim=1), grid)
        return both[:, :-1], (both[:, -1:] > 0.5).to(mask.dtype)


def warp(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample (N, C, H, W) float at a grid (N, H, W, 2), bilinear, mirrored at the edges."""
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@functools.lru_cache(maxsize=8)
def _basis(nodes: int, length: int) -> torch.Tensor:
    """What a grid is made of along one side, (length, 2 + nodes): 1, the pixels' positions, a bicubic interpolation."""
    positions = (torch.arange(length) * 2 + 1) / length - 1
    parts = [torch.ones(length, 1), positions[:, None]]
    if nodes:  # `F.interpolate` of the field itself takes 30 times as long
        parts.append(F.interpolate(torch.eye(nodes)[None, None], (nodes, length), mode="bicubic")[0, 0].T)
    return torch.cat(parts, dim=1)


def _log_uniform(bounds: Sequence[float], count: int) -> torch.Tensor:
    low, high = torch.tensor(bounds[0]).log(), torch.tensor(bounds[1]).log()
    return (low + torch.rand(count) * (high - low)).exp()


class RandomSpeckle(nn.Module):
    """Multiply each image by correlated noise, as coherent ultrasound does: brighter tissue gets more of it.

    Args:
        strength: (low, high) standard deviation of the factor around 1.
        grain: (low, high) size of a speckle grain in pixels.
        probability: chance that a batch gets it; strength differs from image to image.

    Shape:
        (N, C, H, W) float in [0, 1], in and out.
    """

    def __init__(
        self, strength: Sequence[float] = (0.05, 0.25), grain: Sequence[float] = (1.0, 3.0), probability: float = 0.5
    ) -> None:
        super().__init__()
        self.strength, self.grain, self.probability = tuple(strength), tuple(grain), probability

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if torch.rand(1).item() >= self.probability:
            return image
        batch, _, height, width = image.shape
        grain = float(_log_uniform(self.grain, 1))
        noise = torch.randn(batch, 1, max(1, round(height / grain)), max(1, round(width / grain)))
        strength = _log_uniform(self.strength, batch)[:, None, None, None]
        field = F.interpolate(noise * strength, (height, width), mode="bilinear").to(image.device)
        return (image * (1 + field)).clamp(0, 1)


class RandomApply(nn.Module):
    """Change some images of a batch, each chosen by itself, and compute the change for those alone.

    What kornia's own ``p`` leaves as it is, is computed all the same and thrown away.

    Args:
        change: called with the chosen images, (n, C, H, W); such as one of ``kornia.augmentation`` whose ``p`` is 1.
        probability: chance that an image is chosen.

    Shape:
        (N, C, H, W) float, in and out.
    """

    def __init__(self, change: nn.Module, probability: float) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: {probability} must be in [0, 1]")
        self.change, self.probability = change, probability

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        chosen = torch.nonzero(torch.rand(len(image)) < self.probability).flatten().to(image.device)
        if not len(chosen):
            return image
        return image.index_copy(0, chosen, self.change(image[chosen]).to(image.dtype))


class BatchAugmentation(nn.Module):
    """Windows, drawn marks and a warp of image and mask, then a chain of intensity changes of the image.

    Args:
        warp: of image and mask together; None for none.
        intensity: modules called one after another with the image in [0, 1], such as `RandomApply` with one of
            ``kornia.augmentation``.
        windows: cuts windows of image and mask, before all else; None for none.
        marks: draws marks into the image, called with image and mask before the warp; None for none.

    Shape:
        image (N, C, H, W) float in [0, 1], mask (N, 1, H, W) float 0 or 1; returned likewise.
    """

    def __init__(
        self,
        warp: RandomWarp | None = None,
        intensity: Sequence[nn.Module] = (),
        windows: nn.Module | None = None,
        marks: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.warp = warp
        self.intensity = nn.ModuleList(intensity)
        self.windows = windows
        self.marks = marks

    @torch.no_grad()
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.windows is not None:
            image, mask = self.windows(image, mask)
        if self.marks is not None:
            image = self.marks(image, mask)
        if self.warp is not None:
            image, mask = self.warp(image, mask)
        for change in self.intensity:
            image = change(image)
        return image.clamp(0, 1), mask


class ImageAugmentation(BatchAugmentation):
    """The same for a classifier: the label is no picture, and only the first channel is one of grey levels.

    Marks are drawn as for a segmenter, at the lesion that the soft mask shows. There are no windows.

    Shape:
        image (N, C, H, W) float in [0, 1], the channels after the first (a soft mask) are warped alone; label any.
    """

    @torch.no_grad()
    def forward(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.marks is not None:
            image = self.marks(image, image[:, 1:2] if image.shape[1] > 1 else torch.zeros_like(image))
        if self.warp is not None:
            grid = self.warp.draw_grid(image.shape[0], image.shape[-2], image.shape[-1])
            image = warp(image, grid.to(image.device))
        grey = image[:, :1]
        for change in self.intensity:
            grey = change(grey)
        return torch.cat([grey.clamp(0, 1), image[:, 1:]], dim=1), label
