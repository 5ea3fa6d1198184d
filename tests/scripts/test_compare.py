# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/compare.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scripts import compare


def _write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def _classified(path: Path, skill: float, seed: int, images: range) -> Path:
    generator = np.random.default_rng(seed)
    rows = []
    for image in images:
        malignant = image % 3 == 0
        logit = skill * (1 if malignant else -1) + generator.normal()
        label = "malignant" if malignant else "benign"
        rows.append(f"{label}/{image}.png,{label},g{image // 2 * 2 + malignant},{1 / (1 + np.exp(-logit))}")
    return _write(path, "image,class,group,probability", rows)


def test_a_better_classifier_is_named_so_on_the_shared_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = _classified(tmp_path / "weak.csv", 0.3, 1, range(200))
    strong = _classified(tmp_path / "strong.csv", 2.0, 2, range(20, 220))
    assert compare.main([str(weak), str(strong), "--output", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (result["images"], result["only_first"], result["only_second"]) == (180, 20, 20)
    for name in ("auroc", "auroc (bootstrap)", "accuracy at 0.5"):
        difference = result["scores"][name]["difference"]
        assert 0 < difference["low"] < difference["estimate"] < difference["high"]
        assert difference["p_value"] < 0.05
    assert result["scores"]["brier"]["difference"]["high"] < 0
    assert "difference" in capsys.readouterr().out


def test_segmenters_are_compared_where_both_have_a_score(tmp_path: Path) -> None:
    header = "image,class,group,dice,iou,hd95,pixel_accuracy"
    first = _write(tmp_path / "a.csv", header, [f"{i}.png,benign,g{i},0.5,0.4,,0.9" for i in range(9)])
    second = _write(tmp_path / "b.csv", header, [f"{i}.png,benign,g{i},{0.6 + i / 100},0.4,3,0.9" for i in range(9)])
    assert compare.main([str(first), str(second), "--output", str(tmp_path / "out.json")]) == 0
    scores = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["scores"]
    assert scores["dice"]["difference"]["estimate"] == pytest.approx(0.14)
    assert "hd95" not in scores
    assert scores["iou"]["difference"] == {"estimate": 0.0, "low": None, "high": None, "p_value": None}


@pytest.mark.parametrize(
    ("start", "delimiter", "end"),
    [("\ufeff", ",", "\r\n"), ("", ";", "\r\n"), ("", "\t", "\n"), ("sep=;\n", ";", "\n")],
)
def test_a_table_that_a_spreadsheet_saved_again_is_the_same(
    tmp_path: Path, start: str, delimiter: str, end: str
) -> None:
    first = _classified(tmp_path / "first.csv", 1, 0, range(30))
    text = first.read_text().replace(",", delimiter).replace("\n", end) + delimiter * 3 + end
    (tmp_path / "again.csv").write_bytes((start + text).encode())
    assert compare.main([str(first), str(tmp_path / "again.csv"), "--output", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (result["images"], result["scores"]["auroc"]["difference"]["estimate"]) == (30, 0.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,class,group,probability\nother.png,benign,g1,0.5\n", "shares no image"),
        ("image,class,group,dice\nbenign/1.png,benign,g0,0.5\n", "another kind"),
        ("image,class,group,probability\nbenign/1.png,benign,g7,0.5\n", "another class or group"),
        ("a,b\n1,2\n", "no table of an evaluation"),
        ("image,class,group,probability\n", "no table of an evaluation"),
        ('image,class,group,probability\nbenign/1.png,benign,g0,"0,5"\n', "'0,5' of 'benign/1.png' is no number"),
        ("image,class,group,probability\nbenign/1.png,benign,g0,\n", "is no number"),
        ("image,class,group,probability\nbenign/1.png,benign,g0,nan\n", "is no number"),
        ("image,class,group,probability\nbenign/1.png,benign,g0\n", "line 2: has more or fewer fields"),
        ("image,class,group,probability\nbenign/1.png,benign,g0,0.5\nbenign/1.png,benign,g0,0.9\n", "a row already"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    first = _classified(tmp_path / "first.csv", 1, 0, range(6))
    second = tmp_path / "second.csv"
    second.write_text(text, encoding="utf-8")
    assert compare.main([str(first), str(second)]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
