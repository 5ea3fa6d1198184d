# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.cines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundle.errors import InputError
from bundle.files import write_json
from bundle.reports.cines import render_cines

_SCORE = {"estimate": 0.25, "low": 0.2, "high": 0.3}
RECORD: dict[str, Any] = {
    "cines": 7,
    "malignant": 3,
    "settings": {"frames": 12, "rule": "mean"},
    "rules": {
        "mean": {"followed": {**dict.fromkeys(("log_loss", "brier", "ece", "auroc"), _SCORE), "slope": 1.25}},
        "maximum": {"followed": {**dict.fromkeys(("log_loss", "brier", "ece", "auroc"), _SCORE), "slope": None}},
    },
    "outlines": {place: {"followed": 7, "jump": 1, "creep": 1, "other track": 1} for place in ("on", "off", "never")},
    "provenance": {"time": "2026-11-28T12:00:00Z", "commit": "0123456789abcdef", "command": "python x.py"},
}


def _docs(folder: Path, record: dict[str, Any]) -> Path:
    (folder / "cines.md").write_text("before\n<!-- cine rules -->\nold\n<!-- /cine rules -->\nafter\n")
    write_json(folder / "results" / "cine_rules.json", record)
    return folder


def test_the_page_shows_each_rule_and_where_outlines_lie(tmp_path: Path) -> None:
    text = render_cines(_docs(tmp_path, RECORD))["cines.md"]
    number = "0.250 (0.200 – 0.300)"
    assert f"| mean | followed | {' | '.join([number] * 4)} | 1.25 |" in text
    assert f"| maximum | followed | {' | '.join([number] * 4)} | – |" in text
    assert "| on the lesion | 7 (70%) | 1 (10%) | 1 (10%) | 1 (10%) |" in text
    assert "7 synthetic cines with an outline (3 malignant) of 12 frames each; used: mean." in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text


def test_a_record_that_lacks_something_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks outlines; run scripts/cine_rules\.py again"):
        render_cines(_docs(tmp_path, {key: value for key, value in RECORD.items() if key != "outlines"}))
    (tmp_path / "results" / "cine_rules.json").unlink()
    assert render_cines(tmp_path) == {}
