# SPDX-License-Identifier: Apache-2.0
"""One picture through many containers gives one finding, or a refusal by name; never a second answer."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import numpy as np
import pytest
from containers import CONTAINERS
from PIL import Image

from bundle.data.check import check_dataset
from bundle.data.phantom import make_phantom
from bundle.errors import InputError
from bundle.prediction import Predictor
from bundle.readers import read_image

DICE, CHANGE = {False: 0.99, True: 0.95}, {False: 0.02, True: 0.05}
"""Least Dice of the masks and largest change of the probability against the plain PNG; True for lossy containers."""

ROUNDS = 4


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Pictures with a lesion, (H, W) uint8 of even sizes."""
    folder = tmp_path_factory.mktemp("phantom") / "phantom"
    make_phantom(folder, counts={"benign": 2, "malignant": 2}, size_range=((180, 240), (220, 320)), seed=5)
    files = sorted(path for path in folder.glob("*/*.png") if "mask" not in path.name)
    return [_even(np.asarray(Image.open(path).convert("L"))) for path in files]


def _even(grey: np.ndarray) -> np.ndarray:
    return grey[: grey.shape[0] // 2 * 2, : grey.shape[1] // 2 * 2].copy()


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_tissue_is_the_same_in_every_container(name: str, phantoms: list[np.ndarray], tmp_path: Path) -> None:
    grey, container = phantoms[0], CONTAINERS[name]
    image = read_image(container.write(grey, tmp_path, random.Random(0)))
    assert image.tissue.shape == grey.shape
    difference = np.abs(image.tissue - grey)
    assert difference.max() <= container.atol
    assert difference.mean() < 2


def test_a_manifest_sees_the_same_pixels_in_every_container(phantoms: list[np.ndarray], tmp_path: Path) -> None:
    grey = phantoms[0]
    Image.fromarray((grey > 100).astype(np.uint8)).save(tmp_path / "mask.png")
    exact = [name for name, container in CONTAINERS.items() if container.atol == 0 and "region" not in name]
    rows = []
    for number, name in enumerate(["png", *exact]):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        if name == "png":
            Image.fromarray(grey).save(folder / "a.png")
        written = folder / "a.png" if name == "png" else CONTAINERS[name].write(grey, folder, random.Random(1))
        rows.append([Path(written).relative_to(tmp_path), "mask.png", "benign", f"P{number}"])
    with open(tmp_path / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "label", "patient"], *rows])
    cases = check_dataset(tmp_path / "manifest.csv").cases
    assert len(cases) == len(rows) > 20
    assert len({case.sha256 for case in cases}) == 1


def _real() -> list[np.ndarray]:
    folder = os.environ.get("BUSI_DIR")
    names = ["benign/benign (1).png", "malignant/malignant (1).png", "benign/benign (98).png"]
    return [_even(np.asarray(Image.open(Path(folder) / name).convert("L"))) for name in names] if folder else []


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTAINERS)
def test_one_picture_gives_one_finding_or_a_refusal_by_name(
    name: str, phantoms: list[np.ndarray], predictor: Predictor, tmp_path: Path
) -> None:
    container = CONTAINERS[name]
    pictures = [*phantoms, *_real()]
    findings = [predictor.predict(grey) for grey in pictures]
    for number in range(ROUNDS * len(pictures)):
        grey = pictures[number % len(pictures)]
        expected = findings[number % len(pictures)]
        folder = tmp_path / f"{number}"
        folder.mkdir()
        file = container.write(grey, folder, random.Random(number))
        try:
            image = read_image(file)
        except InputError:  # by name, as `test_fuzz` holds of every error
            continue
        finding = predictor.predict(image)
        mask = image.cut(finding.mask)
        assert finding.mask.sum() == mask.sum()
        both = float((mask & expected.mask).sum())
        assert 2 * both >= DICE[container.is_lossy] * float(mask.sum() + expected.mask.sum()), f"round {number}"
        change = abs(finding.probability - expected.probability)
        assert change < CHANGE[container.is_lossy], f"round {number}: {change}"


@pytest.fixture(scope="module")
def predictor(root: Path) -> Predictor:
    """The shipped networks, to the last bit."""
    return Predictor.from_folder(root / "models", "cpu", amp=False)
