# SPDX-License-Identifier: Apache-2.0
"""Claims about the bundle as a client of a federation: MONAI's MonaiAlgo and MonaiAlgoStats, from another folder.

The root is on ``sys.path`` here; users set ``PYTHONPATH``, since MONAI builds the trainer before it runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo, MonaiAlgoStats
from monai.fl.utils.constants import ExtraItems, FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from bundle.data.phantom import make_phantom
from bundle.transforms import LoadLesionMaskd, LoadUltrasoundd

SITES = ("north", "south")
ROUNDS = 2
Weights = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each client is told; the images differ."""
    given = {}
    for seed, name in enumerate(SITES):
        folder = tmp_path_factory.mktemp(name)
        counts = {"benign": 8, "malignant": 6, "normal": 2}
        make_phantom(folder / "data", counts=counts, size_range=((60, 80), (90, 120)), seed=seed)
        given[name] = {
            **{"dataset_dir": str(folder / "data"), "prepared_dir": str(folder / "prepared"), "split": "50:25:25"},
            # Several steps an epoch: the very first one, of the warm-up, changes nothing.
            **{"architecture": "UNet", "filters": [4, 8], "spatial_size": [48, 64], "batch_size": 2},
            **{"output_dir": str(folder / "run"), "max_epochs": ROUNDS, "val_interval": 1},
        }
    return given


def _client(root: Path, name: str, given: Mapping[str, Any], send_weight_diff: bool = False) -> MonaiAlgo:
    client = MonaiAlgo(
        str(root),
        send_weight_diff=send_weight_diff,
        config_train_filename=["configs/train.json", "configs/federated.yaml"],
        train_kwargs=dict(given),
        eval_kwargs=dict(given),
    )
    client.initialize({ExtraItems.CLIENT_NAME: name})
    return client


def _send(weights: Weights) -> ExchangeObject:
    return ExchangeObject(weights=dict(weights), weight_type=WeightType.WEIGHTS)


def _weights(client: MonaiAlgo) -> dict[str, torch.Tensor]:
    assert client.trainer is not None
    return {name: value.clone() for name, value in client.trainer.network.state_dict().items()}


def _mean(answers: list[Weights]) -> dict[str, torch.Tensor]:
    return {
        name: torch.stack([answer[name].float() for answer in answers]).mean(0).to(value.dtype)
        for name, value in answers[0].items()
    }


def test_two_clients_train_two_rounds_on_averaged_weights(
    root: Path, sites: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clients = [_client(root, name, given) for name, given in sites.items()]
    weights = _weights(clients[0])
    for round_ in range(ROUNDS):
        answers = []
        for client in clients:
            assert client.trainer is not None
            metrics = client.evaluate(_send(weights)).metrics
            assert {"val_mean_dice", "val_loss", "val_accuracy"} <= metrics.keys()
            assert 0 <= metrics["val_mean_dice"] <= 1
            client.train(_send(weights))
            answer = client.get_weights()
            assert client.trainer.state.epoch == round_ + 1
            assert answer.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] > 0
            assert any(not torch.equal(answer.weights[name], weights[name]) for name in weights)
            answers.append({name: value.clone() for name, value in answer.weights.items()})
        assert any(not torch.equal(answers[0][name], answers[1][name]) for name in weights)
        weights = _mean(answers)
    evaluator = clients[0].evaluator
    assert evaluator is not None
    clients[0].evaluate(_send(weights))
    assert all(torch.equal(value, weights[name]) for name, value in evaluator.network.state_dict().items())
    for client in clients:
        client.finalize()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_client_that_starts_again_trains_from_the_servers_weights(
    root: Path, sites: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {**sites["north"], "output_dir": str(tmp_path / "run"), "learning_rate": 0.0}
    for scale in (1.0, 2.0):
        client = _client(root, "north", given, send_weight_diff=True)
        sent = {name: value * scale if value.is_floating_point() else value for name, value in _weights(client).items()}
        client.train(_send(sent))
        difference = client.get_weights()
        assert difference.weight_type == WeightType.WEIGHT_DIFF
        learned = [name for name in sent if name.endswith(("weight", "bias"))]
        assert all(float(difference.weights[name].abs().max()) < 1e-6 for name in learned)
        assert difference.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] > 0


def test_statistics_for_the_server_name_no_file(
    root: Path, sites: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = sites["south"]
    config = str(root / "configs" / "train.json")
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, **given)
    readers = [LoadUltrasoundd("image"), LoadLesionMaskd("label")]
    client = MonaiAlgoStats(str(root), workflow=workflow, data_stats_transform_list=readers)
    client.initialize({ExtraItems.CLIENT_NAME: "south"})
    stats = client.get_data_stats({FlStatistics.HIST_BINS: 10, FlStatistics.HIST_RANGE: [0, 1]}).statistics
    for part in ("train", "eval"):
        assert stats[part][FlStatistics.DATA_COUNT] > 0
        assert stats[part][FlStatistics.FAIL_COUNT] == 0
        assert stats[part][FlStatistics.DATA_STATS]["n_cases"] == stats[part][FlStatistics.DATA_COUNT]
    assert given["dataset_dir"] not in str(stats)
    assert ".png" not in str(stats)
