# SPDX-License-Identifier: Apache-2.0
"""Claims about the bundle in MONAI Label's stock app `monaibundle`, on the real server; the training comes last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.files import sha256_of
from bundle.prediction import Predictor
from bundle.readers import read_image

MODEL = "breast_ultrasound_segmentation_classification"
FILES = {"benign1": "benign1.png", "photo": "photo.jpg", "volume": "volume.nii.gz", "frame": "frame.dcm"}
Stock = tuple[Any, Path, Path]


def _expected(root: Path, file: Path) -> np.ndarray:
    """What the Predictor's segmenter finds in the whole frame: all regions, at the threshold of its card."""
    predictor = Predictor.from_folder(root / "models", "cpu")
    image = read_image(file)
    mask = np.zeros(image.pixels.shape, dtype=bool)
    top, left, bottom, right = image.box
    threshold = json.loads((root / "models" / "model.json").read_text())["threshold"]
    mask[top:bottom, left:right] = predictor.segment(image.tissue) >= threshold
    return mask


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_info_offers_one_segmentation_model_whose_default_weights_are_its_own(stock: Stock) -> None:
    info = stock[0].call("GET", "/info/").json()
    model = info["models"][MODEL]
    assert model["type"] == "segmentation"
    assert model["dimension"] == 2
    assert model["labels"] == {"lesion": 1}
    assert model["config"]["model_filename"][0] == "model.pt"
    assert set(info["trainers"]) == set(info["scoring"]) == {MODEL}


@pytest.mark.parametrize("image", ["benign1", "photo", "frame"])
def test_the_mask_of_a_picture_is_a_png_of_native_size(image: str, stock: Stock, tmp_path: Path) -> None:
    server, root, studies = stock
    expected = _expected(root, studies / FILES[image])
    file = server.mask(MODEL, image, tmp_path)
    assert file.suffix == ".png"
    mask = np.asarray(Image.open(file))
    assert mask.dtype == np.uint8
    assert mask.shape == expected.shape
    assert mask.shape[0] < mask.shape[1]
    assert set(np.unique(mask)) == {0, 1}
    assert _dice(mask > 0, expected) >= 0.99


@pytest.mark.parametrize(("image", "extension"), [("volume", None), ("benign1", ".nrrd")])
def test_the_mask_of_a_volume_lies_where_its_image_lies(
    image: str, extension: str | None, stock: Stock, tmp_path: Path
) -> None:
    import SimpleITK

    server, root, studies = stock
    label = SimpleITK.ReadImage(str(server.mask(MODEL, image, tmp_path, extension)))
    values = SimpleITK.GetArrayFromImage(label)
    expected = _expected(root, studies / FILES[image])
    assert values.shape == (1, *expected.shape)
    assert _dice(values[0] > 0, expected) >= 0.99
    source = SimpleITK.ReadImage(str(studies / FILES[image]))
    plane = source.GetDimension()
    assert label.GetSpacing()[:plane] == pytest.approx(source.GetSpacing(), rel=1e-5)
    assert label.GetOrigin()[:plane] == pytest.approx(source.GetOrigin())
    if plane == 3:
        assert label.GetDirection() == pytest.approx(source.GetDirection(), abs=1e-6)


def test_next_samples_batch_inference_and_scoring_work(stock: Stock) -> None:
    server, _, studies = stock
    assert server.call("POST", "/activelearning/first").json()["id"] == "benign1"
    assert server.call("POST", "/activelearning/random").json()["id"]
    assert server.call("POST", f"/scoring/{MODEL}?run_sync=true").json()["executed"] == 2
    # Without GPUs MONAI Label divides by their number unless it is told not to use several.
    params = {"multi_gpu": False, "save_label": True}
    server.call("POST", f"/batch/infer/{MODEL}?images=unlabeled&run_sync=true", json=params)
    assert server.call("GET", "/datastore/").json()["label_tags"] == {"original": 11}
    assert Image.open(studies / "labels" / "original" / "photo.png").size == Image.open(studies / "photo.jpg").size


def test_four_masks_train_the_segmenter_though_none_is_left_for_validation(
    stock: Stock, mask_of: Callable[[str], Path], tmp_path: Path
) -> None:
    server, root, studies = stock
    before = sha256_of(root / "models" / "model.pt")
    for image in ("benign1", "benign2", "malignant1", "malignant2"):
        with mask_of(image).open("rb") as file:
            server.call("PUT", f"/datastore/label?image={image}", files={"label": (f"{image}.png", file)})
    task = server.train(MODEL, max_epochs=2, val_split=0.0)
    assert task["status"] == "DONE", task["details"]
    card = json.loads((root / "models" / "model.json").read_text())
    assert card["sha256"] == sha256_of(root / "models" / "model.pt") != before
    assert card["training_images"] == 4
    assert card["validated_on_training_images"] is True
    assert sha256_of(root / "models" / "versions" / f"model-{before[:8]}.pt") == before
    mask = np.asarray(Image.open(server.mask(MODEL, "malignant4", tmp_path)))
    assert _dice(mask > 0, _expected(root, studies / "malignant4.png")) >= 0.99
