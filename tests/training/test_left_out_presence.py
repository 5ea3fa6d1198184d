# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/fit_left_out.py of a segmenter, on fabricated evaluations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.errors import UserError
from bundle.files import to_csv
from bundle.networks.weights import read_card
from bundle.training.left_out_presence import fit_presence_left_out
from scripts.fit_left_out import main

Make = Callable[..., Path]


@pytest.fixture
def weights(write_lite_models: Callable[..., Path], tmp_path: Path) -> Path:
    return write_lite_models(tmp_path / "models", none_below=0.6) / "model.pt"


@pytest.fixture
def make(weights: Path, tmp_path: Path) -> Make:
    """An evaluated run: 100 lesions told of with 0.01 to 1 times the given ease, 10 normals halfway."""

    def make(
        split: str,
        ease: dict[str, float],
        normals: bool = True,
        synthetic: bool = False,
        told: bool = True,
        **card: Any,
    ) -> Path:
        rows = []
        for name, most in ease.items():
            for number in range(110 if normals else 100):
                lesion = number < 100
                presence = most * (number + 1) / 100 if lesion else most / 2
                rows.append(
                    {
                        **{"image": f"{name}/{number}.png", "group": f"{name}{number}", "dataset": name},
                        **{"class": "benign" if lesion else "normal", "dice": 0.8 if lesion else None},
                        **({"presence": presence, "told_none": presence < 0.6} if told else {}),
                    }
                )
        about = {"weights": {**read_card(weights), "sha256": "r" * 64, **card}, "provenance": {"split": split}}
        folder = tmp_path / "_".join((split.replace(" ", "_"), *ease)) / "evaluation"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(
            json.dumps({"lesions": {}, "part": "test", "synthetic": synthetic, **about})
        )
        (folder / "per_image.csv").write_text(to_csv(rows))
        return folder.parent

    return make


def test_the_limit_loses_few_lesions_wherever_it_was_tried(weights: Path, make: Make, tmp_path: Path) -> None:
    runs = [make("leave out A", {"A": 0.4}, normals=False), make("5 folds, out of fold", {"A": 0.9, "B": 0.8})]
    card = fit_presence_left_out(weights, runs, tmp_path / "out", draws=20)
    assert card == json.loads((tmp_path / "out/model.json").read_text())
    assert (tmp_path / "out/model.pt").read_bytes() == weights.read_bytes()
    points = card["presence_points"]
    assert points["none_below"] == pytest.approx(0.4 * 0.06)  # five of a hundred lie below
    assert points["on_validation"]["none_below"] == 0.6
    hospitals = points["hospitals"]
    assert set(hospitals) == {"A, left out", "A, out of fold", "B, out of fold"}
    for hospital in hospitals.values():
        assert hospital["common"]["lost"]["estimate"] <= 0.05
    left_out = hospitals["A, left out"]
    assert left_out["needed"] == pytest.approx(0.024)
    assert left_out["from_others"]["limit"] == pytest.approx(0.8 * 0.06)
    assert left_out["from_others"]["lost"]["estimate"] == pytest.approx(0.11)
    assert left_out["from_card"]["lost"]["estimate"] == 1.0
    assert left_out["common"]["passed"] is None
    assert hospitals["B, out of fold"]["from_card"]["passed"]["estimate"] == 0.0
    assert np.isclose(hospitals["B, out of fold"]["common"]["passed"]["estimate"], 1.0)


def test_inner_folds_draw_the_limit_of_weights_that_were_left_without_a_hospital(
    weights: Path, make: Make, tmp_path: Path
) -> None:
    inner = make("leave out B, inner fold 0 of 2", {"A": 0.4, "C": 0.4})
    points = fit_presence_left_out(weights, [inner], tmp_path / "out", draws=4)["presence_points"]
    assert set(points["hospitals"]) == {"A, out of fold", "C, out of fold"}
    alone = fit_presence_left_out(weights, [make("fold 0 of 2", {"D": 0.4})], tmp_path / "out", draws=4)
    assert alone["presence_points"]["hospitals"]["D, out of fold"]["from_others"] is None
    assert main([str(tmp_path / "fold_0_of_2_D"), "--weights", str(weights), "--output", str(tmp_path / "out")]) == 0


def test_fitting_again_begins_from_validation(weights: Path, make: Make, tmp_path: Path) -> None:
    runs = [make("leave out A", {"A": 0.4}), make("leave out B", {"B": 0.8})]
    words = [*map(str, runs), "--weights", str(weights), "--output", str(tmp_path / "out"), "--draws", "4", "--publish"]
    for _ in range(2):
        assert main(words) == 0
        points = read_card(weights)["presence_points"]
        assert points["none_below"] == pytest.approx(0.024)
        assert points["on_validation"]["none_below"] == 0.6


def test_runs_that_say_nothing_of_the_weights_are_refused(weights: Path, make: Make, tmp_path: Path) -> None:
    good = make("leave out A", {"A": 0.4})
    before = read_card(weights)
    for runs, reason in (
        ([good, good], "was tried by another"),
        ([good, make("leave out B", {"B": 0.8}, presence_mix=[1, 0, 0])], "presence_mix"),
        ([good, make("leave out C", {"C": 0.8}, width=2)], "width"),
        ([good, make("leave out D", {"D": 0.8}, synthetic=True)], "SYNTHETIC"),
        ([good, make("leave out E", {"E": 0.8}, told=False)], "tells no presence"),
    ):
        with pytest.raises(UserError, match=reason):
            fit_presence_left_out(weights, runs, tmp_path / "out", draws=4)
    assert read_card(weights) == before
    assert not (tmp_path / "out").exists()
