# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.outputs.png import OVERLAY_RGB, write_explanation, write_mask, write_overlay


def test_mask_reads_back_equal_on_a_non_square_image(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((30, 50)) > 0.5
    write_mask(mask, tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as file:
        assert (file.format, file.mode, file.size) == ("PNG", "L", (50, 30))
        read = np.asarray(file)
    assert set(np.unique(read)) == {0, 255}
    np.testing.assert_array_equal(read == 255, mask)


@pytest.mark.parametrize("mask", [np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), bool), np.zeros(4, bool)])
def test_what_is_not_a_binary_mask_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\) bool"):
        write_mask(mask, tmp_path / "mask.png")
    assert list(tmp_path.iterdir()) == []


def test_overlay_keeps_the_image_outside_and_draws_the_contour(tmp_path: Path) -> None:
    image = np.tile(np.linspace(0, 255, 60, dtype=np.float32), (40, 1))
    probability = np.zeros((40, 60))
    probability[10:20, 5:25] = 0.5
    write_overlay(image, probability >= 0.5, tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as file:
        assert (file.mode, file.size) == ("RGB", (60, 40))
        read = np.asarray(file)
    lesion = probability > 0
    np.testing.assert_array_equal(read[~lesion], np.rint(image[..., None].repeat(3, 2)).astype(np.uint8)[~lesion])
    np.testing.assert_array_equal(read[10, 5:25], [OVERLAY_RGB] * 20)
    inside = read[11:19, 6:24].astype(int)
    assert (inside[..., 0] > inside[..., 2]).all()
    assert (np.abs(inside[..., 0] - image[11:19, 6:24]) < 0.5 * 255).all()


def test_overlay_without_a_lesion_is_the_grey_image(tmp_path: Path) -> None:
    image = np.full((8, 9), 300, np.float32)
    write_overlay(image, np.zeros((8, 9), bool), tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as file:
        assert (np.asarray(file) == 255).all()


def test_overlay_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one size"):
        write_overlay(np.zeros((8, 9), np.float32), np.zeros((9, 8), bool), tmp_path / "overlay.png")


def test_explanation_is_coloured_where_it_is_hot_and_draws_the_contour(tmp_path: Path) -> None:
    image = np.tile(np.linspace(0, 255, 60, dtype=np.float32), (40, 1))
    heat, lesion = np.zeros((40, 60), np.uint8), np.zeros((40, 60), bool)
    heat[25:35, 5:50] = 200
    lesion[10:20, 5:25] = True
    write_explanation(image, heat, lesion, tmp_path / "explanation.png")
    read = np.asarray(Image.open(tmp_path / "explanation.png")).astype(int)
    cold = (heat == 0) & ~lesion
    np.testing.assert_array_equal(read[cold], np.rint(image[..., None].repeat(3, 2)).astype(int)[cold])
    np.testing.assert_array_equal(read[11:19, 6:24], np.rint(image[..., None].repeat(3, 2)).astype(int)[11:19, 6:24])
    np.testing.assert_array_equal(read[10, 5:25], [OVERLAY_RGB] * 20)
    assert (np.ptp(read[heat > 0], axis=1) > 20).all()


def test_explanation_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one size"):
        write_explanation(
            np.zeros((8, 9), np.float32), np.zeros((9, 8), np.uint8), np.zeros((8, 9), bool), tmp_path / "e.png"
        )
