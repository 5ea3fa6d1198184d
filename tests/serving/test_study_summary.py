# SPDX-License-Identifier: Apache-2.0
"""Claims about the one answer per examination, the status page, and what is deleted when."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_lab import Archive, scan, send, statuses, wait_for
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bundle.serving.node import Node
from bundle.serving.retention import delete_old
from bundle.serving.status_page import StatusPage
from bundle.serving.study import summarise_study
from tests.readers.fabricate import ultrasound

Start = Callable[..., Node]
CANARY = "Kanarienvogel"
DAY = 86400.0


def _finding(probability: float | None, frame: int | None = None, **more: Any) -> dict[str, Any]:
    lesion = None if probability is None else {"area_px": 400.0, "centroid_px": [30.0, 40.0]}
    common = {"decisions": {}, "call": None, "lesion": lesion, "spacing_mm": None, "warnings": (), "models": {}}
    state = "none found" if probability is None else "found"
    return {"frame": frame, "probability": probability, "lesion_state": state, **common, **more}


def test_a_cine_counts_with_its_own_probability_and_not_with_its_highest_frame() -> None:
    cine = [_finding(0.9, 0), *(_finding(0.1, frame) for frame in range(1, 5))]
    images = [{"uid": "1", "side": "", "findings": [_finding(0.5)]}, {"uid": "2", "side": "", "findings": cine}]
    best = summarise_study(images)["sides"][""]["most_suspicious"]
    assert (best["uid"], best["cine"]) == ("1", None)


def test_each_side_has_its_most_suspicious_image_and_its_mean() -> None:
    images = [
        {"uid": "1", "side": "L", "findings": [_finding(0.2)]},
        {"uid": "2", "side": "L", "findings": [_finding(0.1, 0), _finding(0.8, 5), _finding(None, 6)]},
        {"uid": "3", "side": "R", "findings": [_finding(None)]},
    ]
    sides = summarise_study(images)["sides"]
    assert list(sides) == ["R", "L"]
    assert sides["L"]["most_suspicious"]["uid"] == "2"
    assert sides["L"]["most_suspicious"]["frame"] == 5
    assert sides["L"]["most_suspicious"]["probability"] == 0.8
    assert sides["L"]["most_suspicious"]["cine"] == pytest.approx(0.45)
    assert sides["L"]["probability"] == {"max": pytest.approx(0.45), "mean": pytest.approx(0.325)}
    assert (sides["R"]["images"], sides["R"]["with_lesion"]) == (1, 0)
    assert sides["R"]["most_suspicious"] is None
    assert sides["R"]["probability"] == {"max": None, "mean": None}


CARD = {
    "sha256": "c" * 64,
    "examination": {
        **{"rule": "mean of logits", "slope": 2.0, "intercept": -0.5},
        "operating_points": [{"sensitivity_wish": 0.9, "threshold": 0.3}],
        "fitted_on": {"patients": 100, "most_images": 2},
    },
}


def _images(*probabilities: float | None, **more: Any) -> list[dict[str, Any]]:
    told = {"models": {"classifier": "c" * 64}, **more}
    return [{"uid": str(n), "side": "L", "findings": [_finding(p, **told)]} for n, p in enumerate(probabilities)]


def test_an_examination_has_the_probability_that_the_card_calibrates() -> None:
    side = summarise_study(_images(0.5, 0.5), CARD)["sides"]["L"]
    assert side["probability"]["examination"] == pytest.approx(1 / (1 + math.exp(0.5)))
    assert side["decisions"] == {"sensitivity 0.90": {"threshold": 0.3, "decision": "malignant"}}
    assert not side["beyond_fit"]
    assert summarise_study(_images(0.5, 0.5, 0.5), CARD)["sides"]["L"]["beyond_fit"]
    side = summarise_study(_images(None), CARD)["sides"]["L"]
    assert side["probability"]["examination"] is None
    assert side["decisions"]["sensitivity 0.90"]["decision"] is None
    assert "calibrated on 100 patients" in summarise_study(_images(0.5), CARD)["note"]


@pytest.mark.parametrize(
    "more", [{"models": {"classifier": "d" * 64}}, {"site": "A hospital"}], ids=["weights", "site"]
)
def test_what_was_calibrated_for_others_is_not_said(more: dict[str, Any]) -> None:
    summary = summarise_study(_images(0.5, 0.5, **more), CARD)
    assert "examination" not in summary["sides"]["L"]["probability"]
    assert "neither it nor the mean is calibrated" in summary["note"]


def _summary(node: Node, study: str) -> dict[str, Any] | None:
    path = node.queue.answers / "studies" / f"{study}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _reports(archive: Archive) -> list[Dataset]:
    return [each for each in archive.objects if each.Modality == "SR"]


def test_a_study_is_summarised_once_it_is_quiet_and_again_after_a_further_image(
    start_node: Start, archive: Archive
) -> None:
    node = start_node(outputs=("seg",), quiet=1.0)
    study = generate_uid()
    start = time.monotonic()
    send(node.port, scan(0, StudyInstanceUID=study, Laterality="L"), scan(1, StudyInstanceUID=study, Laterality="R"))
    summary = wait_for(lambda: _summary(node, study))
    assert time.monotonic() - start >= 1.0
    assert {side: content["images"] for side, content in summary["sides"].items()} == {"R": 1, "L": 1}
    send(node.port, scan(2, StudyInstanceUID=study, Laterality="L"))
    wait_for(lambda: (_summary(node, study) or {}).get("number") == 2)
    summary = _summary(node, study) or {}
    assert summary["sides"]["L"]["images"] == 2
    page = (node.queue.answers / "studies" / f"{study}.html").read_text(encoding="utf-8")
    assert "Left breast" in page
    assert "not a medical device" in page
    wait_for(lambda: len(_reports(archive)) == 2)
    first, second = _reports(archive)
    assert (first.StudyInstanceUID, first.SeriesInstanceUID) == (study, second.SeriesInstanceUID)
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert first.SOPInstanceUID != second.SOPInstanceUID


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools checks the objects")
def test_the_report_of_a_study_conforms_and_says_what_the_summary_says(
    start_node: Start, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start_node(outputs=("seg",), quiet=0.1)
    classifier = node.worker.predictions.predictor.classifier  # type: ignore[attr-defined]
    told = {**CARD["examination"], "fitted_on": {"patients": 100, "most_images": 1}}
    monkeypatch.setattr(classifier, "card", {**classifier.card, "examination": told})
    study, common = generate_uid(), {"StudyDate": "20260101", "StudyTime": "120000", "StudyID": "1"}
    cine = ultrasound([scan(5).pixel_array] * 3, StudyInstanceUID=study, Laterality="R", **common)
    send(node.port, cine, *(scan(number, StudyInstanceUID=study, Laterality="L", **common) for number in range(2)))
    report = wait_for(lambda: _reports(archive))[-1]
    path = tmp_path / "report.dcm"
    report.save_as(path, enforce_file_format=True)
    errors = [line for line in _dciodvfy(path).splitlines() if line.startswith("Error")]
    assert errors == []
    summary = _summary(node, study) or {}
    numbers = _numbers(report)
    expected = [
        round(100 * value, 1)
        for side in summary["sides"].values()
        for value in side["probability"].values()
        if value is not None
    ]
    assert [float(item.MeasuredValueSequence[0].NumericValue) for item in numbers] == pytest.approx(expected)
    assert "examination" in summary["sides"]["L"]["probability"]
    page = (node.queue.answers / "studies" / f"{study}.html").read_text(encoding="utf-8")
    assert "P(malignant) of the images together" in page


def _numbers(item: Dataset) -> list[Dataset]:
    found = [item] if item.get("ValueType") == "NUM" else []
    return [*found, *(number for child in item.get("ContentSequence", ()) for number in _numbers(child))]


def _dciodvfy(path: Path) -> str:
    return subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr


def test_the_status_page_counts_and_gives_reasons_without_a_name(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sr",))
    page = StatusPage(node, 0)
    page.start()
    try:
        names = {"PatientName": CANARY, "PatientID": CANARY, "InstitutionName": CANARY, "StudyDescription": CANARY}
        bad = scan(Rows=0, **names)
        assert statuses(send(node.port, scan(**names), bad, scan(Modality=CANARY.upper(), **names))) == [0, 0xC000, 0]
        wait_for(lambda: node.queue.one("select 1 from deliveries where state = 'sent'"))
        with urllib.request.urlopen(page.address) as answer:
            text = answer.read().decode()
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert CANARY.lower() not in text.lower()
        assert "claims 0 rows" in text
        assert "another class or modality" in text
        assert "<td>1</td>" in text
        assert "<script" not in text
        for changes in ({"Host": "evil.example"}, {}):
            request = urllib.request.Request(page.address + ("" if changes else "etc/passwd"), headers=changes)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(request)
    finally:
        page.stop()


def test_what_was_delivered_is_deleted_after_the_days_and_nothing_before(start_node: Start, tmp_path: Path) -> None:
    node = start_node(outputs=("seg", "sr"), quiet=0.1)
    image = scan()
    send(node.port, image)
    wait_for(lambda: _summary(node, image.StudyInstanceUID))
    wait_for(lambda: not node.queue.one("select 1 from deliveries where state = 'waiting'"))
    wait_for(lambda: not node.queue.one("select 1 from studies where is_open"))
    assert delete_old(node.queue, 7, time.time() + 6.9 * DAY) == 0
    assert node.queue.path(image.SOPInstanceUID).exists()
    # The summary's own delivery may still be on its way.
    wait_for(lambda: delete_old(node.queue, 7, time.time() + 7.1 * DAY) == 1)
    left = [path for path in (tmp_path / "node").rglob("*") if path.is_file()]
    assert not [path for path in left if image.SOPInstanceUID in path.name or image.StudyInstanceUID in path.name]
    assert not [path for path in left if path.suffix in (".dcm", ".json", ".html")]
    for table in ("images", "answers", "deliveries", "cases", "studies"):
        assert node.queue.one(f"select count(*) from {table}") == (0,)


def test_what_a_peer_has_not_got_is_not_deleted(start_node: Start, archive: Archive) -> None:
    archive.stop()
    node = start_node(outputs=("sr",))
    send(node.port, scan())
    wait_for(lambda: node.queue.one("select 1 from deliveries where state = 'waiting'"))
    wait_for(lambda: not node.queue.one("select 1 from studies where is_open"))
    assert delete_old(node.queue, 7, time.time() + 365 * DAY) == 0
