# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.benchmarks.archive and scripts/benchmark.py archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundle.benchmarks import archive as benchmark_archive
from bundle.benchmarks.archive import archive_lines, measure_archive
from bundle.errors import UserError
from scripts.benchmark import main

SMALL = ((48, 50), (50, 60))


def test_growth_is_what_each_further_image_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(listed: Path, *_: Any) -> dict[str, Any]:
        paths = listed.read_text().splitlines()
        assert all(Path(path).is_file() for path in paths)
        count = len(paths)
        return {
            **{"seconds": 5 + 0.5 * count, "cpu_seconds": 8 + 0.25 * count, "peak_memory_gib": 1 + count / 2**20},
            **{"files": 1 + 2 * count, "bytes": 3000 * count},
        }

    monkeypatch.setattr(benchmark_archive, "_measure", measure)
    result = measure_archive([8, 2, 4], tmp_path, ["png", "json"], SMALL)
    assert [run["images"] for run in result["runs"]] == [2, 4, 8]
    assert result["growth"] == pytest.approx(
        {
            **{"seconds": 0.5, "cpu_seconds": 0.25, "files": 2, "bytes": 3000, "peak_memory_bytes": 1024},
            "start_seconds": 5,
        }
    )
    assert "per further 1,000 images: 500 s, 250 CPU s" in archive_lines(result)[-1]
    assert measure_archive([2], tmp_path, ["json"], SMALL)["growth"] is None


def test_what_is_timed_is_there() -> None:
    assert benchmark_archive.PREDICT.is_file()


@pytest.mark.parametrize("counts", [[2], pytest.param([2, 4], marks=pytest.mark.slow)])
def test_each_count_is_predicted_in_a_process_of_its_own(counts: list[int], tiny_models: Path, tmp_path: Path) -> None:
    words = ["archive", "--images", *map(str, counts), "--models", str(tiny_models)]
    assert main([*words, "--output", str(tmp_path / "cost.json")]) == 0
    result = json.loads((tmp_path / "cost.json").read_text())
    assert [(run["images"], run["files"]) for run in result["runs"]] == [(count, 2 * count + 2) for count in counts]
    assert all(run["cpu_seconds"] > 0 < run["bytes"] for run in result["runs"])
    assert all(0.1 < run["peak_memory_gib"] < 4 for run in result["runs"])
    assert len(counts) == 1 or result["growth"]["files"] == 2


@pytest.mark.slow
def test_a_run_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"exit code 2: error: .*model\.pt"):
        measure_archive([1], tmp_path / "nowhere", ["json"], SMALL)
