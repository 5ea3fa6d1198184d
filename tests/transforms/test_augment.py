# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.augment."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.transforms import BatchAugmentation, ImageAugmentation, RandomApply, RandomSpeckle, RandomWarp

STILL: dict[str, Any] = {
    "degrees": 0.0,
    "translate": 0.0,
    "zoom": (1.0, 1.0),
    "stretch": (1.0, 1.0),
    "elastic": 0.0,
    "flip": 0.0,
    "probability": 1.0,
}


def _disc(height: int, width: int, row: float, column: float, radius: float, batch: int = 1) -> torch.Tensor:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    disc = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return disc.float().expand(batch, 1, height, width)


def _noise(batch: int = 2, height: int = 37, width: int = 61) -> torch.Tensor:
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(3))


def _measure(mask: torch.Tensor) -> tuple[float, float, float, float]:
    """Centre (row, column) and standard deviation along rows and columns of one mask."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    rows, columns = rows.float(), columns.float()
    return float(rows.mean()), float(columns.mean()), float(rows.std()), float(columns.std())


def test_identity_settings_return_image_and_mask_unchanged() -> None:
    image = _noise()
    mask = (image > 0.5).float()
    warped, same = RandomWarp(**STILL)(image, mask)
    torch.testing.assert_close(warped, image, atol=1e-4, rtol=0)
    assert torch.equal(same, mask)


def test_an_image_that_is_not_chosen_is_at_most_flipped() -> None:
    image = _noise(batch=16)
    warped, _ = RandomWarp(probability=0.0)(image, image)
    for before, after in zip(image, warped, strict=True):
        assert min((after - before).abs().max(), (after - before.flip(-1)).abs().max()) < 1e-4


def test_flip_mirrors_left_and_right_exactly() -> None:
    image = _noise()
    mask = (image > 0.5).float()
    warped, flipped = RandomWarp(**{**STILL, "flip": 1.0})(image, mask)
    torch.testing.assert_close(warped, image.flip(-1), atol=1e-4, rtol=0)
    assert torch.equal(flipped, mask.flip(-1))


def test_depth_is_never_turned_upside_down() -> None:
    rows = torch.linspace(0, 1, 40)[None, None, :, None].expand(64, 1, 40, 60)
    torch.manual_seed(0)
    warped, _ = RandomWarp()(rows, rows)
    assert (warped[..., -10:, 20:40].mean(dim=(1, 2, 3)) > warped[..., :10, 20:40].mean(dim=(1, 2, 3))).all()


@pytest.mark.parametrize("size", [(60, 120), (120, 60)])
def test_rotation_keeps_a_circle_a_circle_on_a_non_square_image(size: tuple[int, int]) -> None:
    height, width = size
    disc = _disc(height, width, height / 2 + 8, width / 2 + 6, 10, batch=8)
    torch.manual_seed(0)
    _, turned = RandomWarp(**{**STILL, "degrees": 25.0})(disc, disc)
    for mask in turned[:, 0]:
        row, column, tall, wide = _measure(mask)
        assert tall == pytest.approx(wide, rel=0.04)
        assert float(mask.sum()) == pytest.approx(float(disc[0].sum()), rel=0.04)
        # A rotation about the middle keeps the distance from it, in pixels.
        distance = math.hypot(row - (height - 1) / 2, column - (width - 1) / 2)
        assert distance == pytest.approx(math.hypot(8.5, 6.5), abs=0.5)


def test_rotation_turns_by_the_drawn_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size: torch.ones(*size))
    disc = _disc(61, 121, 30, 90, 5)
    _, turned = RandomWarp(**{**STILL, "degrees": 30.0, "probability": 2.0})(disc, disc)
    row, column, *_ = _measure(turned[0, 0])
    assert abs(math.degrees(math.atan2(row - 30, column - 60))) == pytest.approx(30, abs=1)
    assert math.hypot(row - 30, column - 60) == pytest.approx(30, abs=0.5)


def test_zoom_two_makes_the_lesion_four_times_as_large() -> None:
    disc = _disc(80, 120, 39.5, 59.5, 12)
    _, zoomed = RandomWarp(**{**STILL, "zoom": (2.0, 2.0)})(disc, disc)
    assert float(zoomed.sum() / disc.sum()) == pytest.approx(4, rel=0.03)


def test_stretch_is_the_ratio_of_width_to_height_at_the_same_area() -> None:
    disc = _disc(80, 120, 39.5, 59.5, 15)
    _, stretched = RandomWarp(**{**STILL, "stretch": (1.5, 1.5)})(disc, disc)
    _, _, tall, wide = _measure(stretched[0, 0])
    assert wide / tall == pytest.approx(1.5, rel=0.03)
    assert float(stretched.sum() / disc.sum()) == pytest.approx(1, rel=0.03)


def test_translate_shifts_by_at_most_its_fraction_of_the_image() -> None:
    disc = _disc(80, 120, 39.5, 59.5, 6, batch=64)
    torch.manual_seed(0)
    _, shifted = RandomWarp(**{**STILL, "translate": 0.2})(disc, disc)
    centres = torch.tensor([_measure(mask)[:2] for mask in shifted[:, 0]])
    reach = (centres - torch.tensor([39.5, 59.5])).abs().max(dim=0).values
    assert 0.7 * 16 < reach[0] <= 16.2
    assert 0.7 * 24 < reach[1] <= 24.2


def test_the_elastic_field_is_a_bicubic_interpolation_of_its_nodes() -> None:
    still = {**STILL, "elastic": 0.1, "elastic_nodes": 4}
    torch.manual_seed(0)
    bent = RandomWarp(**still).draw_grid(2, 30, 44)
    torch.manual_seed(0)
    straight = RandomWarp(**{**still, "elastic": 0.0}).draw_grid(2, 30, 44)
    nodes = (torch.rand(2, 2, 4, 4) * 2 - 1) * 2 * 0.1  # what is drawn next
    field = torch.nn.functional.interpolate(nodes, (30, 44), mode="bicubic").permute(0, 2, 3, 1)
    assert torch.allclose(bent - straight, field, atol=1e-6)
    assert field.abs().max() > 0.1


@given(seed=st.integers(0, 2**31), height=st.integers(16, 48), width=st.integers(16, 48))
@settings(deadline=None, max_examples=25)
def test_image_and_mask_warp_alike_and_stay_in_range(seed: int, height: int, width: int) -> None:
    mask = _disc(height, width, height / 2, width / 3, 6, batch=3)
    torch.manual_seed(seed)
    image, warped = RandomWarp(flip=0.5)(mask, mask)
    assert image.shape == warped.shape == mask.shape
    assert image.dtype == warped.dtype == torch.float32
    assert set(warped.unique().tolist()) <= {0.0, 1.0}
    assert image.min() >= 0
    assert image.max() <= 1
    assert torch.equal(warped, (image > 0.5).float())


def test_image_and_mask_show_the_same_place_when_several_images_are_warped_differently() -> None:
    mask = _disc(64, 96, 30, 40, 12, batch=8)
    image = (mask * 0.8 + 0.1).clone()
    torch.manual_seed(4)
    warped_image, warped_mask = RandomWarp()(image, mask)
    assert ((warped_image > 0.5).float() - warped_mask).abs().max() == 0
    assert len({float(one.sum()) for one in warped_mask}) > 4


def test_the_same_seed_draws_the_same_warp() -> None:
    image = _noise()
    results = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        results.append(RandomWarp()(image, (image > 0.5).float()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.2, 0.8), (1.0,), (-1.0, 1.0)])
@pytest.mark.parametrize("name", ["zoom", "stretch"])
def test_impossible_factors_are_refused_by_name(name: str, pair: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=name):
        RandomWarp(**{**STILL, name: pair})


def test_speckle_has_the_asked_strength_and_grows_with_brightness() -> None:
    image = torch.full((8, 1, 64, 64), 0.2)
    image[:, :, :, 32:] = 0.4
    torch.manual_seed(0)
    noisy = RandomSpeckle(strength=(0.2, 0.2), grain=(1.0, 1.0), probability=1.0)(image)
    dark, bright = (noisy - image)[..., :32].std(), (noisy - image)[..., 32:].std()
    assert float(dark) == pytest.approx(0.04, rel=0.05)
    assert float(bright / dark) == pytest.approx(2, rel=0.05)


def test_speckle_of_probability_zero_changes_nothing_and_black_stays_black() -> None:
    image = _noise()
    assert torch.equal(RandomSpeckle(probability=0.0)(image), image)
    black = torch.zeros(2, 1, 5, 3)
    assert torch.equal(RandomSpeckle(probability=1.0)(black), black)


def test_a_change_of_some_is_computed_for_those_alone_and_leaves_the_others_as_they_are() -> None:
    seen = []

    class Brighten(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(len(image))
            return image + 1

    image = _noise(batch=400)
    torch.manual_seed(0)
    changed = RandomApply(Brighten(), 0.3)(image)
    chosen = (changed != image).flatten(1).any(dim=1)
    assert seen == [int(chosen.sum())]
    assert 90 < seen[0] < 150
    assert torch.equal(changed, torch.where(chosen[:, None, None, None], image + 1, image))
    torch.manual_seed(0)
    assert torch.equal(RandomApply(Brighten(), 0.3)(image), changed)
    assert torch.equal(RandomApply(Brighten(), 0.0)(image), image)
    assert torch.equal(RandomApply(Brighten(), 1.0)(image), image + 1)


@pytest.mark.parametrize("config", ["train.json", "train_classifier.json"])
def test_no_change_of_the_recipe_is_computed_for_images_that_do_not_get_it(root: Path, config: str) -> None:
    for described in json.loads((root / "configs" / config).read_text(encoding="utf-8"))["augment"]["intensity"]:
        inner = described.get("change", {"p": 1.0})
        assert (described["_target_"].startswith("bundle."), inner["p"]) == (True, 1.0)


def test_intensity_changes_leave_the_mask_alone_and_the_image_in_range() -> None:
    class Brighten(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 3 * image - 0.5

    image = _noise().requires_grad_()
    mask = (image > 0.5).float()
    changed, same = BatchAugmentation(intensity=[Brighten()])(image, mask)
    assert torch.equal(same, mask)
    assert torch.equal(changed, (3 * image - 0.5).clamp(0, 1))
    assert not changed.requires_grad


def test_the_warp_comes_before_the_intensity_changes() -> None:
    image = _noise()
    augment = BatchAugmentation(RandomWarp(**{**STILL, "flip": 1.0}), [RandomSpeckle(probability=0.0)])
    changed, mask = augment(image, (image > 0.5).float())
    torch.testing.assert_close(changed, image.flip(-1), atol=1e-4, rtol=0)
    assert torch.equal(mask, (image > 0.5).float().flip(-1))


def test_a_classifier_s_soft_mask_is_warped_with_the_image_and_keeps_its_levels() -> None:
    picture = torch.zeros(4, 1, 40, 60)
    picture[:, :, 10:20, 15:30] = 0.5
    label = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    darken = torch.nn.Module()
    darken.forward = lambda image: image * 0.5  # type: ignore[method-assign]
    augment = ImageAugmentation(RandomWarp(flip=0.5), [darken])
    torch.manual_seed(3)
    seen, same_label = augment(torch.cat([picture, picture], dim=1), label)
    assert not torch.allclose(seen[:, 1:], picture), "it was warped"
    torch.testing.assert_close(seen[:, :1], seen[:, 1:] * 0.5)
    assert torch.equal(same_label, label)
