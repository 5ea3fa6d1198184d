# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.evidence and the page that is made of it."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bundle.audit.factorial import FACTORS
from bundle.reports.evidence import FIGURES, summarise_factorial
from bundle.transforms.features import GREY_SCALE
from scripts import record_result, write_docs

ABOUT = {"name": "Set", "synthetic": False, "dataset_sha256": "ab" * 32, "segmenters": ["cd" * 32]}
PROVENANCE = {"command": "python x.py", "time": "2026-01-01T00:00:00Z", "commit": "c" * 40, "device": "CPU"}


def score(value: float) -> dict[str, float]:
    return {"estimate": value, "low": value - 0.02, "high": min(1.0, value + 0.02)}


def fabricate(folder: Path, synthetic: bool = False) -> list[Path]:
    """Write an audit.json, a leaks.json and a factorial.json whose numbers tell them apart."""
    about = {**ABOUT, "synthetic": synthetic}
    audit: dict[str, Any] = {**about, "images": 780, "repeated_groups": 3, "repeated_images": 7, "seconds": 12.5}
    audit |= {
        "label_conflicts": {"g1": {}},
        "contours": [{}, {}],
        "contours_that_disagree": 1,
        "provenance": PROVENANCE,
    }
    audit |= {key: [] for key in ("pairs", "equal_files", "equal_pixels", "skipped")}
    audit |= {"coloured": {"a.png": "x"}, "calipers": {"b.png": 2, "c.png": 1}, "outlier_sizes": {}}
    answers = {"solidity alone": {"auroc": score(0.98), "accuracy": None}}
    answers["13 shape features"] = {"auroc": score(0.97), "accuracy": score(0.93)}
    run = {"auroc": score(0.9), "accuracy": score(0.8), "runs": [{"auroc": 0.9, "accuracy": 0.8}]}
    leaks = {**about, "seeds": 5, "protocol_masks": "predicted", "provenance": PROVENANCE}
    leaks |= {"background": {"pixel_accuracy": score(0.9053), "dice": 0.0, "lesion_share": 0.0947}}
    leaks |= {"majority_accuracy": score(0.675), "silhouettes": {"ground truth": answers, "predicted": answers}}
    leaks |= {
        "protocols": {name: {**run, "test_images_with_a_twin_in_training": 0.3} for name in ("random", "grouped")}
    }
    cells = [
        {
            **dict(zip(FACTORS, factors, strict=True)),
            "test_images_with_a_twin_in_training": 0.3 if factors[1] == "random" else 0.0,
            **run,
            "auroc": score(0.7 + 0.1 * (factors[0] == "ground truth") + 0.05 * (factors[1] == "random")),
        }
        for factors in product(*FACTORS.values())
    ]
    factorial = {**about, "seeds": 3, "settings": {"epochs": 30}, "cells": cells, "provenance": PROVENANCE}
    paths = []
    for name, content in (("audit", audit), ("leaks", leaks), ("factorial", factorial)):
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(content), encoding="utf-8")
    return paths


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    for path in fabricate(tmp_path):
        assert record_result.main([str(path), "--results", str(folder / "results")]) == 0
    return folder


def test_the_page_says_what_was_recorded_and_its_figures_belong_to_it(docs: Path) -> None:
    assert write_docs.main(["--docs", str(docs)]) == 0
    page = (docs / "evidence.md").read_text(encoding="utf-8")
    for text in ("90.5 [88.5, 92.5]", "7 of 780 images", "0.980 [0.960, 1.000]", "| solidity alone |", "0.970"):
        assert text in page
    assert "| ground-truth in place of predicted masks | +0.100 |" in page
    assert "| random in place of grouped split | +0.050 |" in page
    assert page.count("| ground truth | ") == page.count("| predicted | ") == 8
    # No row of a table stands apart from it.
    lines = page.splitlines()
    tables = [i for i, line in enumerate(lines) if line.startswith("|---")]
    assert len(tables) == 4
    assert all(lines[i - 1].count("|") == lines[i].count("|") == lines[i + 1].count("|") for i in tables)
    for name in FIGURES:
        with Image.open(docs / "images" / name) as picture:
            assert picture.width > 800
    assert write_docs.main(["--docs", str(docs), "--check"]) == 0


def test_leaks_that_were_measured_by_older_features_say_so(docs: Path) -> None:
    told = []
    record = docs / "results" / "evidence_leaks.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    for scale in ({}, {"grey_scale": "of another unit"}, {"grey_scale": GREY_SCALE}):
        record.write_text(json.dumps({**content, **scale}), encoding="utf-8")
        assert write_docs.main(["--docs", str(docs)]) == 0
        told.append((docs / "evidence.md").read_text(encoding="utf-8").count("lder features"))
    assert told == [2, 2, 0]


def test_a_changed_number_makes_page_and_figures_stale(docs: Path) -> None:
    assert write_docs.main(["--docs", str(docs)]) == 0
    record = docs / "results" / "evidence_factorial.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    content["cells"][0]["accuracy"]["estimate"] = 0.79
    record.write_text(json.dumps(content), encoding="utf-8")
    assert write_docs.main(["--docs", str(docs), "--check"]) == 1
    (docs / "images" / FIGURES[0]).unlink()
    assert write_docs.main(["--docs", str(docs)]) == 0
    assert write_docs.main(["--docs", str(docs), "--check"]) == 0


def test_synthetic_and_foreign_evidence_is_refused(
    docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    audit, leaks, _ = fabricate(other, synthetic=True)
    assert record_result.main([str(leaks), "--results", str(docs / "results")]) == 2
    assert "synthetic" in capsys.readouterr().err
    content = json.loads(audit.read_text(encoding="utf-8"))
    audit.write_text(json.dumps({**content, "synthetic": False, "dataset_sha256": "00"}), encoding="utf-8")
    assert record_result.main([str(audit), "--results", str(docs / "results")]) == 0
    assert write_docs.main(["--docs", str(docs)]) == 2
    assert "another dataset" in capsys.readouterr().err


def test_without_records_the_page_says_so(tmp_path: Path) -> None:
    assert write_docs.main(["--docs", str(tmp_path)]) == 0
    assert "Not recorded yet" in (tmp_path / "evidence.md").read_text(encoding="utf-8")
    assert summarise_factorial(None) == {"effects": [], "honest": {}}
