# SPDX-License-Identifier: Apache-2.0
"""Claims about the settings that training takes of itself, by the architecture that it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser


def _settings(root: Path, config: str, architecture: str, *names: str) -> list[object]:
    parser = ConfigParser(ConfigParser.load_config_file(root / "configs" / f"{config}.json"))
    parser["architecture"] = architecture
    return [parser.get_parsed_content(name) for name in names]


@pytest.mark.parametrize(
    ("architecture", "recipe"),
    [("UNet", [8, 5040, 0.002, 0.0, 0.0]), ("LiteUNet", [10, 3200, 0.001, 0.5, 0.3])],
)
def test_a_segmenter_is_trained_by_the_recipe_of_its_architecture(
    architecture: str, recipe: list[object], root: Path
) -> None:
    names = ("batch_size", "steps", "learning_rate", "marks", "unmarked")
    assert _settings(root, "train", architecture, *names) == recipe


@pytest.mark.parametrize(("architecture", "recipe"), [("SegNet", [0.0, 0.0, 0.0]), ("LiteSegNet", [0.1, 0.5, 0.3])])
def test_a_classifier_is_trained_by_the_recipe_of_its_architecture(
    architecture: str, recipe: list[object], root: Path
) -> None:
    assert _settings(root, "train_classifier", architecture, "smoothing", "marks", "unmarked") == recipe
