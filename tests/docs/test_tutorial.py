# SPDX-License-Identifier: Apache-2.0
"""The blocks of docs/tutorial.md are pasted and run in their order, and give what the page says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pydicom
from pasted import blocks_in, run_block


def test_the_tutorial_leads_from_dicom_files_to_a_compared_model(root: Path, tmp_path: Path) -> None:
    blocks = blocks_in((root / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    printed = [run_block(language, code, tmp_path, root) for language, code, wanted in blocks if wanted]
    assert len(printed) == 8

    scans = sorted((tmp_path / "study" / "scans").glob("*.dcm"))
    assert len(scans) == 40
    assert {pydicom.dcmread(scan).Modality for scan in scans} == {"US"}

    findings = json.loads((tmp_path / "findings" / "findings.json").read_text())["findings"]
    assert len(findings) == 10
    assert all(0 < finding["probability"] < 1 and finding["box"] for finding in findings)
    assert "<html" in (tmp_path / "findings" / "report.html").read_text()
    for kind in ("seg", "sr"):
        assert len(list((tmp_path / "findings" / kind).iterdir())) == len(findings)

    tested = {}
    for model in ("shipped", "mine"):
        metrics = json.loads((tmp_path / model / "evaluation" / "metrics.json").read_text())
        with open(tmp_path / model / "evaluation" / "per_image.csv", newline="") as file:
            tested[model] = [row["image"] for row in csv.DictReader(file)]
        assert metrics["lesions"]["cases"] == len(tested[model]) == 12
        assert metrics["lesions"]["dice"]["estimate"] > 0.4  # a network that learned nothing here is far below
    assert tested["shipped"] == tested["mine"]
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["images"] == 12
    assert {"estimate", "low", "high", "p_value"} <= comparison["scores"]["dice"]["difference"].keys()

    again = json.loads((tmp_path / "findings_mine" / "findings.json").read_text())["findings"]
    assert all(any("masks of another segmenter" in warning for warning in finding["warnings"]) for finding in again)
