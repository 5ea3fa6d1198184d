# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.transforms.marks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.transforms import RandomMarks, RemoveMarksd
from bundle.transforms.marks import MarkStyle, draw_calipers, find_strokes, remove_marks


def _tissue(height: int = 300, width: int = 400) -> np.ndarray:
    """Speckle of some pixels' size, (H, W) in [0, 1], dark enough for strokes to stand out."""
    noise = np.random.default_rng(0).random((height, width)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3) * 2 - 0.75, dtype=np.float32).clip(0.05, 0.45)


@pytest.mark.parametrize("shape", ["plus", "cross", "dotted plus", "dotted cross"])
def test_calipers_are_drawn_where_they_are_asked_for_and_nowhere_else(shape: str) -> None:
    tissue = _tissue()
    drawn = draw_calipers(tissue, [(0.25, 0.5), (0.75, 0.5)], MarkStyle(shape, arm=8, thickness=2))
    changed = np.abs(drawn - tissue) > 0.05
    rows, columns = np.nonzero(changed)
    assert (drawn >= tissue - 1e-6).all()
    assert changed[70:80, 195:205].any()
    assert changed[220:230, 195:205].any()
    assert ((np.abs(rows - 75) < 12) | (np.abs(rows - 225) < 12)).all()
    assert (np.abs(columns - 200) < 12).all()


def test_a_dotted_line_joins_two_calipers() -> None:
    tissue = _tissue()
    ends = [(0.5, 0.2), (0.5, 0.8)]
    between = (slice(140, 160), slice(120, 280))
    assert np.array_equal(draw_calipers(tissue, ends)[between], tissue[between])
    assert (draw_calipers(tissue, ends, dotted=True)[between] > 0.7).any()


def test_a_caliper_in_a_box_darkens_what_is_around_it() -> None:
    tissue = np.full((300, 400), 0.6, np.float32)
    drawn = draw_calipers(tissue, [(0.5, 0.5)], MarkStyle(box=1.0))
    assert drawn.min() < 0.1
    assert drawn.max() > 0.8


def test_drawn_marks_are_found_and_removed() -> None:
    tissue = _tissue()
    drawn = draw_calipers(tissue, [(0.3, 0.3), (0.6, 0.7)], MarkStyle(arm=9, thickness=2))
    grey, marked = (np.rint(picture * 255).astype(np.uint8) for picture in (tissue, drawn))
    assert find_strokes(marked)[85:95, 115:125].any()
    assert not find_strokes(grey).any()
    assert np.abs(marked.astype(int) - grey).max() > 100
    assert np.abs(remove_marks(marked).astype(int) - grey).max() < 40
    assert np.array_equal(remove_marks(grey), grey)


def test_random_marks_change_a_share_of_the_images_and_repeat_with_the_seed() -> None:
    image = torch.from_numpy(_tissue(64, 64))[None, None].repeat(60, 1, 1, 1)
    mask = torch.zeros_like(image)
    mask[:30, :, 20:40, 20:40] = 1
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(RandomMarks(probability=0.5)(image, mask))
    assert torch.equal(results[0], results[1])
    share = (results[0] != image).flatten(1).any(1).float().mean()
    assert 0.25 < share < 0.6  # some draw no mark at all
    assert (results[0].min(), results[0].max()) >= (0, 0)
    assert results[0].max() <= 1
    assert torch.equal(RandomMarks(probability=0.0)(image, mask), image)


def test_a_copy_without_marks_stands_beside_the_image() -> None:
    picture = draw_calipers(_tissue(), [(0.5, 0.5)], MarkStyle(arm=9, thickness=2))
    data = {"image": MetaTensor(torch.from_numpy(picture)[None], meta={"filename_or_obj": "a.png"})}
    result = RemoveMarksd("image", "unmarked")(data)
    assert torch.equal(result["image"].as_tensor(), data["image"].as_tensor())
    assert result["image"].max() > 0.9
    assert result["unmarked"].shape == (1, 300, 400)
    assert result["unmarked"].max() < 0.6
    assert "unmarked" not in RemoveMarksd("image", "unmarked", active=False)(data)


def test_marks_are_removed_in_place_and_the_metadata_stays() -> None:
    picture = draw_calipers(np.full((128, 128), 0.3, np.float32), [(0.5, 0.5)], MarkStyle(arm=10, thickness=3))
    image = MetaTensor(torch.from_numpy(picture)[None], meta={"filename_or_obj": "a.png"})
    clean = RemoveMarksd("image")({"image": image})["image"]
    assert clean.meta["filename_or_obj"] == "a.png"
    assert float(clean.max()) < 0.5 < float(image.max())
    assert RemoveMarksd("image", active=False)({"image": image})["image"] is image
