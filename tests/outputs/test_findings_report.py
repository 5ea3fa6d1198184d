# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.outputs.findings_page."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.errors import UserError
from bundle.files import write_atomically
from bundle.outputs.case import THUMBNAIL_SIDE
from bundle.outputs.findings_page import write_findings_report
from bundle.outputs.png import encode_thumbnail
from bundle.outputs.records import HEAT, OUTLINE, Findings, Records, Written
from bundle.prediction.cines import CineSummary
from tests.prediction.frames import finding_of

EVIL = "<script>alert(1)</script>\"'.png".replace("/", "")


def _finding(name: str, probability: float, **more: Any) -> dict[str, Any]:
    calls = {"probability 0.5": 0.5, "sensitivity 0.95": 0.3}
    decisions = {
        point: {"threshold": threshold, "decision": "malignant" if probability >= threshold else "benign"}
        for point, threshold in calls.items()
    }
    lesion = {"area_px": 900.0, "long_axis_px": 40.0, "short_axis_px": 30.0}
    return {
        **{"image": name, "probability": probability, "decisions": decisions, "lesion": lesion, "spacing_mm": None},
        **{
            "warnings": [],
            "models": {"segmenter": "a" * 64, "classifier": "b" * 64},
            "lesion_state": "found",
            "lesion_probability": None,
            **more,
        },
    }


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    records = Records(tmp_path)
    inputs = [
        _finding("one.png", 0.9, warnings=["<b>bold</b> warning"]),
        _finding(EVIL, 0.4),
        _finding(
            "mm.dcm.png",
            0.1,
            spacing_mm=[0.1, 0.1],
            lesion={"area_mm2": 9.0, "long_axis_mm": 4.04, "short_axis_mm": 3.0, "long_axis_px": 40.0},
        ),
    ]
    pixels = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    for finding in inputs:
        records.write(finding["image"], "key", finding, (), Written((), ()), "run")
        records.path(finding["image"], OUTLINE).write_bytes(encode_thumbnail(pixels, THUMBNAIL_SIDE))
    records.path("one.png", HEAT).write_bytes(encode_thumbnail(pixels, THUMBNAIL_SIDE))
    return Findings(records, [finding["image"] for finding in inputs])


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _html(findings: Findings, tmp_path: Path, **more: Any) -> str:
    options: dict[str, Any] = {"skipped": [], "cines": [], **more}
    (path,) = write_findings_report(findings, options["skipped"], options["cines"], tmp_path, ["html", "json"])
    return path.read_text()


def test_a_call_is_shown_where_there_is_one(findings: Findings, tmp_path: Path) -> None:
    assert "Call" not in _html(findings, tmp_path)
    findings.records.write("a.png", "key", _finding("a.png", 0.4, call="unsure"), (), Written((), ()), "run")
    page = _html(Findings(findings.records, ["a.png"]), tmp_path)
    assert '<tr><th>Call</th><td class="unsure">unsure</td></tr>' in page


