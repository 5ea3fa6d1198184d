# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.release.export and scripts/export.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bundle.files import sha256_of
from bundle.release import export
from scripts.export import FORMATS
from scripts.export import main as run_script


def test_every_format_of_both_networks_computes_what_they_do(tiny_models: Path, tmp_path: Path) -> None:
    assert run_script(["--models", str(tiny_models), "--output", str(tmp_path)]) == 0
    entries = json.loads((tmp_path / "exports.json").read_text(encoding="utf-8"))["exports"]
    assert {entry["format"] for entry in entries} == set(FORMATS) == set(export.FORMATS)
    assert len(entries) == 2 * len(FORMATS)
    for entry in entries:
        assert entry["sha256"] == sha256_of(tmp_path / entry["file"])
        assert 0 <= entry["largest_difference"] <= 1e-4
    shapes = {entry["file"].split(".")[0]: entry["input"] for entry in entries}
    assert shapes == {"model": ["batch", 1, 48, 64], "model_classifier": ["batch", 2, 32, 32]}
    assert {path.suffix for path in tmp_path.iterdir()} == {".ts", ".onnx", ".pt2", ".safetensors", ".json"}


def test_an_export_that_differs_is_removed_and_told(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(network: torch.nn.Module, image: torch.Tensor, path: Path) -> export.Network:
        path.write_bytes(b"something")
        return lambda image: network(image) + 0.01

    monkeypatch.setitem(export.FORMATS, "onnx", ("onnx", wrong))
    words = ["--models", str(tiny_models), "--output", str(tmp_path), "--formats", "onnx", "safetensors"]
    assert run_script(words) == 1
    assert capsys.readouterr().out.count("removed") == 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_nan_is_no_equality(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nan(network: torch.nn.Module, image: torch.Tensor, path: Path) -> export.Network:
        path.write_bytes(b"something")
        return lambda image: network(image) * float("nan")

    monkeypatch.setitem(export.FORMATS, "onnx", ("onnx", nan))
    assert run_script(["--models", str(tiny_models), "--output", str(tmp_path), "--formats", "onnx"]) == 1


def test_a_missing_package_is_named(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str) -> None:
        raise ImportError("no module", name=name.partition(".")[0])

    monkeypatch.setattr("importlib.import_module", refuse)
    assert run_script(["--models", str(tiny_models), "--output", str(tmp_path), "--formats", "safetensors"]) == 2
    assert "needs safetensors; pip install -r requirements-export.txt" in capsys.readouterr().err


def test_missing_weights_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(["--models", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
