# SPDX-License-Identifier: Apache-2.0
"""Claims about starting from the weights of an earlier training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch

from bundle.errors import UserError
from bundle.networks import LiteUNet, UNet
from bundle.networks.weights import flat_state_dict, write_weights
from bundle.training import start_from

BUILT: dict[str, Any] = {}


def look(network: torch.nn.Module, spatial_size: list[int]) -> None:
    """What the config below runs last."""
    BUILT.update(network=network, spatial_size=spatial_size)


CONFIG = {
    "init": None,
    "filters": [4, 8],
    "spatial_size": [32, 32],
    "network_def": {"_target_": "bundle.networks.UNet", "filters": "@filters", "context": 0, "dropout": 0.1},
    "network": "$@network_def",
    "initialize": [],
    "run": [
        {
            "_target_": "bundle.training.take_settings",
            **{"init": "@init", "ids": ["filters", "spatial_size", "no_such_id"]},
        },
        {"_target_": "bundle.training.start_from", "init": "@init", "network": "@network"},
        {"_target_": f"{__name__}.look", "network": "@network", "spatial_size": "@spatial_size"},
    ],
    "finalize": [],
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    state = flat_state_dict(UNet(filters=(2, 4, 8), context=1))
    write_weights(tmp_path / "model.pt", state, {"filters": [2, 4, 8], "spatial_size": [48, 64], "context": 1})
    return tmp_path / "model.pt"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(**overrides: Any) -> dict[str, Any]:
        words = [word for id_, value in overrides.items() for word in (f"--{id_}", str(value))]
        monkeypatch.setattr(sys, "argv", ["monai", "run", *words])
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs/a.json").write_text(json.dumps(CONFIG))
        BUILT.clear()
        monai.bundle.run(config_file=str(tmp_path / "configs/a.json"), logging_file=False, **overrides)
        return dict(BUILT)

    return call


def test_one_override_brings_the_weights_and_the_settings_that_they_need(run: Any, weights: Path) -> None:
    built = run(init=str(weights))
    assert built["spatial_size"] == [48, 64]
    state = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, state[key]) for key, value in flat_state_dict(built["network"]).items())


def test_a_setting_that_was_typed_has_the_last_word(run: Any, weights: Path) -> None:
    assert run(init=str(weights), spatial_size=[64, 64])["spatial_size"] == [64, 64]
    with pytest.raises(RuntimeError) as caught:
        run(init=str(weights), filters=[4, 8])
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    assert "weights of another network" in str(cause)


def test_without_start_weights_nothing_is_taken(run: Any) -> None:
    built = run()
    assert built["spatial_size"] == [32, 32]
    start_from(None, built["network"])


def test_imagenet_weights_are_given_to_the_encoder_of_a_run_without_start_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[object] = []
    monkeypatch.setattr("bundle.training.start.load_imagenet", given.append)
    network = LiteUNet(width=0.25, decoder_channels=(8, 8, 8, 8, 4))
    start_from(None, network, "false")
    assert not given
    start_from(None, network, True)
    assert given == [network.encoder]
    with pytest.raises(UserError, match="no ImageNet weights of UNet"):
        start_from(None, UNet(filters=(2, 4)), True)
