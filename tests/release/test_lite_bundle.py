# SPDX-License-Identifier: Apache-2.0
"""The bundle with Lite networks in models/: every tool builds what the cards name, as it does for U-Net and SegNet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.files import sha256_of
from bundle.networks import LiteSegNet, LiteUNet, SegNet, UNet, build_from_card
from bundle.networks.weights import load_tensors, load_weights, read_card
from bundle.prediction import Predictor

NAME = "breast_ultrasound_segmentation_classification"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def zoo(root: Path, write_lite_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's folder, with small random Lite networks in the place of the shipped ones."""
    folder = tmp_path_factory.mktemp("zoo") / NAME
    folder.mkdir()
    for name in ("bundle", "configs"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    write_lite_models(folder / "models", synthetic=True)
    return folder


_LOAD = """
import sys, monai.bundle, torch
name, folder, kind = sys.argv[1:]
network = monai.bundle.load(name, bundle_dir=folder, workflow_type=kind, device="cpu", source="github")
assert type(network).__name__ == "LiteUNet", type(network)
torch.save(network.state_dict(), "state.pt")
"""


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_load_gives_the_lite_segmenter_of_models_whatever_folder_it_is_called_in(
    workflow_type: str, zoo: Path, tmp_path: Path
) -> None:
    (tmp_path / "load.py").write_text(_LOAD)
    words = [sys.executable, "load.py", NAME, str(zoo.parent), workflow_type]
    environment = {**os.environ, "PYTHONPATH": str(zoo)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shipped, state = load_tensors(zoo / "models/model.pt"), load_tensors(tmp_path / "state.pt")
    assert shipped.keys() == state.keys()
    assert all(torch.equal(shipped[key], state[key]) for key in shipped)


@pytest.mark.parametrize(
    ("config", "network"),
    [
        *(("train", LiteUNet), ("inference", LiteUNet), ("inference_pipeline", LiteUNet)),
        *(("train_classifier", LiteSegNet), ("inference_classifier", LiteSegNet)),
    ],
)
def test_the_network_of_a_config_takes_the_weights_of_models(
    config: str, network: type[torch.nn.Module], zoo: Path
) -> None:
    parser = ConfigParser(ConfigParser.load_config_file(zoo / f"configs/{config}.json"))
    parser["bundle_root"] = str(zoo)
    built = parser.get_parsed_content("network_def")
    assert isinstance(built, network)
    load_weights(built, zoo / "models" / ("model_classifier.pt" if "classifier" in config else "model.pt"))


@pytest.mark.parametrize(
    ("files", "network"),
    [
        *((["train", "unet_segmentation"], UNet), (["train", "paper_segmentation"], UNet)),
        *((["train_classifier", "segnet_classifier"], SegNet), (["train_classifier", "paper_classifier"], SegNet)),
    ],
)
def test_an_overlay_trains_the_plain_networks_whatever_lies_in_models(
    files: list[str], network: type[torch.nn.Module], zoo: Path, root: Path
) -> None:
    paths, sizes = [root / f"configs/{files[0]}.json", root / f"configs/{files[1]}.yaml"], []
    for folder in (zoo, zoo / "nothing here"):
        parser = ConfigParser(ConfigParser.load_config_files(paths))
        parser["bundle_root"], parser["datalist"] = str(folder), {"synthetic": False}
        assert isinstance(parser.get_parsed_content("network_def"), network)
        assert not parser.get_parsed_content("pretrained")
        sizes.append((parser.get_parsed_content("spatial_size"), parser.get_parsed_content("network_settings")))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("format_", ["torchscript", "onnx"])
def test_monais_exports_hold_the_map_and_the_head(format_: str, zoo: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {
        **{"config_file": str(zoo / "configs/inference.json"), "bundle_root": str(zoo)},
        **{"meta_file": str(zoo / "configs/metadata.json"), "ckpt_file": str(zoo / "models/model.pt")},
    }
    image, expected = torch.rand(1, 1, 48, 64), Predictor.from_folder(zoo / "models", "cpu", amp=False).segmenter
    if format_ == "torchscript":
        monai.bundle.ckpt_export("network_def", filepath=str(tmp_path / "model.ts"), **common)
        said = torch.jit.load(tmp_path / "model.ts")(image).detach().numpy()
    else:
        words = {"filepath": str(tmp_path / "model.onnx"), "input_shape": [1, 1, 48, 64]}
        monai.bundle.onnx_export("network_def", **words, **common)
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        (said,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        assert np.abs(said - expected(image).numpy()).max() < 1e-4
    assert said.shape == (1, 2, 48, 64)


def test_a_training_starts_from_lite_weights_whatever_is_shipped(
    zoo: Path, small_phantom: Path, run_bundle: Run, tmp_path: Path
) -> None:
    _start_from(zoo / "models/model.pt", small_phantom, run_bundle, tmp_path)


@pytest.mark.slow
def test_a_training_starts_from_the_real_lite_weights(small_phantom: Path, run_bundle: Run, tmp_path: Path) -> None:
    folder = os.environ.get("LITE_RUN_DIR")
    if folder is None:
        pytest.skip("LITE_RUN_DIR names no run folder with the model.pt of a LiteUNet")
    (tmp_path / "start").mkdir()
    for name in ("model.pt", "model.json"):
        shutil.copy(Path(folder) / name, tmp_path / "start" / name)
    card = json.loads((tmp_path / "start/model.json").read_text())
    (tmp_path / "start/trained_on.json").write_text(json.dumps({card["dataset_sha256"]: "0" * 16}))
    _start_from(tmp_path / "start/model.pt", small_phantom, run_bundle, tmp_path)


def _start_from(init: Path, phantom: Path, run_bundle: Run, folder: Path) -> None:
    words = ["training", "--config_file", "configs/train.json", "--dataset_dir", phantom, "--init", init]
    words += ["--prepared_dir", folder / "prepared", "--split", "40:20:40", "--output_dir", folder / "run"]
    done = run_bundle(*words, "--max_epochs", "1", "--batch_size", "4")
    assert done.returncode == 0, done.stderr[-3000:]
    start, card = read_card(init), read_card(folder / "run/model.pt")
    for key in ("architecture", "width", "decoder_channels", "presence", "spatial_size", "standardize"):
        assert card[key] == start[key], key
    assert card["architecture"] == "LiteUNet"
    assert card["pretrained"] is False
    assert card["started_from"]["sha256"] == sha256_of(init)
    before, after = (load_tensors(path) for path in (init, folder / "run/model.pt"))
    build_from_card(card).load_state_dict(after)
    stem = "encoder.stem.0.weight"
    # A step of the warm-up away from where it started, and far from any other initialisation.
    assert not torch.equal(before[stem], after[stem])
    assert (before[stem] - after[stem]).abs().max() < 0.02
    refused = run_bundle(*words, "--filters", "[4,8]", "--output_dir", folder / "other")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith(
        "--filters: a LiteUNet has none; leave it out, or name its --architecture"
    )
