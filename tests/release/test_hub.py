# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.release.hub and scripts/push_to_hub.py; the hub itself is never asked."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundle.release.hub import write_card
from bundle.release.package import list_files
from scripts import push_to_hub


def _header(card: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return content


def _hub(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[dict[str, Any]]:
    """Put a hub in place that notes what it is asked."""
    asked: list[dict[str, Any]] = []

    class HfApi:
        def create_repo(self, name: str, **options: Any) -> None:
            asked.append({"create": name, **options})

        def upload_folder(self, **options: Any) -> str:
            if error is not None:
                raise error
            asked.append(options)
            return "https://hub.example/commit"

    module = types.ModuleType("huggingface_hub")
    module.HfApi = HfApi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def test_a_dry_run_writes_the_package_and_the_card_and_asks_no_hub(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    assert push_to_hub.main(["owner/name", "--output", "hub", "--dry-run"]) == 0
    written = {path.relative_to("hub").as_posix() for path in Path("hub").rglob("*") if path.is_file()}
    assert written == {*list_files(root), "README.md"}
    printed = capsys.readouterr().out
    assert all(name in printed for name in written)
    assert "would upload" in printed
    assert "to owner/name (private)" in printed
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", Path("hub/README.md").read_text())
    assert links
    assert all((Path("hub") / link.partition("#")[0]).is_file() for link in links)


def test_the_card_has_licence_tags_data_and_recorded_scores_with_intervals(root: Path) -> None:
    card = write_card(root)
    header = _header(card)
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "monai"
    assert "research-only" in header["tags"]
    assert header["datasets"] == ["bus-bra", "busi"]
    assert header["model-index"][0]["results"][0]["dataset"]["name"].startswith("BUS-BRA and BUSI, ")
    scores = json.loads((root / "configs" / "metadata.json").read_text())["eval_metrics"]
    segmentation, classification = header["model-index"][0]["results"]
    for result, prefix in ((segmentation, ""), (classification, "classifier_")):
        assert result["metrics"]
        for metric in result["metrics"]:
            key = prefix + metric["type"]
            assert metric["value"] == scores[key]
            assert f"[95 % CI {scores[f'{key}_low']:.3f}, {scores[f'{key}_high']:.3f}]" in metric["name"]
    assert "not a medical device" in card.lower()


def test_the_hubs_own_library_reads_the_card(root: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface-hub (requirements-hub.txt)")
    (tmp_path / "README.md").write_text(write_card(root))
    data = hub.ModelCard.load(tmp_path / "README.md").data
    assert data.license == "apache-2.0"
    assert {result.metric_type for result in data.eval_results} >= {"mean_dice", "auroc"}


def test_an_upload_sends_the_prepared_folder_to_a_private_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = _hub(monkeypatch)
    assert push_to_hub.main(["owner/name", "--output", str(tmp_path / "hub")]) == 0
    created, uploaded = asked
    assert created == {"create": "owner/name", "private": True, "exist_ok": True}
    assert uploaded["folder_path"] == str(tmp_path / "hub")
    assert "https://hub.example/commit" in capsys.readouterr().out


def test_a_refusal_a_missing_package_and_a_used_folder_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["owner/name", "--output", str(tmp_path / "hub")]
    _hub(monkeypatch, OSError("401 Client Error\nmore"))
    assert push_to_hub.main(words) == 2
    assert "not uploaded (401 Client Error)" in capsys.readouterr().err
    assert push_to_hub.main(words) == 2
    assert "not empty" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert push_to_hub.main([*words[:2], str(tmp_path / "other")]) == 2
    printed = capsys.readouterr().err
    assert "pip install -r requirements-hub.txt" in printed
    assert printed.count("\n") == 1
