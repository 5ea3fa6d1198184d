# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.windows."""

from __future__ import annotations

import pytest
import torch

from bundle.transforms import RandomWindows


def _batch(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Dark images with a bright lesion of 12×16 pixels where the mask is."""
    image, mask = torch.full((count, 1, 64, 80), 0.2), torch.zeros(count, 1, 64, 80)
    image[..., 6:18, 8:24], mask[..., 6:18, 8:24] = 1.0, 1.0
    return image, mask


def test_windows_beside_the_lesion_hold_none_of_it() -> None:
    image, mask = RandomWindows(beside=1.0, around=0.0)(*_batch())
    free = ~mask.flatten(1).any(1)
    assert free.float().mean() > 0.9
    assert image[free].max() < 0.5
    assert torch.equal(image[~free], _batch()[0][~free])  # where no window was found the image stays


def test_windows_around_the_lesion_enlarge_it_together_with_its_mask() -> None:
    image, mask = RandomWindows(beside=0.0, around=1.0)(*_batch())
    areas = mask.flatten(1).sum(1)
    assert (areas > 12 * 16 * 1.3).all()
    assert areas.unique().numel() > 10
    assert ((image > 0.6) == (mask > 0.5)).float().mean() > 0.98


def test_only_the_asked_shares_change_and_a_seed_repeats_them() -> None:
    image, mask = _batch(400)
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append(RandomWindows(beside=0.2, around=0.1)(image, mask))
    assert torch.equal(results[0][0], results[1][0])
    changed = (results[0][0] != image).flatten(1).any(1)
    without = ~results[0][1].flatten(1).any(1)
    assert 0.13 < without.float().mean() < 0.27
    assert 0.2 < changed.float().mean() < 0.4


def test_images_without_a_lesion_stay() -> None:
    image = torch.rand(8, 1, 32, 32)
    result, mask = RandomWindows(beside=0.5, around=0.5)(image, torch.zeros_like(image))
    assert torch.equal(result, image)
    assert not mask.any()


def test_a_lesion_that_fills_the_image_leaves_no_window() -> None:
    image, mask = torch.rand(4, 1, 32, 32), torch.ones(4, 1, 32, 32)
    assert torch.equal(RandomWindows(beside=1.0, around=0.0)(image, mask)[0], image)


@pytest.mark.parametrize("wrong", [{"side": (0.5, 1.5)}, {"side": (0.0, 0.5)}, {"beside": 0.7, "around": 0.5}])
def test_impossible_windows_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RandomWindows(**wrong)