def test_each_image_has_its_picture_numbers_and_decisions(findings: Findings, tmp_path: Path) -> None:
    page = _Page(_html(findings, tmp_path))
    assert [image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img")] == [True] * 4
    assert len([card for card in page.all("article") if card.get("class") == "card"]) == 3
    words = " ".join(page.text.split())
    assert "P(malignant)0.900" in words.replace(" ", "")
    assert "4.0 × 3.0 mm" in words
    assert "40 × 30 px" in words
    assert "a" * 64 in words
    assert "b" * 64 in words
    assert "Research software, not a medical device." in words
    assert "Limits of use" in words
    rows = [row for row in page.all("tr") if "data-card" in row]
    assert rows[0]["data-decisions"] == "malignant at probability 0.5|malignant at sensitivity 0.95"
    assert rows[1]["data-decisions"] == "benign at probability 0.5|malignant at sensitivity 0.95"


def test_names_and_warnings_are_text_not_markup(findings: Findings, tmp_path: Path) -> None:
    skipped = [{"path": EVIL, "reason": "<img src=x>", "mend": "replace it"}]
    page = _Page(_html(findings, tmp_path, skipped=skipped))
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert [image["src"][:5] for image in page.all("img")] == ["data:"] * 4
    assert EVIL in page.text
    assert "<b>bold</b> warning" in page.text


def test_the_page_runs_its_own_script_alone_and_fetches_nothing(findings: Findings, tmp_path: Path) -> None:
    text = _html(findings, tmp_path)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in _Page(text).all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "@import" not in text


def test_pictures_are_small_and_lazy(findings: Findings, tmp_path: Path) -> None:
    images = _Page(_html(findings, tmp_path)).all("img")
    assert all(image["loading"] == "lazy" for image in images)
    assert all(len(image["src"] or "") < 200_000 for image in images)  # noise: the worst that JPEG can be given


@pytest.mark.parametrize("state", ["none found", "unusable"])
def test_an_image_with_nothing_outlined_has_a_state_and_a_reason_in_place_of_numbers(
    findings: Findings, tmp_path: Path, state: str
) -> None:
    blank = _finding("blank.png", 0.9, lesion_state=state, lesion=None, warnings=["nothing but black"])
    blank |= {"probability": None, "lesion_probability": 0.25}
    for point in blank["decisions"].values():
        point["decision"] = None
    findings.records.write("blank.png", "key", blank, (), Written((), ()), "run")
    page = _Page(_html(Findings(findings.records, ["blank.png"]), tmp_path))
    words = " ".join(page.text.split())
    assert "P(lesion)0.250" in words
    assert f"Lesion{state}" in words
    assert "nothing but black" in words
    assert "P(malignant)–" not in words
    (row,) = [tag for tag in page.all("tr") if "data-card" in tag]
    assert row["data-decisions"] == ""


def _cine(file: str, frames: int, *found: tuple[Any, ...]) -> dict[str, Any]:
    summary = CineSummary(file, frames)
    for frame, more in enumerate(found):
        summary.add(f"{file}.frame{frame}.png", finding_of(frame, *more))
    return summary.as_dict()


def test_a_cine_has_a_curve_and_a_contact_sheet_of_the_frames_looked_at(findings: Findings, tmp_path: Path) -> None:
    names = [f"c.dcm.frame{frame}.png" for frame in range(30)]
    record = findings.records.read("one.png")
    picture = findings.records.path("one.png", OUTLINE).read_bytes()
    for name in names:
        write_atomically(findings.records.path(name, OUTLINE), picture)
        findings.records.write(name, "key", {**record["finding"], "image": name}, (), Written((), ()), "run")
    cine = _cine("c.dcm", 30, *[("found", 0.4)] * 3, ("found", 0.9, 200.0), *[("found", 0.5)] * 25, ("unusable", None))
    page = _Page(_html(Findings(findings.records, names), tmp_path, cines=[cine]))
    frames = [tag for tag in page.all("img") if str(tag.get("alt", "")).startswith("Frame ")]
    assert [tag["alt"] for tag in frames] == [f"Frame {frame}" for frame in range(0, 30, 2)]
    assert all(str(tag["src"]).startswith("data:image/jpeg;base64,") for tag in frames)
    (curve,) = [tag for tag in page.all("img") if tag.get("class") == "curve"]
    assert str(curve["src"]).startswith("data:image/png;base64,")
    assert "#case-3" in [tag.get("href") for tag in page.all("a")]
    cine = _cine("c.dcm", 30, *[("found", 0.4)] * 2, ("found", 0.9, 200.0), *[("found", 0.5)] * 27)
    assert "2: 0.90, jumps" in _Page(_html(Findings(findings.records, names), tmp_path, cines=[cine])).text


def test_cines_and_skipped_files_are_listed(findings: Findings, tmp_path: Path) -> None:
    cines = [
        _cine("c.dcm", 65, *[("unusable", None)] * 2, ("doubtful", 0.91), ("doubtful", 0.3), ("doubtful", 0.99, 200.0)),
        _cine("d.dcm", 8, *[("none found", None)] * 8),
    ]
    skipped = [{"path": "bad.png", "reason": "empty", "mend": "replace it"}]
    words = " ".join(_Page(_html(findings, tmp_path, cines=cines, skipped=skipped)).text.split())
    assert "5 of 65, 2 unusable" in words
    assert "0.605" in words
    assert "2 outlines, 1 jump" in words
    assert "frame 2 (doubtful)" in words
    assert "none shows a lesion" in words
    assert "bad.png: empty; replace it" in words
    assert "1 could not be used" in words


def test_a_run_without_a_finding_still_makes_a_page(tmp_path: Path) -> None:
    skipped = [{"path": "bad.png", "reason": "empty", "mend": "replace it"}]
    assert "bad.png: empty" in _html(Findings(Records(tmp_path), []), tmp_path, skipped=skipped)


def test_a_synthetic_model_is_named_so_on_top(findings: Findings, tmp_path: Path) -> None:
    assert "SYNTHETIC data" not in _html(findings, tmp_path)
    record = findings.records.read("one.png")
    record["finding"]["warnings"] = ["SYNTHETIC: the weights were trained on a phantom and say nothing about patients"]
    findings.records.write("one.png", "key", record["finding"], (), Written((), ()), "run")
    assert "SYNTHETIC data" in _html(findings, tmp_path)


def test_the_pdf_shows_the_same(findings: Findings, tmp_path: Path) -> None:
    pytest.importorskip("weasyprint", reason="weasyprint, of requirements-pdf.txt, is not installed")
    (path,) = write_findings_report(findings, [], [], tmp_path, ["pdf"])
    assert path.read_bytes().startswith(b"%PDF-")
    assert len(path.read_bytes()) > 50_000
    assert not (tmp_path / "report.html").exists()


def test_a_missing_weasyprint_is_one_line(findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(UserError, match="pip install -r requirements-pdf") as error:
        write_findings_report(findings, [], [], tmp_path, ["pdf"])
    assert "\n" not in str(error.value)
