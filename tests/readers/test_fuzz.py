# SPDX-License-Identifier: Apache-2.0
"""Claims about damaged files: only an `InputError` comes out, soon, and memory stays small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mutate import LARGEST_MB, LONGEST_SECONDS, attack, dicom_seeds, picture_seeds


@pytest.mark.parametrize(("make_seeds", "count"), [(dicom_seeds, 500), (picture_seeds, 120)], ids=["dicom", "pictures"])
def test_damaged_files_are_read_or_refused(make_seeds: object, count: int, tmp_path: Path) -> None:
    result = attack(make_seeds(tmp_path), count, tmp_path)  # type: ignore[operator]
    assert result["read"] > count * 0.05  # else the damage is too coarse to reach the decoders
    assert result["refused"] > count * 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("make_seeds", "count"), [(dicom_seeds, 20_000), (picture_seeds, 5_000)])
def test_twenty_thousand_damaged_files_are_read_or_refused(make_seeds: object, count: int, tmp_path: Path) -> None:
    result = attack(make_seeds(tmp_path), count, tmp_path, start=500)  # type: ignore[operator]
    assert result["slowest_cpu_seconds"] < LONGEST_SECONDS
    assert result["peak_memory_mb"] < LARGEST_MB


def test_the_security_page_quotes_the_recorded_run(root: Path) -> None:
    record = json.loads((root / "docs" / "results" / "fuzz.json").read_text())
    page = (root / "docs" / "security.md").read_text()
    for name, key in (("DICOM", "dicom"), ("pictures and NIfTI", "pictures_and_nifti")):
        run = record[key]
        assert run["read"] + run["refused"] == run["files"]
        numbers = [f"{run[count]:,}" for count in ("files", "read", "refused")]
        row = [name, *numbers, "0", f"{run['slowest_cpu_seconds']} s", f"{run['peak_memory_mb']} MB"]
        assert f"| {' | '.join(row)} |" in page
