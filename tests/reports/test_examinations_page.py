# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.examinations: the page shows what was fitted, on whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundle.errors import InputError
from bundle.files import write_json
from bundle.reports.examinations import render_examinations

_SCORES = {key: {"estimate": 0.25, "low": 0.2, "high": 0.3} for key in ("log_loss", "brier", "ece", "auroc")}
RECORD: dict[str, Any] = {
    "examination": {
        **{"rule": "mean", "slope": 1.5, "intercept": -0.25},
        "fitted_on": {"patients": 90, "malignant": 30, "images": 150, "most_images": 4, "without_an_outline": 2},
    },
    "rules": {"mean": {"as joined": _SCORES, "calibrated": _SCORES}},
    "chosen": _SCORES,
    "several": {"patients": 60, "chosen": _SCORES},
    "provenance": {"time": "2026-11-28T12:00:00Z", "commit": "0123456789abcdef", "command": "python x.py"},
}


def _docs(folder: Path, record: dict[str, Any]) -> Path:
    (folder / "pacs.md").write_text("before\n<!-- examination -->\nold\n<!-- /examination -->\nafter\n")
    write_json(folder / "results" / "examination_rule.json", record)
    return folder


def test_the_page_shows_the_line_and_the_patients_it_was_fitted_on(tmp_path: Path) -> None:
    text = render_examinations(_docs(tmp_path, RECORD))["pacs.md"]
    assert "90 patients (30 malignant) with 150 outlined images, 4 of one at most; 2 without" in text
    assert "Used: mean, slope 1.50, intercept -0.25." in text
    assert text.count("0.250 (0.200 – 0.300)") == 16
    assert "the same, 60 patients with several images" in text
    assert "old" not in text


def test_a_record_that_lacks_something_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks chosen; run scripts/examination_rule\.py again"):
        render_examinations(_docs(tmp_path, {key: value for key, value in RECORD.items() if key != "chosen"}))
    (tmp_path / "results" / "examination_rule.json").unlink()
    assert render_examinations(tmp_path) == {}
