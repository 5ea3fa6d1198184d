# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.converted: a network is converted once, and nothing else is taken for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from bundle.networks import UNet
from bundle.prediction import converted as module
from bundle.prediction.converted import cache_folder, converted

SHAPE = (1, 1, 16, 16)


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often something was converted, in an empty cache; what is converted here is not looked at."""
    calls: list[int] = []

    def convert(network: torch.nn.Module, image: torch.Tensor) -> bytes:
        calls.append(1)
        return b"onnx of " + str(sum(float(p.detach().sum()) for p in network.parameters())).encode()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "to_onnx", convert)
    return calls


def _network(seed: int = 0, **settings: bool) -> UNet:
    torch.manual_seed(seed)
    return UNet(filters=(4,), **settings).eval()


def test_a_network_is_converted_once(conversions: list[int]) -> None:
    first = converted(_network(), SHAPE)
    assert converted(_network(), SHAPE) == first
    assert len(conversions) == 1
    (kept,) = cache_folder().iterdir()
    assert kept.suffix == ".onnx"
    assert os.name != "posix" or cache_folder().stat().st_mode & 0o077 == 0  # the user's alone


def test_other_weights_settings_and_sizes_are_converted_anew(conversions: list[int]) -> None:
    converted(_network(), SHAPE)
    converted(_network(seed=1), SHAPE)
    converted(_network(standardize=False), SHAPE)  # the same weights
    converted(_network(), (1, 1, 16, 32))
    assert len(conversions) == 4


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_converted_anew(damage: str, conversions: list[int]) -> None:
    first = converted(_network(), SHAPE)
    (file,) = cache_folder().iterdir()
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-3], "changed": content[:-1] + b"~", "empty": b""}[damage])
    assert converted(_network(), SHAPE) == first
    assert len(conversions) == 2
    assert file.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have owners on POSIX")
def test_a_file_of_another_user_is_not_read(conversions: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    converted(_network(), SHAPE)
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    converted(_network(), SHAPE)
    assert len(conversions) == 2


def test_without_a_place_to_keep_it_a_network_is_still_converted(
    conversions: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert converted(_network(), SHAPE) == converted(_network(), SHAPE)
    assert len(conversions) == 2
