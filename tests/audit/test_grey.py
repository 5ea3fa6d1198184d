# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.audit.grey."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.audit.grey import VARIANTS
from scripts.audit_grey import main


def test_the_finding_does_not_depend_on_scale_and_offset(
    small_phantom: Path, tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(small_phantom), "--models", str(tiny_models), "--images", "3"]
    assert main([*words, "--output", str(tmp_path / "grey.json")]) == 0
    told = json.loads((tmp_path / "grey.json").read_text(encoding="utf-8"))
    assert told["images"] == 3
    assert set(told["variants"]) == set(VARIANTS)
    for name, variant in told["variants"].items():
        if name.startswith(("fractions", "16 bits")):
            assert variant["refused"] == variant["states"] == variant["flips"] == 0
            assert variant["difference_max"] < 0.02
    assert "difference_max" in capsys.readouterr().out
