# SPDX-License-Identifier: Apache-2.0
"""Claims about what the weights aimed at, beside what records reached; of speed see test_scaling_tables.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.errors import InputError
from bundle.reports.aims import tabulate_weight_aims

ROOT = Path(__file__).resolve().parents[2]


def _interval(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.01, "high": estimate + 0.02}


def test_an_aim_is_told_by_its_bound_with_its_interval_and_only_where_a_record_is(tmp_path: Path) -> None:
    assert tabulate_weight_aims(tmp_path) == ""
    lesions = {"dice": _interval(0.77), "pixel_accuracy": _interval(0.9512)}
    (tmp_path / "busi_lite_busbra_seed0.json").write_text(json.dumps({"lesions": lesions}))
    busi = {"auroc": _interval(0.93), "ece": _interval(0.0399)}
    bus_bra = {"patients": {"auroc": _interval(0.9199)}}
    content = {"datasets": {"Dataset_BUSI_with_GT": busi, "BUSBRA": bus_bra}}
    (tmp_path / "joint_class_lite_5folds_seed0.json").write_text(json.dumps(content))
    cells = [line.split(" | ")[1:] for line in tabulate_weight_aims(tmp_path).splitlines()[2:]]
    assert cells == [
        ["≥ 0.92", "0.920 [0.910, 0.940]", "no |"],  # as it is, not as it is rounded
        ["≥ 0.94", "0.930 [0.920, 0.950]", "no |"],
        ["≤ 0.04", "0.040 [0.030, 0.060]", "yes |"],
        ["≥ 0.77", "0.770 [0.760, 0.790]", "yes |"],
        ["≥ 96", "95.1 [94.1, 97.1]", "no |"],
    ]


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "marks.json").write_text("{")
    with pytest.raises(InputError, match=r"marks\.json"):
        tabulate_weight_aims(tmp_path)


def test_each_aim_stands_on_a_record_that_is_there() -> None:
    table = tabulate_weight_aims(ROOT / "docs" / "results")
    assert len(table.splitlines()) == 2 + 14
    assert "–" not in table
