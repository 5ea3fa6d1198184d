# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.weights."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine

from bundle.errors import UserError
from bundle.files import sha256_of
from bundle.networks import UNet
from bundle.networks.weights import (
    LoadWeights,
    card_path,
    flat_state_dict,
    load_tensors,
    load_weights,
    publish,
    read_card,
    recorded_settings,
    save_atomically,
    write_weights,
)


def _network(seed: int = 0, filters: tuple[int, ...] = (2, 4)) -> UNet:
    torch.manual_seed(seed)
    return UNet(filters=filters)


def _same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "model.pt"
    write_weights(path, flat_state_dict(_network()), {"filters": [2, 4], "threshold": 0.35})
    return path


class Trap:
    """Pickled, it makes a file when something unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def _one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_written_weights_restore_the_network_and_return_their_card(weights: Path) -> None:
    network = _network(seed=1)
    card = load_weights(network, weights)
    assert _same(network, _network())
    assert card == {"sha256": sha256_of(weights), "filters": [2, 4], "threshold": 0.35}
    assert sorted(path.name for path in weights.parent.iterdir()) == ["model.json", "model.pt"]


def test_weights_without_a_card_are_loaded(weights: Path) -> None:
    card_path(weights).unlink()
    network = _network(seed=1)
    assert load_weights(network, weights) == {}
    assert _same(network, _network())


def test_weights_that_differ_from_their_card_are_refused(weights: Path) -> None:
    save_atomically(flat_state_dict(_network(seed=5)), weights)
    with pytest.raises(UserError) as error:
        load_weights(_network(), weights)
    _one_line(error, str(weights), "sha256", "model.json", "restore")


def test_a_missing_file_is_refused_with_or_without_card(weights: Path, tmp_path: Path) -> None:
    weights.unlink()
    for path in (weights, tmp_path / "absent.pt"):
        with pytest.raises(UserError) as error:
            load_weights(_network(), path)
        _one_line(error, str(path), "no such")


@pytest.mark.parametrize("filters", [(2, 8), (2, 4, 4), (4,)])
def test_weights_of_other_filters_are_refused(weights: Path, filters: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as error:
        load_weights(_network(filters=filters), weights)
    _one_line(error, str(weights), "another network")


@pytest.mark.parametrize("state", [3, [1, 2], {"head.weight": 3}, {}, torch.zeros(2)])
def test_a_file_that_holds_no_weights_is_refused(state: Any, tmp_path: Path) -> None:
    save_atomically(state, tmp_path / "model.pt")
    with pytest.raises(UserError) as error:
        load_weights(_network(), tmp_path / "model.pt")
    _one_line(error, "model.pt")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_never_run(tmp_path: Path, legacy: bool) -> None:
    path, proof = tmp_path / "model.pt", tmp_path / "executed"
    trap = {"head.weight": Trap(proof)}
    if legacy:
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path)
    with pytest.raises(UserError) as error:
        load_weights(_network(), path)
    _one_line(error, str(path))
    assert not proof.exists()


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(weights: Path, length: int) -> None:
    card_path(weights).unlink()
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(UserError) as error:
        load_tensors(weights)
    _one_line(error, str(weights), "not a readable checkpoint")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_tensors(tmp_path)
    _one_line(error, str(tmp_path))


def test_a_damaged_card_is_refused(weights: Path) -> None:
    card_path(weights).write_text("{")
    for read in (read_card, lambda path: load_weights(_network(), path)):
        with pytest.raises(UserError, match=r"model\.json"):
            read(weights)


def test_settings_come_from_the_card_and_else_from_the_defaults(weights: Path, tmp_path: Path) -> None:
    defaults = {"filters": [16, 32], "clahe": 0.0}
    assert recorded_settings(weights, defaults) == {"filters": [2, 4], "clahe": 0.0}
    assert recorded_settings(tmp_path / "absent.pt", defaults) == defaults


def test_a_flat_state_dict_has_no_prefixes_and_owns_its_memory() -> None:
    network = _network()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped = torch.nn.Module()
    wrapped.module = torch.nn.Module()
    wrapped.module._orig_mod = network
    flat = flat_state_dict(wrapped)
    assert set(flat) == set(network.state_dict())
    assert all(value.is_contiguous() for value in flat.values())
    before = flat["head.weight"].clone()
    with torch.no_grad():
        network.head.weight.add_(1)
    assert torch.equal(flat["head.weight"], before)


def test_an_evaluator_loads_the_weights_when_it_starts(weights: Path) -> None:
    network = _network(seed=1)
    engine = Engine(lambda _, batch: batch)
    LoadWeights(network, weights).attach(engine)
    assert not _same(network, _network())
    engine.run([0])
    assert _same(network, _network())


def test_an_interrupted_save_leaves_the_former_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights.read_bytes()

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_atomically(flat_state_dict(_network(seed=3)), weights)
    assert weights.read_bytes() == before
    assert sorted(path.name for path in weights.parent.iterdir()) == ["model.json", "model.pt"]


def test_a_sealed_file_is_what_every_other_reader_expects(tmp_path: Path) -> None:
    state = flat_state_dict(_network())
    save_atomically(state, tmp_path / "sealed.pt", seal=True)
    for read in (
        lambda path: torch.load(path, weights_only=True),
        lambda path: torch.load(path, weights_only=True, mmap=True),
        lambda path: load_tensors(path, sealed=True),
    ):
        assert all(torch.equal(value, state[key]) for key, value in read(tmp_path / "sealed.pt").items())
    with zipfile.ZipFile(tmp_path / "sealed.pt") as archive:
        assert archive.comment.startswith(b"sha256:")
        assert archive.testzip() is None


@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_no_flipped_bit_passes_a_seal(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    save_atomically({"weight": torch.arange(50.0)}, path, seal=True)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_tensors(path, sealed=True)


def test_publishing_copies_weights_and_card(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "model.pt"
    publish(weights, target)
    assert target.read_bytes() == weights.read_bytes()
    assert load_weights(_network(), target)["threshold"] == 0.35
    assert not (target.parent / "versions").exists()


def test_publishing_keeps_the_former_weights_and_their_card_as_a_version(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "model.pt"
    publish(weights, target)
    former = sha256_of(target)
    write_weights(weights, flat_state_dict(_network(seed=9)), {"filters": [2, 4], "threshold": 0.6})
    publish(weights, target)
    assert load_weights(_network(), target)["threshold"] == 0.6
    kept = target.parent / "versions" / f"model-{former[:8]}.pt"
    assert load_weights(_network(), kept)["threshold"] == 0.35
    assert sorted(path.name for path in target.parent.glob("*.pt")) == ["model.pt"]


def test_publishing_the_same_weights_again_keeps_no_version_but_brings_the_card(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "model.pt"
    publish(weights, target)
    card = json.loads(card_path(weights).read_text())
    card_path(weights).write_text(json.dumps({**card, "threshold": 0.5}))
    publish(weights, target)
    assert not (target.parent / "versions").exists()
    assert read_card(target)["threshold"] == 0.5


def test_publishing_weights_without_a_card_leaves_no_card_of_the_former_ones(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "model.pt"
    publish(weights, target)
    bare = tmp_path / "bare.pt"
    save_atomically(flat_state_dict(_network(seed=9)), bare)
    publish(bare, target)
    assert load_weights(_network(), target) == {}


def test_a_card_of_before_instance_norm_stands_for_batch_norm(tmp_path: Path) -> None:
    for change, told in (({}, False), ({"instance_norm": True}, True)):
        card_path(tmp_path / "model.pt").write_text(json.dumps({"context": 0, **change}))
        assert recorded_settings(tmp_path / "model.pt", {"instance_norm": True}) == {"instance_norm": told}
    card_path(tmp_path / "model.pt").unlink()
    assert recorded_settings(tmp_path / "model.pt", {"instance_norm": True}) == {"instance_norm": True}
