# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from bundle.errors import UserError
from bundle.reports.figures import PREDICTION, TRUTH, plot_curves, plot_dice_histogram, plot_examples

LESION = np.zeros((40, 60), bool)
LESION[10:25, 15:40] = True
IMAGE = np.full((40, 60), 90.0, np.float32)
HISTORY = {"train_loss": [(1, 0.7), (2, 0.5)], "val_loss": [(1, 0.8), (2, np.nan)], "val_mean_dice": [(2, 0.4)]}
ITEMS = [(IMAGE, LESION, np.roll(LESION, 4, axis=1) * 0.9, "case 1"), (IMAGE, LESION, LESION * 0.1, "case 2")]

DRAWINGS: list[Callable[[Path, bool], None]] = [
    lambda path, synthetic: plot_curves(HISTORY, path, synthetic),
    lambda path, synthetic: plot_examples(ITEMS, path, 0.5, synthetic),
    lambda path, synthetic: plot_dice_histogram({"benign": [0.9, 0.0], "malignant": []}, path, synthetic),
]


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        assert file.format == "PNG"
        return np.asarray(file.convert("RGB")).astype(int)


def _has_colour(pixels: np.ndarray, colour: str) -> bool:
    return bool((np.abs(pixels - np.array(to_rgb(colour)) * 255).max(axis=-1) < 12).any())


@pytest.mark.parametrize("draw", DRAWINGS, ids=["curves", "examples", "histogram"])
def test_synthetic_stamp_is_seen_and_only_when_asked(tmp_path: Path, draw: Callable[[Path, bool], None]) -> None:
    draw(tmp_path / "plain.png", False)
    draw(tmp_path / "stamped.png", True)
    plain, stamped = _read(tmp_path / "plain.png"), _read(tmp_path / "stamped.png")
    assert plain.shape == stamped.shape
    changed = (plain != stamped).any(axis=-1)
    assert changed.mean() > 0.01
    assert (stamped[changed][:, 0] - stamped[changed][:, 1]).mean() > 30  # red


def test_examples_show_both_contours_even_where_the_lesion_leaves_the_image(tmp_path: Path) -> None:
    lesion = np.zeros((40, 60), bool)
    lesion[:, :30] = True
    plot_examples([(IMAGE, lesion, np.ones((40, 60)), "edge")], tmp_path / "edge.png", 0.5)
    picture = _read(tmp_path / "edge.png")
    panels = picture[: int(picture.shape[0] * 0.85)]  # without the legend
    assert _has_colour(panels, TRUTH)
    assert _has_colour(panels, PREDICTION)


def test_case_without_a_prediction_is_drawn(tmp_path: Path) -> None:
    plot_examples([(IMAGE, LESION, np.zeros((40, 60)), "none")], tmp_path / "none.png", 0.5)
    picture = _read(tmp_path / "none.png")
    panels = picture[: int(picture.shape[0] * 0.85)]
    assert _has_colour(panels, TRUTH)
    assert not _has_colour(panels, PREDICTION)


@pytest.mark.parametrize("history", [{"train_loss": [(1, 0.7)]}, {"val_mean_dice": [(1, 0.7), (2, 0.8)]}])
def test_one_kind_of_curve_is_enough(tmp_path: Path, history: dict[str, list[tuple[int, float]]]) -> None:
    plot_curves(history, tmp_path / "curves.png")
    assert _read(tmp_path / "curves.png").std() > 1


def test_nothing_to_draw_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training history"):
        plot_curves({"train_loss": []}, tmp_path / "x.png")
    with pytest.raises(UserError, match="no example"):
        plot_examples([], tmp_path / "x.png", 0.5)
    with pytest.raises(UserError, match="no Dice"):
        plot_dice_histogram({"benign": []}, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
