# SPDX-License-Identifier: Apache-2.0
"""Claims about the command line scripts/benchmark.py."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.benchmarks import duplicates
from bundle.benchmarks import training as benchmark
from scripts import benchmark as script
from scripts.benchmark import main

BY_NAME = {"builds", "nnunet", "prices", "profile"}  # which need more than a quick look can give
SMALL = ["--quick", "--spatial_size", "32", "48", "--filters", "4", "8", "--batch_size", "2"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of one quick run, and whether it left anything where it was started."""
    folder = tmp_path_factory.mktemp("benchmark")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["training", *SMALL, "--threads", "1", "--iterations", "2", "--output", "result.json"]) == 0
    torch.set_num_threads(threads)
    return {**json.loads((folder / "result.json").read_text()), "left": [path.name for path in folder.iterdir()]}


def test_ratio_is_the_quotient_of_the_medians(measured: dict[str, Any]) -> None:
    bare, loop = (sorted(entry[kind] for entry in measured["rounds"]) for kind in ("bare", "loop"))
    assert len(bare) == 2
    assert bare[0] > 0 < loop[0]
    assert measured["bare_images_per_second"] == pytest.approx(sum(bare) / 2)
    assert measured["loop_images_per_second"] == pytest.approx(sum(loop) / 2)
    assert measured["ratio"] == pytest.approx(sum(loop) / sum(bare))
    low, high = measured["ratio_range"]
    assert low <= high


def test_options_reach_the_network_and_the_batch(measured: dict[str, Any]) -> None:
    settings = measured["settings"]
    assert settings["spatial_size"] == [32, 48]
    assert (settings["filters"], settings["batch_size"], settings["threads"]) == ([4, 8], 2, 1)
    assert settings["iterations_per_round"] == 2
    assert settings["parameters"] < 100_000
    assert measured["provenance"]["device"] == "CPU, 1 threads" or torch.cuda.is_available()


def test_run_leaves_only_its_result(measured: dict[str, Any]) -> None:
    assert measured["left"] == ["result.json"]


def test_slow_handler_slows_the_loop_and_not_the_bare_network(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that a handler of the loop can advance: 100 s per checkpoint, 1 s per look at the clock.
    now = [0.0]

    def tick(_: torch.device) -> float:
        now[0] += 1
        return now[0]

    def save(*_: Any) -> None:
        now[0] += 100

    monkeypatch.setattr(benchmark, "_clock", tick)
    monkeypatch.setattr("bundle.training.checkpoint.Checkpoint.save", save)
    config = Path(__file__).resolve().parents[2] / "configs" / "train.json"
    small = {"spatial_size": [16, 16], "filters": [2, 4], "batch_size": 2}
    result = benchmark.measure_training([config], overrides=small, rounds=2, iterations=2)
    assert result["rounds"] == [{"bare": 4.0, "loop": pytest.approx(4 / 101)}] * 2


@pytest.mark.parametrize("option", [["--config", "nowhere.json"], ["--dataset_dir", "nowhere"]])
def test_missing_file_gives_one_line_and_exit_code_2(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", *SMALL, *option]) == 2
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert "Traceback" not in told
    assert len([line for line in told.splitlines() if line.startswith("error: ")]) == 1


def test_option_without_sense_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["training", "--batch_size", "0"])
    assert ended.value.code == 2


def test_the_search_for_duplicates_tells_what_it_found_and_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(duplicates, "ONE_COPY_IN", 10)
    assert main(["duplicates", "--images", "3", "12", "--output", str(tmp_path / "result.json")]) == 0
    small, large = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["runs"]
    assert (small["images"], large["images"]) == (4, 13)
    assert (small["planted"], large["planted"]) == (1, 2)
    assert [run["found"] for run in (small, large)] == [1, 2]
    assert small["wrong"] == large["wrong"] == 0
    assert 0 < small["seconds"] < large["seconds"]
    assert "2 of 2 planted copies found, 0 wrong pairs" in capsys.readouterr().out


@pytest.mark.parametrize("quick", [["--quick"], []])
def test_all_measures_each_with_arguments_that_it_understands(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
        return {name: str(value) for name, value in vars(options).items()}, [f"shown: {options.command}"]

    for name in script._COMMANDS:
        monkeypatch.setitem(script._COMMANDS, name, measure)
    assert main(["all", *quick, "--output", str(tmp_path / "out")]) == 0
    records = {path.stem.removeprefix("benchmark_"): json.loads(path.read_text()) for path in tmp_path.glob("out/*")}
    assert records.keys() == script._COMMANDS.keys() - BY_NAME
    assert all(record["command"] == name for name, record in records.items())
    assert {record.get("quick") for record in records.values()} == {str(bool(quick)), None}
    assert records["archive"]["images"] == ("[2, 4]" if quick else "[100, 1000]")
    assert "== peers\nshown: peers" in capsys.readouterr().out


@pytest.mark.slow
def test_all_writes_a_record_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["all", "--quick", "--output", str(tmp_path / "out")]) == 0
    records = {path.stem.removeprefix("benchmark_"): json.loads(path.read_text()) for path in tmp_path.glob("out/*")}
    assert sorted(records) == ["archive", "dictionary", "duplicates", "inference", "peers", "training"]
    assert all(record["provenance"]["packages"]["torch"] for record in records.values())
    assert "== peers" in capsys.readouterr().out
