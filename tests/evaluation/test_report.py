# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.evaluation.report."""

from __future__ import annotations

import base64
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.errors import InputError
from bundle.evaluation.report import WORST, write_report
from bundle.evaluation.segmentation import measure_case, summarise
from bundle.outputs.png import write_mask

PROVENANCE = {
    "command": "python x.py --a <b>",
    "versions": {"torch": "2.13.0", "monai": "1.6.1"},
    "seed": 0,
    "commit": None,
}


def _rows(lesions: int, normals: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(lesions + normals):
        lesion = np.zeros((20, 30), bool)
        lesion[5:15, 5:15] = number < lesions
        probability = np.zeros((20, 30))
        probability[5:15, 5 : 5 + number % 11] = 1
        name = "normal" if number >= lesions else ("benign", "malignant")[number % 2]
        scores = asdict(measure_case(probability, lesion))
        rows.append({"image": f"{name} ({number}).png", "class": name, "group": str(number), **scores})
    return rows


def _write(folder: Path, rows: list[dict[str, Any]], synthetic: bool = False) -> str:
    write_mask(np.eye(8, dtype=bool), folder / "figure.png")
    metrics = {**summarise(rows, draws=100), "threshold": 0.45}
    path = write_report(folder / "out", metrics, rows, [("Curves", folder / "figure.png")], PROVENANCE, synthetic)
    assert path == folder / "out" / "report.html"
    return path.read_text(encoding="utf-8")


def test_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = _write(tmp_path, _rows(14, 3))
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(text) for text in embedded] == [(tmp_path / "figure.png").read_bytes()]


def test_page_shows_scores_beside_the_all_background_score(tmp_path: Path) -> None:
    rows = _rows(14, 3)
    lesions = summarise(rows, draws=100)["lesions"]
    page = _write(tmp_path, rows)
    dice = lesions["dice"]
    assert f"<b>{dice['estimate']:.3f}</b>" in page
    assert f"({dice['low']:.3f} – {dice['high']:.3f})" in page
    accuracy, background = (
        f"<b>{lesions[key]['estimate'] * 100:.1f} %</b>" for key in ("pixel_accuracy", "background_accuracy")
    )
    assert re.search(f"Pixel accuracy</td>.*{accuracy}.*no lesion at all</td>.*{background}", page, re.DOTALL)
    assert "reaches 0.45" in page


def test_every_page_says_that_it_is_no_medical_device(tmp_path: Path) -> None:
    assert "Research software. Not a medical device." in _write(tmp_path, _rows(2, 0))
    assert "Research software. Not a medical device." in _write(tmp_path, [])


def test_synthetic_banner_stands_only_on_synthetic_reports(tmp_path: Path) -> None:
    assert "SYNTHETIC data" in _write(tmp_path, _rows(2, 1), synthetic=True)
    assert "SYNTHETIC" not in _write(tmp_path, _rows(2, 1))


def test_worst_cases_come_first_and_are_few(tmp_path: Path) -> None:
    rows = _rows(33, 2)
    page = _write(tmp_path, rows)
    shown = re.findall(r'<td class="name">([^<]+)</td>', page)
    worst = sorted((row for row in rows if row["dice"] is not None), key=lambda row: (row["dice"], row["image"]))
    assert shown == [row["image"] for row in worst[:WORST]]


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    rows = _rows(2, 0)
    rows[0]["image"] = "<img src=x onerror=alert(1)>.png"
    rows[0]["class"] = "<b>benign"
    page = _write(tmp_path, rows)
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "<b>benign" not in page
    assert "--a &lt;b&gt;" in page


def test_provenance_shows_every_entry(tmp_path: Path) -> None:
    page = _write(tmp_path, _rows(2, 0))
    for text in ("command", "torch: 2.13.0", "monai: 1.6.1", "seed", "not recorded"):
        assert text in page


def test_missing_or_broken_figure_is_a_users_error_and_leaves_no_report(tmp_path: Path) -> None:
    metrics = summarise([], draws=10)
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in (("gone.png", "cannot be read"), ("text.png", "not a PNG")):
        with pytest.raises(InputError, match=reason):
            write_report(tmp_path / "out", metrics, [], [("x", tmp_path / name)], {}, False)
    assert not (tmp_path / "out").exists()
