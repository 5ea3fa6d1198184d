# SPDX-License-Identifier: Apache-2.0
"""Claims about the benchmarks of inference and of MONAI's networks, with small weights and few rounds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.benchmarks import inference as benchmark_inference
from bundle.benchmarks.inference import measure_inference
from bundle.benchmarks.peers import measure_peers, peak_memory_mib
from bundle.networks import PEERS, Peer
from bundle.prediction import Predictor
from scripts.benchmark import main

SMALL: dict[str, Any] = {"images": 2, "rounds": 2, "sizes": ((48, 56), (60, 70))}


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only what a test slows down can advance, and one second per look."""
    now = [0.0]

    def look() -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr(benchmark_inference, "_clock", look)
    return now


def test_a_slow_decoder_slows_the_pipeline_and_not_the_networks(
    ticking: list[float], tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Predictor.predict

    def slow(self: Predictor, *words: Any, **more: Any) -> Any:
        ticking[0] += 9
        return plain(self, *words, **more)

    monkeypatch.setattr(Predictor, "predict", slow)
    result = measure_inference(tiny_models, backends=["torch"], **SMALL)
    run = result["runs"][0]
    assert run["name"] == "torch, float32"
    assert run["bare_images_per_second"] == 2
    assert run["pipeline_images_per_second"] == pytest.approx(2 / 19)
    assert run["share"] == pytest.approx(1 / 19)
    assert (run["bare_ratio"], run["pipeline_ratio"]) == (1, 1)
    assert len(result["rounds"]) == 2


def test_a_backend_that_is_not_installed_is_left_out_and_told(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "bundle.prediction.backends.importlib.util.find_spec",
        lambda name: None if name in ("openvino", "onnxruntime") else found(name),
    )
    words = ["inference", "--quick", "--models", str(tiny_models), "--output", str(tmp_path / "out.json")]
    assert main(words) == 0
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert content["settings"]["left_out"] == ["onnxruntime", "openvino"]
    assert {run["name"].split(",")[0] for run in content["runs"]} == {"torch"}
    assert "not installed: openvino" in capsys.readouterr().out


def test_peers_are_measured_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["peers", "--quick", "--spatial_size", "32", "32", "--batch_size", "2"]
    assert main([*words, "--output", str(tmp_path / "out.json")]) == 0
    runs = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["runs"]
    assert [run["name"] for run in runs] == ["ours", *PEERS]
    assert all(0.75 < run["parameters"] / runs[0]["parameters"] < 1.25 for run in runs)
    assert all(run["step_memory_mib"] > run["image_memory_mib"] > 0 for run in runs)
    assert all(run["seconds_per_step"] > 0 < run["seconds_per_image"] for run in runs)
    assert "SegResNet" in capsys.readouterr().out
    assert main(["peers", "--spatial_size", "40", "32"]) == 2


def test_operations_grow_with_the_area() -> None:
    small, large = (
        measure_peers(spatial_size=size, batch_size=1, filters=(4, 8), rounds=1, iterations=1)["runs"][0]["macs"]
        for size in ((32, 32), (64, 64))
    )
    assert large == 4 * small


def test_memory_is_the_most_that_is_held_at_once() -> None:
    def take(count: int) -> None:
        for _ in range(3):
            held = [torch.empty(2**20, dtype=torch.uint8) for _ in range(count)]
            del held

    assert peak_memory_mib(lambda: take(1)) == pytest.approx(1, abs=0.01)
    assert peak_memory_mib(lambda: take(5)) == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("name", PEERS)
def test_peers_do_not_mind_brightness_and_contrast(name: str) -> None:
    network = Peer(name).eval()
    image = torch.rand(1, 1, 32, 48)
    with torch.no_grad():
        logits = network(image)
        assert logits.shape == image.shape
        assert torch.allclose(network(image * 0.5 + 0.2), logits, atol=1e-3)


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ValueError, match="peer: Unet must be one of BasicUNet, UNet, AttentionUnet, SegResNet"):
        Peer("Unet")
