# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.quantised: both networks in 8 bits find what they find in floating point."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.data.phantom import make_phantom
from bundle.errors import UserError
from bundle.prediction import Predictor, quantised
from bundle.prediction.backends import _ENGINES, QUANTISED, EngineNetwork
from bundle.prediction.batch import Batch
from bundle.prediction.converted import cache_folder
from scripts import predict as command

PACKAGES = (*_ENGINES["openvino"][1], *QUANTISED)
needs_nncf = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in PACKAGES),
    reason="requirements-backends.txt is not installed",
)
Pair = tuple[Predictor, Predictor]


@pytest.fixture(scope="module", params=["U-Net and SegNet", "LiteUNet and LiteSegNet"])
def both(request: pytest.FixtureRequest, write_lite_models: Callable[..., Path], root: Path) -> Pair:
    """The same weights in floating point and in 8 bits: shipped ones, and random Lite ones."""
    models = root / "models"
    with pytest.MonkeyPatch.context() as patch:
        if request.param.startswith("Lite"):
            models = write_lite_models(request.getfixturevalue("tmp_path_factory").mktemp("lite"), presence_bias=4.0)
            patch.setattr(quantised, "COUNTS", {"benign": 3, "malignant": 3})  # less to look at
        return _open(models)


def _open(models: Path) -> Pair:
    plain = Predictor.from_folder(models, "cpu", amp=False, backend="openvino")
    return plain, Predictor.from_folder(models, "cpu", backend="auto", int8=True)


def _images(predictor: Predictor, channels: int = 1, count: int = 6) -> torch.Tensor:
    size = predictor.size if channels == 1 else predictor.classifier.crop.spatial_size
    return torch.rand(count, 1, channels, *size, generator=torch.Generator().manual_seed(0))


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far the second is from the first, as a share of how far the first spreads."""
    return float((one - other).square().mean().sqrt() / one.std())


@needs_nncf
def test_both_networks_say_nearly_the_same_in_8_bits(both: Pair) -> None:
    plain, small = both
    assert small.computed_by == {"backend": "openvino", "precision": "int8", "flip": True}
    for network in (small.segmenter, small.classifier.network):
        assert isinstance(network, EngineNetwork)
    seen = torch.cat([plain.segmenter(image) for image in _images(plain)])
    assert 0 < _apart(seen, torch.cat([small.segmenter(image) for image in _images(plain)])) < 0.25


@needs_nncf
def test_brightness_and_contrast_tell_8_bits_as_little_as_floating_point(both: Pair) -> None:
    _, small = both
    for image in _images(small, count=3):
        dark = small.segmenter(image * 0.05 + 0.02)
        assert _apart(small.segmenter(image), dark) < 0.05  # of 256 levels for all greys, a dark image would have 13


@needs_nncf
def test_lesions_of_phantoms_keep_their_outlines_and_probabilities(root: Path, tmp_path: Path) -> None:
    make_phantom(tmp_path / "p", counts={"benign": 2, "malignant": 2}, seed=7, size_range=((300, 400), (400, 500)))
    plain = Predictor.from_folder(root / "models", "cpu", amp=False, backend="openvino")
    small = Predictor.from_folder(root / "models", "cpu", int8=True, backend="openvino")
    for file in sorted((tmp_path / "p").rglob("*).png")):
        one, other = plain.predict(file), small.predict(file)
        assert 2 * (one.mask & other.mask).sum() / (one.mask.sum() + other.mask.sum()) > 0.95, file.name
        assert other.probability == pytest.approx(one.probability, abs=0.1)


@needs_nncf
def test_a_second_start_takes_what_is_kept_and_another_choice_is_quantised_anew(
    both: Pair, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "_run_nncf", lambda folder: pytest.fail("quantised again"))
    monkeypatch.setattr(quantised, "COUNTS", {"benign": 1})
    with pytest.raises(pytest.fail.Exception, match="quantised again"):
        Predictor.from_folder(root / "models", "cpu", int8=True, backend="auto")
    monkeypatch.undo()
    monkeypatch.setattr(quantised, "_run_nncf", lambda folder: pytest.fail("quantised again"))
    Predictor.from_folder(root / "models", "cpu", int8=True, backend="auto")


@needs_nncf
def test_neither_nncf_nor_openvino_reports_that_it_was_imported(tmp_path: Path) -> None:
    home, nothing = tmp_path / "home", tmp_path / "nothing"
    home.mkdir()
    nothing.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}  # none of the names by which they would know CI
    subprocess.run([sys.executable, str(quantised._PROCESS), str(nothing)], env=environment, check=True)
    assert not list(home.iterdir())  # such as an id of the user


@needs_nncf
def test_a_failure_of_nncf_is_told_in_one_line(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1, "", "Traceback\n  in a file\nRuntimeError: no room")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(quantised.subprocess, "run", fail)
    monkeypatch.setattr(quantised, "COUNTS", {"benign": 1})
    (tmp_path / "a.png").write_bytes(b"never read")
    assert command.main([str(tmp_path / "a.png"), "--models", str(tiny_models), "--precision", "int8"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "NNCF could not quantise these networks (RuntimeError: no room); use another precision" in line
    assert not list(cache_folder().glob("*.int8"))


@needs_nncf
def test_weights_that_find_nothing_cannot_be_quantised(
    write_models: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantised, "COUNTS", {"benign": 1})
    with pytest.raises(UserError, match="finds no lesion in any calibration image"):
        Predictor.from_folder(write_models(tmp_path / "m", bias=-20.0), "cpu", int8=True, backend="auto")


def test_8_bits_by_another_backend_or_without_nncf_are_refused(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="precision 'int8' is OpenVINO's alone, not the backend torch's"):
        Predictor.from_folder(tiny_models, "cpu", int8=True)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else found(name))
    if all(found(package) for package in _ENGINES["openvino"][1]):
        with pytest.raises(UserError, match=r"'int8' needs nncf; pip install -r requirements-backends\.txt"):
            Predictor.from_folder(tiny_models, "cpu", int8=True, backend="auto")


@needs_nncf
def test_8_bits_on_a_gpu_are_refused(tiny_models: Path) -> None:
    with pytest.raises(UserError, match="runs on the CPU alone"):
        Predictor.from_folder(tiny_models, "meta", int8=True, backend="auto")


@needs_nncf
def test_findings_in_8_bits_are_not_taken_for_others(both: Pair) -> None:
    plain, small = (Batch(predictor, "digest") for predictor in both)
    assert plain._choices() == []
    assert small._choices() == ["int8"]
