# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/refit_classifier.py, on the phantom."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.data.classifier import DATALIST, Source, prepare_classifier
from bundle.data.folder import list_images
from bundle.data.names import output_name
from bundle.data.prepare import prepare
from bundle.errors import UserError
from bundle.files import sha256_of, write_json
from bundle.networks.weights import card_path, read_card, write_weights
from bundle.outputs.png import write_probability
from bundle.readers import read_mask
from bundle.training.refit import refit_classifier
from scripts.refit_classifier import main

SPLIT, SEGMENTATION_SPLIT = "50:25:25", "20:10:70"


@pytest.fixture(scope="module")
def chain(
    small_phantom: Path, write_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A prepared dataset, the maps of a segmenter, and a classifier whose card knows them and an older fusion."""
    older = {"features": ["grey_mean"], "mean": [0.2], "scale": [0.1], "coefficients": [1.0], "intercept": 0.0}
    fusion = {**older, "network_temperature": 1.0}
    return _make_chain(small_phantom, write_models, tmp_path_factory.mktemp("chain"), fusion)


@pytest.fixture(scope="module")
def lite_chain(
    small_phantom: Path, write_lite_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same of a LiteSegNet, which answers alone."""
    return _make_chain(small_phantom, write_lite_models, tmp_path_factory.mktemp("lite"), None)


def _make_chain(
    small_phantom: Path, write: Callable[..., Path], folder: Path, fusion: dict[str, Any] | None
) -> dict[str, Path]:
    prepared = folder / "prepared"
    prepare(small_phantom, prepared, split=SEGMENTATION_SPLIT)
    datalist = json.loads((prepared / "datalist_segmentation.json").read_text())
    models = write(folder / "models")
    segmenter = models / "model.pt"
    known = {"split": datalist["split"], "split_seed": datalist["seed"]}
    known |= {key: datalist[key] for key in ("dataset_sha256", "split_sha256")}
    write_json(card_path(segmenter), {**read_card(segmenter), **known})
    maps = folder / "predictions" / "probabilities"
    for path in map(Path, list_images(small_phantom).readable):
        mask = read_mask(path.with_name(f"{path.stem}_mask.png"))
        write_probability(mask * 0.9, maps / output_name(path, small_phantom))
    write_json(folder / "predictions" / "segmenter.json", {"sha256": sha256_of(segmenter)})
    sources = [Source(prepared / "datalist_segmentation.json", maps, segmenter)]
    made = prepare_classifier(sources, small_phantom, folder / "first", split=SPLIT)
    classifier = models / "model_classifier.pt"
    card = {
        **{**read_card(classifier), "flip": True, "folds": None, "seed": 0, "masks": "predicted", "split": SPLIT},
        **{"split_seed": 0, "segmentation_split": SEGMENTATION_SPLIT, "segmentation_split_seed": 0},
        **{"fusion": fusion, "temperature": 7.0, "validation": {"metric": "val_auroc"}},
        **{key: made[key] for key in ("dataset_sha256", "split_sha256")},
    }
    write_json(card_path(classifier), card)
    return {
        **{"dataset": small_phantom, "prepared": prepared, "segmenter": segmenter, "maps": maps},
        **{"classifier": classifier, "folder": folder},
    }


def _words(chain: dict[str, Path], output: Path) -> list[str]:
    words: list[Any] = [chain["dataset"], "--weights", chain["classifier"], "--output", output]
    words += ["--prepared_dir", chain["prepared"], "--segmenter", chain["segmenter"], "--maps_dir", chain["maps"]]
    return [str(word) for word in words]


def test_the_card_is_fitted_anew_and_the_weights_stay_as_they_are(chain: dict[str, Path], tmp_path: Path) -> None:
    before = card_path(chain["classifier"]).read_bytes()
    assert main(_words(chain, tmp_path / "out")) == 0
    assert (tmp_path / "out" / "model_classifier.pt").read_bytes() == chain["classifier"].read_bytes()
    assert card_path(chain["classifier"]).read_bytes() == before  # published on request only
    old, new = read_card(chain["classifier"]), read_card(tmp_path / "out" / "model_classifier.pt")
    assert "grey_scale" in new["fusion"]
    assert (new["sha256"], new["spatial_size"]) == (old["sha256"], old["spatial_size"])
    assert new["temperature"] != old["temperature"]
    assert len(new["operating_points"]) == 2
    datalist = json.loads((tmp_path / "out" / DATALIST).read_text())
    assert new["validation"]["images"] == len(datalist["validation"])
    assert new["validation"]["metric"] == "val_auroc"
    assert "command" in new["refit"]


def test_a_lite_classifier_is_built_by_its_card_and_fitted_without_a_fusion(
    lite_chain: dict[str, Path], tmp_path: Path
) -> None:
    assert main([*_words(lite_chain, tmp_path / "out"), "--publish"]) == 0
    weights = tmp_path / "out" / "model_classifier.pt"
    assert weights.read_bytes() == lite_chain["classifier"].read_bytes()
    new = read_card(weights)
    assert (new["architecture"], new["width"], new["fusion"]) == ("LiteSegNet", 0.25, None)
    assert new["temperature"] != 7.0
    assert new["validation"]["auroc"] == new["validation"]["auroc_network"]
    assert read_card(lite_chain["classifier"]) == new


def test_images_that_are_not_those_of_the_training_are_refused(
    chain: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "model_classifier.pt"
    card = {key: value for key, value in read_card(chain["classifier"]).items() if key != "sha256"}
    state = torch.load(chain["classifier"], weights_only=True)
    write_weights(weights, state, {**card, "split_sha256": "0" * 64})
    folders = {
        **{"dataset_dir": chain["dataset"], "prepared_dir": chain["prepared"]},
        **{"segmenter": chain["segmenter"], "maps_dir": chain["maps"]},
    }
    with pytest.raises(UserError, match="split_sha256 0000"):
        refit_classifier(weights, tmp_path / "out", folders)
    assert not (tmp_path / "out" / "model_classifier.pt").exists()
