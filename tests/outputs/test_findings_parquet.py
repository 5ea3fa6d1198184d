# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.parquet."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundle.outputs.parquet
from bundle.errors import InputError
from bundle.finding import NOT_A_DEVICE
from bundle.outputs.case import check_installed
from bundle.outputs.findings import flat_row, write_findings_csv
from bundle.outputs.parquet import write_findings_parquet
from bundle.transforms.shape import measure_lesion

parquet = pytest.importorskip("pyarrow.parquet", reason="needs requirements-ray.txt")
SKIPPED = [{"path": "sub/broken.png", "reason": "truncated PNG", "mend": "replace it"}]


def _finding(name: str, spacing: tuple[float, float] | None = None) -> dict[str, Any]:
    mask = np.zeros((20, 30), bool)
    mask[4:9, 5:25] = True
    return {
        **{"image": name, "frame": None, "probability": 0.25, "probability_raw": 0.5, "lesion_state": "found"},
        **{"decisions": {"sensitivity 0.9": {"threshold": 0.1, "decision": "malignant"}}, "box": [4, 5, 9, 25]},
        **{"lesion": measure_lesion(mask, spacing), "warnings": ["a", "b"], "models": {"segmenter": "a" * 64}},
        **{"lesion_probability": None, "reason": None, "schema_version": 2, "notice": NOT_A_DEVICE},
    }


NOTHING: dict[str, Any] = {
    **{**_finding("none.png"), "lesion_state": "none found", "reason": "nothing", "box": None, "lesion": None},
    **{"probability": None, "probability_raw": None},
    "decisions": {"sensitivity 0.9": {"threshold": 0.1, "decision": None}},
}
FINDINGS = [_finding("a.png"), _finding("b.png", (0.1, 0.2)), {**_finding("=c.dcm.frame3.png"), "frame": 3}, NOTHING]


def test_rows_are_those_of_the_csv_and_then_the_skipped_files(tmp_path: Path) -> None:
    write_findings_parquet(FINDINGS, SKIPPED, tmp_path / "f.parquet")
    write_findings_csv(FINDINGS, tmp_path / "f.csv")
    *rows, last = parquet.read_table(tmp_path / "f.parquet").to_pylist()
    assert rows == [{**flat_row(finding), "skipped": None} for finding in FINDINGS]
    with open(tmp_path / "f.csv", newline="") as file:
        assert [*next(csv.reader(file)), "skipped"] == list(rows[0])
    assert {name: value for name, value in last.items() if value is not None} == {
        "image": "sub/broken.png",
        "skipped": "truncated PNG; replace it",
    }


def test_parts_are_one_table_whose_types_do_not_depend_on_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle.outputs.parquet, "ROWS", 1)
    write_findings_parquet(FINDINGS, SKIPPED, tmp_path / "f.parquet")
    parts = sorted((tmp_path / "f.parquet").iterdir())
    assert [part.name for part in parts] == [f"part-{number:05d}.parquet" for number in range(5)]
    assert len({str(parquet.read_schema(part)) for part in parts}) == 1
    assert parquet.read_table(tmp_path / "f.parquet").num_rows == 5


def test_a_second_run_replaces_the_folder_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.outputs.parquet, "ROWS", 1)
    write_findings_parquet(FINDINGS, [], tmp_path / "f.parquet")

    def interrupted() -> Any:
        yield FINDINGS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_findings_parquet(interrupted(), [], tmp_path / "f.parquet")
    assert parquet.read_table(tmp_path / "f.parquet").num_rows == 4
    write_findings_parquet(FINDINGS[:1], [], tmp_path / "f.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]
    assert parquet.read_table(tmp_path / "f.parquet").num_rows == 1


def test_no_findings_and_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    write_findings_parquet([], [{**SKIPPED[0], "path": os.fsdecode(b"\xff.png")}], tmp_path / "f.parquet")
    (row,) = parquet.read_table(tmp_path / "f.parquet").to_pylist()
    assert row == {"image": "\\udcff.png", "skipped": "truncated PNG; replace it"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_findings_parquet(FINDINGS, [], tmp_path / "file" / "f.parquet")


def test_a_missing_pyarrow_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(Exception, match=r"pip install -r requirements-ray\.txt"):
        check_installed(["parquet"])
