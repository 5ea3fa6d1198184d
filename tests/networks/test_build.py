# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.build and the architecture on cards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from bundle.errors import UserError
from bundle.files import write_json
from bundle.networks import LiteUNet, SegNet, UNet, build, build_from_card, build_network, network_settings
from bundle.networks.weights import read_card

EVERYTHING = {"filters": [4, 8], "context": 0, "width": 0.25, "decoder_channels": [8, 8, 8, 4, 4], "decoder": False}


def test_an_architecture_takes_the_settings_that_it_knows_and_no_others() -> None:
    assert network_settings("UNet", **EVERYTHING) == {"architecture": "UNet", "filters": [4, 8], "context": 0}
    lite = network_settings("LiteUNet", **EVERYTHING, presence=None)
    assert lite == {"architecture": "LiteUNet", "width": 0.25, "decoder_channels": [8, 8, 8, 4, 4]}
    assert isinstance(build_network("SegNet", **EVERYTHING), SegNet)


def test_flags_come_as_text_from_a_command_line() -> None:
    settings = network_settings("LiteUNet", presence="True", pretrained="false", width=0.25)
    assert (settings["presence"], settings["pretrained"]) == (True, False)
    with pytest.raises(UserError, match="pretrained: 'maybe'"):
        network_settings("LiteUNet", pretrained="maybe")


def test_an_unknown_architecture_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match="'Transformer' is none of UNet, LiteUNet, SegNet, LiteSegNet"):
        build_network("Transformer")


def test_a_network_is_built_from_what_its_card_keeps_without_pretrained_weights() -> None:
    card = {**network_settings("LiteUNet", width=0.25, presence=True), "pretrained": True, "threshold": 0.5}
    network = build_from_card(card)
    assert isinstance(network, LiteUNet)
    assert network.eval()(torch.rand(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def test_cards_of_before_there_was_a_choice_are_of_the_u_net_and_the_segnet(tmp_path: Path) -> None:
    old = {"filters": [4, 8], "batch_norm": True, "standardize": True}
    write_json(tmp_path / "model.json", {**old, "context": 0})
    write_json(tmp_path / "model_classifier.json", {**old, "decoder": False, "in_channels": 2})
    segmenter, classifier = (read_card(tmp_path / f"{name}.pt") for name in ("model", "model_classifier"))
    assert segmenter["architecture"] == "UNet"
    assert isinstance(build_from_card(segmenter), UNet)
    assert isinstance(build_from_card(classifier), SegNet)


class OwnNet(torch.nn.Module):
    """A network that somebody adds: with some of the settings that the configs know, and one of its own."""

    def __init__(self, filters: list[int], dropout: float = 0.0, heads: int = 3) -> None:
        super().__init__()
        self.settings = (list(filters), dropout, heads)
        self.head = torch.nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize("config", ["train", "evaluate", "inference"])
def test_a_network_that_was_added_is_built_by_the_configs_as_they_are(
    config: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(build.ARCHITECTURES, "OwnNet", OwnNet)
    write_json(tmp_path / "model.json", {"architecture": "OwnNet", "filters": [4, 8]})
    parser = ConfigParser()
    parser.read_config(root / "configs" / f"{config}.json")
    changes = {"architecture": "OwnNet", "filters": [4, 8]} if config == "train" else {}
    parser.update({"bundle_root": str(root), "weights": str(tmp_path / "model.pt"), **changes})
    network = parser.get_parsed_content("network_def")
    assert network.settings == ([4, 8], 0.1 if config == "train" else 0.0, 3)
    if config == "train":
        card = parser.get_parsed_content("network_settings")
        assert build_from_card({**card, "threshold": 0.5}).settings[0] == [4, 8]
