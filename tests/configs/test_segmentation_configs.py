# SPDX-License-Identifier: Apache-2.0
"""The segmentation configs, run as users and MONAI's tools run them, on a small phantom."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, onnx_export, verify_net_in_out
from PIL import Image

from bundle.errors import UserError
from bundle.networks import PEERS, Peer, UNet
from bundle.prediction import Predictor
from bundle.transforms import RemoveMarksd

Run = Callable[..., subprocess.CompletedProcess[str]]
TRAIN, EVALUATE, INFERENCE = (f"configs/{name}.json" for name in ("train", "evaluate", "inference"))


@pytest.fixture(scope="module")
def settings(small_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that keep a run small and out of the repository."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        *("--dataset_dir", str(small_phantom)),
        *("--prepared_dir", str(folder / "prepared"), "--split", "40:20:40"),
        *("--output_dir", str(folder / "run")),
    ]


@pytest.fixture(scope="module")
def trained(settings: list[str], run_bundle: Run) -> Path:
    """The folder of a finished training of three epochs."""
    small = [
        "--max_epochs",
        "3",
        "--spatial_size",
        "[48, 64]",
        "--architecture",
        "UNet",
        "--filters",
        "[4, 8]",
        "--batch_size",
        "4",
    ]
    done = run_bundle("training", "--config_file", TRAIN, *settings, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SYNTHETIC" in done.stderr
    return Path(settings[-1])


def test_training_leaves_weights_card_metrics_curves_and_examples(trained: Path) -> None:
    card = json.loads((trained / "model.json").read_text())
    assert card["synthetic"] is True
    assert card["filters"] == [4, 8]
    assert card["spatial_size"] == [48, 64]
    assert 0 < card["threshold"] < 1
    state = torch.load(trained / "model.pt", weights_only=True)
    UNet(filters=[4, 8], instance_norm=True).load_state_dict(state)
    for name in ("curves.png", "examples.png"):
        assert Image.open(trained / name).width > 300
    history = json.loads((trained / "history.json").read_text())
    assert [epoch for epoch, _ in history["train_loss"]] == [1, 2, 3]
    assert {"val_mean_dice", "val_loss", "train_dice"} <= history.keys()
    assert list(trained.glob("events.out.tfevents.*"))


def test_training_on_the_phantom_never_touches_the_shipped_models(trained: Path, root: Path) -> None:
    card = root / "models" / "model.json"
    assert not card.exists() or json.loads(card.read_text())["synthetic"] is False


def test_the_same_command_again_has_nothing_left_to_train(trained: Path, settings: list[str], run_bundle: Run) -> None:
    before = torch.load(trained / "model.pt", weights_only=True)
    small = [
        "--max_epochs",
        "3",
        "--spatial_size",
        "[48, 64]",
        "--architecture",
        "UNet",
        "--filters",
        "[4, 8]",
        "--batch_size",
        "4",
    ]
    done = run_bundle("training", "--config_file", TRAIN, *settings, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    after = torch.load(trained / "model.pt", weights_only=True)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert len(json.loads((trained / "history.json").read_text())["train_loss"]) == 3


def test_a_run_folder_of_other_settings_is_refused_by_name(trained: Path, settings: list[str], run_bundle: Run) -> None:
    done = run_bundle("training", "--config_file", TRAIN, *settings, "--max_epochs", "3", "--learning_rate", "0.5")
    assert done.returncode == 2
    assert "learning_rate: 0.002 there, 0.5 here" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_images_without_a_lesion_join_the_training_on_request(
    settings: list[str], tmp_path: Path, run_bundle: Run
) -> None:
    small = [
        "--max_epochs",
        "1",
        "--spatial_size",
        "[48, 64]",
        "--architecture",
        "UNet",
        "--filters",
        "[4, 8]",
        "--output_dir",
        str(tmp_path),
    ]
    done = run_bundle("training", "--config_file", TRAIN, *settings, *small, "--normals", "true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "model.json").read_text())["normals"] is True
    again = run_bundle("training", "--config_file", TRAIN, *settings, *small)
    assert again.returncode == 2
    assert "normals" in again.stderr
    assert "training_images" in again.stderr


def test_evaluation_scores_the_test_part_at_native_size(trained: Path, settings: list[str], run_bundle: Run) -> None:
    done = run_bundle("--config_file", EVALUATE, *settings)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((trained / "evaluation" / "metrics.json").read_text())
    datalist = json.loads((Path(settings[3]) / "datalist_segmentation.json").read_text())
    assert metrics["synthetic"] is True
    assert metrics["lesions"]["cases"] == len(datalist["test"])
    assert metrics["normals"]["cases"] == len(datalist["test_normal"])
    assert 0 <= metrics["lesions"]["dice"]["low"] <= metrics["lesions"]["dice"]["high"] <= 1
    with open(trained / "evaluation" / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    tested = {record["image"] for part in ("test", "test_normal") for record in datalist[part]}
    assert {row["image"] for row in rows} == tested
    for row in rows:
        height, width = np.asarray(Image.open(Path(settings[1]) / row["image"])).shape
        assert sum(int(row[key]) for key in ("tp", "fp", "fn", "tn")) == height * width
    assert "SYNTHETIC" in (trained / "evaluation" / "report.html").read_text()


def test_inference_writes_native_masks_and_reports_the_bad_file(
    trained: Path, small_phantom: Path, tmp_path: Path, run_bundle: Run
) -> None:
    images = tmp_path / "images" / "ward 7"
    images.mkdir(parents=True)
    for path in sorted((small_phantom / "benign").glob("benign ([1-3]).png")):
        shutil.copy(path, images)
    (images / "broken.png").write_bytes((images / "benign (1).png").read_bytes()[:500])
    output = tmp_path / "out"
    done = run_bundle(
        *("--config_file", INFERENCE, "--dataset_dir", tmp_path / "images"),
        *("--weights", trained / "model.pt", "--output_dir", output),
    )
    assert done.returncode == 3, done.stderr[-3000:]
    assert "broken.png" in done.stderr
    masks = sorted(path.name for path in (output / "masks" / "ward 7").iterdir())
    assert masks == [f"benign ({i}).png" for i in (1, 2, 3)]
    for name in masks:
        mask, image = (np.asarray(Image.open(folder / name)) for folder in (output / "masks" / "ward 7", images))
        assert mask.shape == image.shape
        assert set(np.unique(mask)) <= {0, 255}
    skipped = json.loads((output / "skipped.json").read_text())
    assert [Path(entry["path"]).name for entry in skipped] == ["broken.png"]


@pytest.mark.parametrize("overlay", ["letterbox", "clahe"])
def test_preprocessing_options_are_repeated_by_evaluation(
    overlay: str, settings: list[str], tmp_path: Path, run_bundle: Run
) -> None:
    option = {"letterbox": ["--letterbox", "True"], "clahe": ["--clahe", "2.0"]}[overlay]
    overrides = [*settings[:-1], str(tmp_path / "run")]
    small = [
        "--max_epochs",
        "1",
        "--spatial_size",
        "[64, 64]",
        "--architecture",
        "UNet",
        "--filters",
        "[4, 8]",
        *option,
    ]
    done = run_bundle("training", "--config_file", TRAIN, *overrides, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    parser = ConfigParser.load_config_file(EVALUATE)
    workflow = ConfigParser({**parser, "weights": str(tmp_path / "run" / "model.pt"), "output_dir": str(tmp_path)})
    recorded = workflow.get_parsed_content("recorded")
    assert recorded[overlay] == (True if overlay == "letterbox" else 2.0)


@pytest.mark.parametrize("row", [1, 2, 3, 4])
def test_paper_rows_have_their_filters_and_rates(row: int, root: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_files([root / TRAIN, root / "configs/paper_segmentation.yaml"]))
    parser["row"] = row
    filters = {1: [64, 128, 256, 512], 2: [32, 64, 128, 128], 3: [32, 64, 128, 128], 4: [64, 128, 256, 512]}
    assert parser.get_parsed_content("filters") == filters[row]
    assert parser.get_parsed_content("learning_rate") == {1: 1e-4, 2: 4e-4, 3: 1e-5, 4: 1e-5}[row]
    network = parser.get_parsed_content("network_def")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert isinstance(parser.get_parsed_content("loss"), torch.nn.BCEWithLogitsLoss)


def test_paper_recipe_trains_with_oversampling(settings: list[str], tmp_path: Path, run_bundle: Run) -> None:
    overrides = [*settings[:-1], str(tmp_path / "run")]
    small = ["--max_epochs", "2", "--spatial_size", "[48, 64]", "--architecture", "UNet", "--filters", "[4, 8]"]
    files = f"['{TRAIN}', 'configs/paper_segmentation.yaml']"
    done = run_bundle("training", "--config_file", files, *overrides, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["batch_norm"] is False
    assert card["context"] == 16
    assert card["validation"]["metric"] == "val_loss"


def test_batch_norm_in_the_place_of_instance_norm_reaches_the_card_the_evaluation_and_the_prediction(
    settings: list[str], tmp_path: Path, run_bundle: Run, tiny_models: Path
) -> None:
    overrides = [*settings[:-1], str(tmp_path / "run")]
    small = [
        "--max_epochs",
        "1",
        "--spatial_size",
        "[48, 64]",
        "--architecture",
        "UNet",
        "--filters",
        "[4, 8]",
        "--instance_norm",
        "False",
    ]
    done = run_bundle("training", "--config_file", TRAIN, *overrides, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    done = run_bundle("--config_file", EVALUATE, *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = tmp_path / "run" / "model.pt"
    assert json.loads(weights.with_suffix(".json").read_text())["instance_norm"] is False
    predictor = Predictor(weights, tiny_models / "model_classifier.pt", "cpu")
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in predictor.segmenter.modules())
    assert predictor.segment(np.full((50, 70), 90.0)).shape == (50, 70)


@pytest.mark.slow
def test_a_network_of_monai_trains_and_is_evaluated_in_the_place_of_ours(
    settings: list[str], tmp_path: Path, run_bundle: Run
) -> None:
    overrides = [*settings[:-1], str(tmp_path / "run")]
    files = f"['{TRAIN}', 'configs/peer_segmentation.yaml']"
    small = ["--max_epochs", "2", "--spatial_size", "[48, 64]", "--batch_size", "4", "--peer", "SegResNet"]
    done = run_bundle("training", "--config_file", files, *overrides, *small)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["peer"] == "SegResNet"
    assert not {"filters", "batch_norm", "context", "standardize"} & card.keys()
    other = run_bundle("training", "--config_file", files, *overrides, *small[:-1], "BasicUNet")
    assert other.returncode != 0
    assert "peer" in other.stderr  # a run folder of another network is refused by the setting's name
    network = "{'_target_': 'bundle.networks.Peer', 'name': 'SegResNet'}"
    done = run_bundle("--config_file", EVALUATE, *overrides, "--network_def", network)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "evaluation" / "metrics.json").is_file()
    with pytest.raises(UserError, match="the card of another network"):
        Predictor(tmp_path / "run" / "model.pt", "models/model_classifier.pt", "cpu")


@pytest.mark.parametrize("peer", PEERS)
def test_every_peer_is_built_by_its_overlay_and_names_itself_in_the_fingerprint(peer: str, root: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_files([root / TRAIN, root / "configs/peer_segmentation.yaml"]))
    parser["peer"] = peer
    assert isinstance(parser.get_parsed_content("network_def"), Peer)
    assert parser["checkpoint"]["fingerprint"]["peer"] == "@peer"
    assert parser.get_parsed_content("finish#settings#peer") == peer


def test_a_run_on_records_given_by_a_tool_is_published_and_the_former_weights_kept(
    small_phantom: Path, tmp_path: Path, run_bundle: Run
) -> None:
    # As MONAI Label does: the records replace the data, everything else stays at its default.
    images = [small_phantom / "benign" / f"benign ({number}).png" for number in (1, 2, 3)]
    records = [{"image": str(path), "label": str(path.with_name(f"{path.stem}_mask.png"))} for path in images]
    (tmp_path / "models").mkdir()
    torch.save({}, tmp_path / "models" / "model.pt")
    done = run_bundle(
        *("run", "--config_file", TRAIN, "--bundle_root", tmp_path, "--dataset_dir", small_phantom),
        *("--split", "40:20:40", "--train#dataset#data", str(records), "--validate#dataset#data", str(records[:1])),
        *("--max_epochs", "1", "--spatial_size", "[32, 32]", "--architecture", "UNet", "--filters", "[4, 8]"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((tmp_path / "models" / "model.json").read_text())
    assert card["training_images"] == 3
    assert card["synthetic"] is False
    UNet(filters=[4, 8], instance_norm=True).load_state_dict(
        torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    )
    assert len(list((tmp_path / "models" / "versions").glob("model-*.pt"))) == 1


def test_misspelt_override_is_refused_before_anything_is_trained(tmp_path: Path, run_bundle: Run) -> None:
    done = run_bundle("training", "--config_file", TRAIN, "--max_epoch", "3", "--output_dir", tmp_path / "run")
    assert done.returncode == 2
    assert "max_epochs" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_two_processes_train_one_network(
    small_phantom: Path, settings: list[str], tmp_path: Path, run_bundle: Run
) -> None:
    overrides = [*settings[:-1], str(tmp_path / "run")]
    small = [
        "--max_epochs",
        "2",
        "--spatial_size",
        "[48, 64]",
        "--architecture",
        "UNet",
        "--filters",
        "[4, 8]",
        "--batch_size",
        "2",
    ]
    files = f"['{TRAIN}', 'configs/multi_gpu_train.json']"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    done = run_bundle("training", "--config_file", files, *overrides, *small, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    UNet(filters=[4, 8], instance_norm=True).load_state_dict(
        torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    )
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())["train_loss"]) == 2


@pytest.mark.parametrize(("name", "kind"), [("train", "train"), ("evaluate", "infer"), ("inference", "infer")])
def test_monai_finds_every_property(
    name: str, kind: str, trained: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(root)
    overrides: dict[str, Any] = {"dataset_dir": settings[1], "output_dir": str(trained)}
    if name == "inference":
        overrides["weights"] = str(trained / "model.pt")
    else:
        overrides |= {"prepared_dir": settings[3], "split": settings[5]}
    workflow = ConfigWorkflow(f"configs/{name}.json", workflow_type=kind, logging_file=False, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("config", [TRAIN, EVALUATE, INFERENCE])
def test_network_matches_its_metadata(config: str, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(root)
    verify_net_in_out("network_def", meta_file="configs/metadata.json", config_file=config)


def test_exports_equal_the_network(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(root)
    network = UNet(filters=[4, 8], instance_norm=True)
    network.load_state_dict(torch.load(trained / "model.pt", weights_only=True))
    image = torch.rand(2, 1, 32, 48)
    with torch.no_grad():
        expected = network.eval()(image)
    common: dict[str, Any] = {
        "ckpt_file": str(trained / "model.pt"),
        "meta_file": "configs/metadata.json",
        "config_file": INFERENCE,
        "weights": str(trained / "model.pt"),
    }
    ckpt_export("network_def", filepath=str(tmp_path / "model.ts"), **common)
    assert torch.allclose(torch.jit.load(tmp_path / "model.ts")(image), expected, atol=1e-5)
    onnx_export("network_def", filepath=str(tmp_path / "model.onnx"), input_shape=[2, 1, 32, 48], **common)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert np.abs(result - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("config", ["evaluate", "evaluate_classifier"])
def test_an_evaluation_without_marks_stands_beside_the_other(config: str, root: Path) -> None:
    folders = {}
    for unmarked in (False, True):
        parser = ConfigParser()
        parser.read_config(str(root / "configs" / f"{config}.json"))
        parser["output_dir"], parser["unmarked"] = "runs/a", unmarked
        folders[unmarked] = parser.get_parsed_content("handlers#1#output_dir")
        transforms = parser.get_parsed_content("preprocessing").transforms
        (removal,) = (transform for transform in transforms if isinstance(transform, RemoveMarksd))
        assert removal.active is unmarked
        assert parser.get_parsed_content("handlers#1#unmarked") is unmarked
    assert folders == {False: "runs/a/evaluation", True: "runs/a/evaluation_unmarked"}


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("15:5:80", "segmentation_BUSI"),
        ("15:5:80, fold 1 of 2", "segmentation_BUSI_fold1"),
        ("fold 3 of 5", "segmentation_BUSI_fold3"),
        ("twofold_BUSI 15:5:80", "segmentation_BUSI"),
    ],
)
def test_the_run_folder_is_named_after_the_fold(split: str, name: str, root: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_file(root / TRAIN))
    parser["dataset_name"], parser["given_name"], parser["split"] = "BUSI", None, split
    assert Path(parser.get_parsed_content("output_dir")).name == name
