# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.html."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from bundle.evaluation.classification import summarise_classification
from bundle.evaluation.segmentation import measure_case, summarise
from bundle.outputs.png import write_mask
from bundle.reports.html import (
    WORST,
    format_decimal,
    format_percent,
    write_classification_report,
    write_report,
)

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


def _write(folder: Path, rows: list[dict[str, Any]], synthetic: bool = False, **origin: Any) -> str:
    write_mask(np.eye(8, dtype=bool), folder / "figure.png")
    metrics = {**summarise(rows, draws=100), "threshold": 0.45}
    origin = {**PROVENANCE, **origin}
    path = write_report(folder / "out", metrics, rows, [("Curves", folder / "figure.png")], origin, synthetic)
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


def test_a_split_that_near_duplicates_cross_is_told(tmp_path: Path) -> None:
    assert "near duplicates of test images were in training" in _write(tmp_path, _rows(2, 1), split="65:5:30 by image")
    assert "near duplicates of test" not in _write(tmp_path, _rows(2, 1), split="65:5:30")


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


def _classified(benign: int, malignant: int) -> list[dict[str, Any]]:
    """Rows whose probabilities are spread over both sides of one half."""
    return [
        {
            "image": f"case {number:02d}.png",
            "group": str(number),
            "label": int(number < malignant),
            "probability": (number * 37 % 100 + 0.5) / 100,
        }
        for number in range(benign + malignant)
    ]


def _wrong(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], np.ndarray]]:
    return [
        (row, np.full((9, 7), number, np.uint8))
        for number, row in enumerate(rows)
        if (row["probability"] >= 0.5) != row["label"]
    ]


def _write_classified(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> str:
    write_mask(np.eye(8, dtype=bool), folder / "figure.png")
    summary = summarise_classification(rows, {"default": 0.5, "sensitivity 0.90 on validation": 0.3}, draws=50)
    metrics = {
        **{"synthetic": False, "masks": "predicted", "part": "test", "provenance": PROVENANCE},
        **summary,
        **changes,
    }
    path = write_classification_report(folder / "out", metrics, _wrong(rows), [("ROC", folder / "figure.png")])
    assert path == folder / "out" / "report.html"
    return path.read_text(encoding="utf-8")


def test_classification_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = _write_classified(tmp_path, _classified(20, 10))
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


@pytest.mark.parametrize(
    ("counts", "named", "sensitivity", "specificity"),
    [((20, 10), "benign", "0.0 %", "100.0 %"), ((10, 20), "malignant", "100.0 %", "0.0 %")],
)
def test_headline_stands_beside_always_naming_the_more_frequent_class(
    tmp_path: Path, counts: tuple[int, int], named: str, sensitivity: str, specificity: str
) -> None:
    rows = _classified(*counts)
    page = _write_classified(tmp_path, rows)
    summary = summarise_classification(rows, draws=50)
    default = summary["operating_points"]["default"]
    assert f"<th>Always “{named}”</th>" in page
    cells = {row[0]: row[1:] for row in re.findall(r"<tr><td>([^<]+)</td><td>(.+)</td><td>(.+)</td></tr>", page)}
    for label, score, baseline in (
        ("AUROC", format_decimal(summary["auroc"]), "0.500"),
        ("Sensitivity at probability 0.5", format_percent(default["sensitivity"]), sensitivity),
        ("Specificity at probability 0.5", format_percent(default["specificity"]), specificity),
        (
            "Accuracy at probability 0.5",
            format_percent(default["accuracy"]),
            format_percent(summary["majority_accuracy"]),
        ),
    ):
        assert [re.sub("<[^>]+>", "", cell) for cell in cells[label]] == [score, baseline]


def test_operating_points_stand_beside_each_other_with_their_counts(tmp_path: Path) -> None:
    rows = _classified(20, 10)
    page = _write_classified(tmp_path, rows)
    missed = [sum(row["label"] == 1 and row["probability"] < threshold for row in rows) for threshold in (0.5, 0.3)]
    assert "<th>probability 0.5</th><th>sensitivity 0.90 on validation</th>" in page
    assert f"<tr><td>Malignant, called benign</td><td>{missed[0]}</td><td>{missed[1]}</td></tr>" in page


def test_most_certain_wrong_cases_come_first_in_two_lists_with_their_crop(tmp_path: Path) -> None:
    rows = _classified(40, 40)
    page = _write_classified(tmp_path, rows)
    shown = re.findall(r'base64,([^"]+)" alt="What the classifier saw of ([^"]+)"', page)
    expected = []
    for label in (1, 0):
        wrong = [row for row, _ in _wrong(rows) if row["label"] == label]
        expected += sorted(wrong, key=lambda row: -abs(row["probability"] - 0.5))[:WORST]
    assert [name for _, name in shown] == [row["image"] for row in expected]
    assert len(shown) == 2 * WORST
    for text, name in shown:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        assert picture.shape == (9, 7)
        assert (picture == int(name[5:7])).all()


def test_without_wrong_cases_the_lists_say_so(tmp_path: Path) -> None:
    rows = [{**row, "probability": row["label"] * 0.9} for row in _classified(3, 3)]
    assert _write_classified(tmp_path, rows).count("<p>None.</p>") == 2


@pytest.mark.parametrize(
    ("changes", "banner"),
    [
        ({"synthetic": True}, "SYNTHETIC data"),
        ({"masks": "oracle"}, "ORACLE masks"),
        ({"part": "validation"}, "no test"),
    ],
)
def test_numbers_that_are_no_result_carry_a_banner(tmp_path: Path, changes: dict[str, Any], banner: str) -> None:
    page, plain = (_write_classified(tmp_path, _classified(4, 4), **given) for given in (changes, {}))
    assert banner in page
    assert banner not in plain
    assert "Research software. Not a medical device." in plain


def test_a_part_of_one_class_has_a_page(tmp_path: Path) -> None:
    assert "<td>AUROC</td><td><b>–</b>" in _write_classified(tmp_path, _classified(4, 0))


def test_names_of_classified_images_are_escaped(tmp_path: Path) -> None:
    rows = [{**row, "image": "<img src=x onerror=alert(1)>.png"} for row in _classified(6, 6)]
    page = _write_classified(tmp_path, rows)
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
