# SPDX-License-Identifier: Apache-2.0
"""What a model zoo's tools do with the bundle, from a folder that is not its root.

The root is on ``sys.path`` here, as ``PYTHONPATH`` puts it for users: `load`, `verify_net_in_out` and the exports build
components of the package ``bundle`` before MONAI knows where that is. Only `run` and `run_workflow` go without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import onnxruntime
import pytest
import torch
from monai.data import load_net_with_metadata

from bundle.networks import build_from_card
from bundle.networks.weights import load_tensors, read_card
from bundle.prediction import Predictor

NAME = "breast_ultrasound_segmentation_classification"
CARDS = {name: read_card(Path(__file__).parents[2] / "models" / name) for name in ("model.pt", "model_classifier.pt")}
SEGMENTER = {
    **{"config": "inference", "weights": "model.pt", "format": {}},
    "shape": [2, 1, *CARDS["model.pt"]["spatial_size"]],
}
CLASSIFIER = {
    "config": "inference_classifier",
    "weights": "model_classifier.pt",
    "shape": [2, 2, *CARDS["model_classifier.pt"]["spatial_size"]],
    "format": {
        "_meta_#network_data_format#inputs#image#num_channels": 2,
        "_meta_#network_data_format#inputs#image#spatial_shape": CARDS["model_classifier.pt"]["spatial_size"],
        "_meta_#network_data_format#outputs#pred#num_channels": 1,
    },
}
WORKFLOWS = {
    **{"train": "train", "train_classifier": "train", "evaluate": "infer", "evaluate_classifier": "infer"},
    **{"inference": "infer", "inference_classifier": "infer", "inference_pipeline": "infer"},
}


@pytest.fixture
def away(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle's folder under its own name, seen from another one."""
    link = tmp_path / "zoo" / NAME
    link.parent.mkdir()
    link.symlink_to(root, target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return link


def _files(away: Path, network: dict[str, Any]) -> dict[str, Any]:
    config = away / "configs" / f"{network['config']}.json"
    return {
        **{"meta_file": str(away / "configs" / "metadata.json"), "config_file": str(config)},
        "bundle_root": str(away),
    }


def _shipped(root: Path, network: dict[str, Any]) -> torch.nn.Module:
    predictor = Predictor.from_folder(root / "models", device="cpu", amp=False)
    found: torch.nn.Module = predictor.segmenter if network is SEGMENTER else predictor.classifier.network
    return found.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_load_gives_the_shipped_segmenter(workflow_type: str, away: Path) -> None:
    network = monai.bundle.load(
        NAME, bundle_dir=away.parent, workflow_type=workflow_type, device="cpu", source="github"
    )
    assert isinstance(network, type(build_from_card(CARDS["model.pt"])))
    shipped = load_tensors(away / "models" / "model.pt")
    state = network.state_dict()
    assert shipped.keys() == state.keys()
    assert all(torch.equal(shipped[key], state[key]) for key in shipped)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_made_of_every_config(name: str, away: Path) -> None:
    workflow = monai.bundle.create_workflow(
        config_file=str(away / "configs" / f"{name}.json"),
        workflow_type=WORKFLOWS[name],
        bundle_root=str(away),
        logging_file=False,
    )
    assert workflow.get_workflow_type() == WORKFLOWS[name]
    # An evaluation is of the run that it names, which is not there: the shipped network again.
    card = CARDS["model_classifier.pt" if "classifier" in name else "model.pt"]
    assert isinstance(workflow.network_def, type(build_from_card(card)))
    assert workflow.version == monai.bundle.ConfigParser.load_config_file(away / "configs" / "metadata.json")["version"]


@pytest.mark.parametrize("network", [SEGMENTER, CLASSIFIER], ids=["segmenter", "classifier"])
def test_input_and_output_are_what_the_metadata_say(network: dict[str, Any], away: Path) -> None:
    monai.bundle.verify_net_in_out("network_def", device="cpu", **_files(away, network), **network["format"])


@pytest.mark.parametrize("network", [SEGMENTER, CLASSIFIER], ids=["segmenter", "classifier"])
def test_the_overrides_for_verification_are_the_metadatas(network: dict[str, Any], away: Path) -> None:
    metadata = monai.bundle.ConfigParser.load_config_file(away / "configs" / "metadata.json")
    described = metadata["network_data_format" if network is SEGMENTER else "classifier_data_format"]["inputs"]["image"]
    assert network["shape"][1:] == [described["num_channels"], *described["spatial_shape"]]
    if network is CLASSIFIER:
        assert list(network["format"].values())[:2] == [described["num_channels"], described["spatial_shape"]]


@pytest.mark.parametrize("network", [SEGMENTER, CLASSIFIER], ids=["segmenter", "classifier"])
def test_monais_torchscript_computes_what_the_network_does(network: dict[str, Any], away: Path) -> None:
    monai.bundle.ckpt_export(
        "network_def", "model.ts", str(away / "models" / network["weights"]), **_files(away, network)
    )
    exported, metadata, _ = load_net_with_metadata("model.ts", map_location="cpu")
    assert metadata["name"] == NAME
    image = torch.rand(network["shape"])
    with torch.no_grad():
        assert torch.allclose(exported(image), _shipped(away, network)(image), atol=1e-4)


@pytest.mark.parametrize(
    "network",
    [pytest.param(SEGMENTER, marks=pytest.mark.slow, id="segmenter"), pytest.param(CLASSIFIER, id="classifier")],
)
def test_monais_onnx_computes_what_the_network_does(network: dict[str, Any], away: Path) -> None:
    monai.bundle.onnx_export(
        *("network_def", "model.onnx", str(away / "models" / network["weights"])),
        **_files(away, network),
        input_shape=network["shape"],
    )
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    image = torch.rand(network["shape"])
    (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        assert np.abs(result - _shipped(away, network)(image).numpy()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("network", [SEGMENTER, CLASSIFIER], ids=["segmenter", "classifier"])
def test_monais_tensorrt_computes_what_the_network_does(network: dict[str, Any], away: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    pytest.importorskip("torch_tensorrt", reason="needs torch-tensorrt")
    monai.bundle.trt_export(
        *("network_def", "model.ts", str(away / "models" / network["weights"])),
        **_files(away, network),
        precision="fp32",
        input_shape=network["shape"],
    )
    exported, _, _ = load_net_with_metadata("model.ts", map_location="cuda")
    image = torch.rand(network["shape"])
    with torch.no_grad():
        assert torch.allclose(exported(image.cuda()).cpu(), _shipped(away, network)(image), atol=1e-2)


@pytest.mark.slow
def test_networks_on_a_gpu_compute_what_they_do_on_the_cpu(root: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    for network in (SEGMENTER, CLASSIFIER):
        image, shipped = torch.rand(network["shape"]), _shipped(root, network)
        with torch.no_grad():
            expected = shipped(image)
            assert torch.allclose(shipped.cuda()(image.cuda()).cpu(), expected, atol=1e-2)


@pytest.fixture(scope="module")
def copied(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder alone: what a zoo unpacks, and no way back to the repository."""
    folder = tmp_path_factory.mktemp("copied") / NAME
    for name in ("bundle", "configs", "models"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "needs_path"),
    [
        (["run", "--config_file", "{root}/configs/inference.json", "--output_dir", "out"], False),
        (["run_workflow", "--config_file", "{root}/configs/inference_pipeline.json", "--output_dir", "out"], False),
        (["verify_net_in_out", "network_def", *("--config_file", "{root}/configs/inference.json")], True),
        (
            ["ckpt_export", "network_def", *("--config_file", "{root}/configs/inference.json", "--filepath", "m.ts")],
            True,
        ),
    ],
    ids=["run", "run_workflow", "verify_net_in_out", "ckpt_export"],
)
def test_only_commands_that_do_not_run_need_the_python_path(
    words: list[str], needs_path: bool, copied: Path, small_phantom: Path, tmp_path: Path
) -> None:
    common = ["--bundle_root", str(copied), "--meta_file", str(copied / "configs" / "metadata.json")]
    common += {
        "run": ["--dataset_dir", str(small_phantom)],
        "ckpt_export": ["--ckpt_file", f"{copied}/models/model.pt"],
    }.get(words[0].removesuffix("_workflow"), [])
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", *(word.format(root=copied) for word in words)]
    for path in ("", str(copied)):
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *common], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == (bool(path) or not needs_path), done.stderr[-2000:]
        if path == "" and needs_path:
            assert "Cannot locate class or function path: 'bundle." in done.stderr


def test_a_run_without_bundle_root_from_elsewhere_says_what_is_missing(
    away: Path, small_phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError) as caught:
        monai.bundle.run(
            config_file=str(away / "configs" / "inference.json"), dataset_dir=str(small_phantom), output_dir="out"
        )
    assert "from another folder give --bundle_root" in str(caught.value.__cause__)
