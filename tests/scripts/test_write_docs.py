# SPDX-License-Identifier: Apache-2.0
"""Claims about the command lines scripts/record_result.py and scripts/write_docs.py."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.evaluation.segmentation import measure_case, summarise
from bundle.reports.pages import render_pages
from scripts import record_result, write_docs

RECIPE = ["--title", "Ours, seed 0", "--recipe", "ours"]


def fabricate(folder: Path, synthetic: bool = False, shift: int = 2, known: bool = False, **weights: Any) -> Path:
    """Write the metrics.json of an evaluation of squares that are predicted `shift` pixels too low; by choice their
    dataset, scanner and BI-RADS category are known."""
    rows = []
    for number in range(12):
        lesion, probability = np.zeros((30, 40), bool), np.zeros((30, 40))
        lesion[8:20, 8:20] = number < 10
        probability[8 + shift : 20 + shift, 8:20] = number < 11
        label = "normal" if number >= 10 else ("benign", "malignant")[number % 2]
        scores = asdict(measure_case(probability, lesion))
        told = {"dataset": "ABUS", "device": "Acme 3", "birads": str(2 + number % 2)} if known else {}
        rows.append({"image": f"{number}.png", "class": label, "group": str(number), **told, **scores})
    training = {"command": "python -m monai.bundle run training --seed 0", "commit": "c" * 40, "device": "CPU"}
    card = {"sha256": "ab" * 32, "filters": [16, 32], "spatial_size": [128, 96], "training_images": 98, "seed": 7}
    metrics = {
        "synthetic": synthetic,
        "threshold": 0.45,
        **summarise(rows, draws=50),
        "weights": {**card, "provenance": training, **weights},
        "provenance": {"command": "python -m monai.bundle run evaluating", "dataset_sha256": "de" * 32},
    }
    path = folder / "metrics.json"
    path.write_text(json.dumps(metrics))
    return path


def record(metrics: Path, docs: Path, *options: str, name: str = "busi_ours_seed0") -> int:
    return record_result.main([str(metrics), "--results", str(docs / "results"), "--name", name, *options])


def page(docs: Path, name: str = "results.md") -> str:
    assert write_docs.main(["--docs", str(docs)]) == 0
    return (docs / name).read_text(encoding="utf-8")


def test_pages_of_the_repository_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    code = write_docs.main(["--check"])
    assert code == 0, capsys.readouterr().out


def test_check_notices_an_edited_page_and_leaves_it(tmp_path: Path) -> None:
    arguments = ["--docs", str(tmp_path), "--check"]
    assert write_docs.main(arguments) == 1
    assert list(tmp_path.iterdir()) == []
    page(tmp_path)
    assert write_docs.main(arguments) == 0
    edited = page(tmp_path).replace("93.23", "99.23")
    (tmp_path / "results.md").write_text(edited, encoding="utf-8")
    assert write_docs.main(arguments) == 1
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == edited


def test_pages_without_results_say_so_and_have_no_empty_sections(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "No result is recorded yet" in text
    assert re.findall(r"^## (.*)", text, re.M) == ["In short", "The paper's tables"]
    assert "## " not in page(tmp_path, "runs.md")
    card = page(tmp_path, "README.md")
    assert "No result is recorded yet" in card
    assert "This is not a medical device" in card
    assert "10.1016/j.dib.2019.104863" in card


def _facts(content: Any) -> set[str]:
    """Every command, commit, time, checksum and seed in a record, at any depth, but those of the single folds."""
    facts: set[str] = set()
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, (dict, list)) and key not in ("rounds", "packages", "runs", "cells", "settings"):
            facts |= _facts(value)
        elif key in ("command", "commit", "time", "dataset_sha256", "sha256"):
            facts.add(" ".join(str(value).replace("`", "").split()))
    return facts


def test_each_record_of_the_repository_is_on_a_page_with_where_it_comes_from(root: Path) -> None:
    runs = (root / "docs" / "runs.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r'^### <a id="(\w+)"></a>(.*?)(?=^##|\Z)', runs, re.M | re.S))
    records = sorted((root / "docs" / "results").glob("*.json"))
    assert sorted(sections) == [file.stem for file in records]
    for file in records:
        assert f"(results/{file.name})" in sections[file.stem]
        content = json.loads(file.read_text(encoding="utf-8"))
        facts = _facts(content)
        assert facts
        assert [fact for fact in facts if fact not in sections[file.stem]] == [], file.name


def test_the_results_page_is_short_and_links_each_run(root: Path) -> None:
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 302
    linked = set(re.findall(r"\(runs\.md#(\w+)\)", text)) - {"speed"}
    records = {file.stem for file in (root / "docs" / "results").glob("*.json")}
    elsewhere = {
        name
        for name in records
        if name.startswith(
            ("evidence_", "fuzz", "tools", "cine_rules", "examination_rule", "grey", "marks_", "recalibration")
        )
    }
    assert linked == records - elsewhere


def test_recorded_numbers_stand_in_both_pages(tmp_path: Path) -> None:
    metrics = fabricate(tmp_path)
    assert record(metrics, tmp_path, *RECIPE) == 0
    lesions = json.loads(metrics.read_text())["lesions"]
    dice = lesions["dice"]
    told = f"{dice['estimate']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}]"
    background = f" {100 * lesions['background_accuracy']['estimate']:.1f} "
    for name in ("results.md", "README.md"):
        lines = page(tmp_path, name).splitlines()
        row = next(line for line in lines if line.startswith("| ") and "Ours, seed 0" in line)
        assert told in row
        assert background in row
    runs = page(tmp_path, "runs.md")
    for fact in ("16-32", "128×96", "| 98 |", "ab" * 32, "de" * 32, "c" * 40, "run training --seed 0", "Seed: 7", told):
        assert fact in runs
    results = page(tmp_path)
    assert "93.23" in results
    assert "quoted" in results


def test_a_run_has_its_scores_by_dataset_scanner_and_category(tmp_path: Path) -> None:
    metrics = fabricate(tmp_path, known=True)
    assert record(metrics, tmp_path, *RECIPE) == 0
    parts = json.loads(metrics.read_text())
    runs = page(tmp_path, "runs.md")
    for name, part in (("scanner Acme 3", parts["device"]["Acme 3"]), ("BI-RADS 3", parts["birads"]["3"])):
        assert f"| {name} | {part['cases']} | {part['groups']} | {part['dice']['estimate']:.3f}" in runs
    assert f"| ABUS | {parts['lesions']['cases']} | " in runs


def test_scores_over_several_datasets_stand_beside_those_of_each(tmp_path: Path, root: Path) -> None:
    for name in ("requirements.txt", "configs/metadata.json", "configs/train.json", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((root / name).read_bytes())
    scores = {}
    for name, shift in (("BUSBRA", 1), ("Dataset_BUSI_with_GT", 3)):
        metrics = json.loads(fabricate(tmp_path, shift=shift).read_text())
        scores[name] = {"lesions": metrics["lesions"], "normals": metrics["normals"]}
    file = fabricate(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "datasets": scores}))
    assert record(file, tmp_path, *RECIPE) == 0
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"weights")
    card = {"cross_validated_by": "busi_ours_seed0", "spatial_size": [192, 192]}
    (tmp_path / "models" / "model.json").write_text(json.dumps(card))
    pages = render_pages(tmp_path / "results", tmp_path)
    for name in ("../README.md", "README.md"):
        rows = [line for line in pages[name].splitlines() if re.match(r"\| (BUS-BRA|BUSI|all of them) \|", line)]
        told = [float(re.split(r" \| | \[", row)[2]) for row in rows]
        assert told == [round(part["lesions"]["dice"]["estimate"], 3) for part in scores.values()] + [told[2]]
        assert told[0] > told[2] > told[1]
        assert "on 128×96 pixels (the shipped network sees 192×192)" in pages[name]


def test_every_table_row_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    record(fabricate(tmp_path), tmp_path, "--title", "a | b <script>", "--recipe", "paper", "--row", "2", name="row2")
    record_external_fabricated(tmp_path)
    text = page(tmp_path) + page(tmp_path, "runs.md")
    assert "<script" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 9
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_score_that_is_not_defined_is_a_dash(tmp_path: Path) -> None:
    record(fabricate(tmp_path, shift=0), tmp_path, *RECIPE)
    recorded = tmp_path / "results" / "busi_ours_seed0.json"
    content = json.loads(recorded.read_text())
    content["normals"]["false_positive_rate"] = {"estimate": None, "low": None, "high": None}
    recorded.write_text(json.dumps(content))
    assert "| – |" in page(tmp_path)
    assert "HD95 is undefined in 0" in page(tmp_path, "runs.md")


def test_record_keeps_the_metrics_whole(tmp_path: Path) -> None:
    metrics = fabricate(tmp_path)
    assert record(metrics, tmp_path, *RECIPE, "--note", "A note.") == 0
    recorded = json.loads((tmp_path / "results" / "busi_ours_seed0.json").read_text())
    added = {key: recorded.pop(key) for key in ("title", "recipe", "row", "note")}
    assert added == {"title": "Ours, seed 0", "recipe": "ours", "row": None, "note": "A note."}
    assert recorded == json.loads(metrics.read_text())


def test_synthetic_result_is_refused_unless_allowed_and_then_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = fabricate(tmp_path, synthetic=True)
    assert record(metrics, tmp_path, *RECIPE) == 2
    assert "--allow-synthetic" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert record(metrics, tmp_path, *RECIPE, "--allow-synthetic") == 0
    for name in ("results.md", "runs.md", "README.md"):
        assert "**SYNTHETIC**" in page(tmp_path, name)


def test_runs_stand_in_the_order_of_the_papers_rows_and_ours_last(tmp_path: Path) -> None:
    metrics = fabricate(tmp_path)
    record(metrics, tmp_path, *RECIPE, name="a_ours")
    for row in ("3", "1"):
        record(metrics, tmp_path, "--title", f"Row {row}", "--recipe", "paper", "--row", row, name=f"row{row}")
    assert re.findall(r'<a id="(.*?)"', page(tmp_path, "runs.md")) == ["row1", "row3", "a_ours"]


def test_speed_stands_on_the_page(tmp_path: Path) -> None:
    settings = {"batch_size": 8, "spatial_size": [64, 64], "filters": [4], "precision": "float32", "data": "phantom"}
    speeds = {"bare_images_per_second": 200.0, "loop_images_per_second": 180.0, "ratio": 0.9, "rounds": [{}] * 6}
    (tmp_path / "results").mkdir()
    content = {"settings": settings, **speeds, "provenance": {"command": "python benchmark.py training"}}
    (tmp_path / "results" / "benchmark_training.json").write_text(json.dumps(content))
    assert "| training loop | 180.0 | 90 |" in page(tmp_path)


def test_benchmarks_of_inference_and_of_peers_stand_on_the_page(tmp_path: Path) -> None:
    from bundle.benchmarks.inference import _summarise
    from bundle.benchmarks.peers import measure_peers

    rounds = [
        {
            "torch, float32": {"bare": 10.0, "at_once": 12.0, "pipeline": 8.0},
            "openvino, float32": {"bare": 20.0, "at_once": 22.0, "pipeline": share},
        }
        for share in (10.0, 12.0, 11.0)
    ]
    settings = {"images": 24, "sizes": [[400, 560], [500, 760]], "threads": 2, "versions": {"openvino": "1.2"}}
    record = {"settings": settings, "runs": _summarise(rounds), "rounds": rounds, "provenance": {"command": "x"}}
    assert "## Speed" not in page(tmp_path)
    (tmp_path / "results").mkdir(exist_ok=True)
    (tmp_path / "results" / "benchmark_inference.json").write_text(json.dumps(record))
    peers = measure_peers(spatial_size=(32, 32), batch_size=1, filters=(4, 8), rounds=1, iterations=1)
    (tmp_path / "results" / "benchmark_peers.json").write_text(json.dumps(peers))
    text = page(tmp_path)
    assert "| openvino, float32 | 20.0 | 2.00 | 22.0 | 11.0 | 1.38 | 55 (50–60) | 50 |" in text
    assert "| SegResNet | 1.58 |" in text
    (tmp_path / "results" / "benchmark_peers.json").write_text("{}")
    assert write_docs.main(["--docs", str(tmp_path)]) == 2


def test_trained_peers_stand_beside_ours_with_a_figure(tmp_path: Path) -> None:
    from bundle.benchmarks.peers import measure_peers

    peers = measure_peers(spatial_size=(32, 32), batch_size=1, filters=(4, 8), rounds=1, iterations=1)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "benchmark_peers.json").write_text(json.dumps(peers))
    page(tmp_path)
    assert not (tmp_path / "images" / "peers.png").exists()
    for peer in ("ours", "SegResNet"):
        given = {} if peer == "ours" else {"peer": peer}
        metrics = fabricate(tmp_path, shift=1 if peer == "ours" else 3, filters=None, **given)
        record(metrics, tmp_path, "--title", peer, "--recipe", "peer", name=f"busi_peer_{peer.lower()}")
    text = page(tmp_path)
    dice = {
        name: float(score)
        for name, score in re.findall(r"^\| \[(ours|SegResNet)\].*? \| .*? \| .*? \| (0\.\d+)", text, re.M)
    }
    assert dice["ours"] > dice["SegResNet"]
    assert "[BasicUNet]" not in text
    assert "![Dice against time](images/peers.png)" in text
    assert (tmp_path / "images" / "peers.png").stat().st_size > 5000
    assert write_docs.main(["--docs", str(tmp_path), "--check"]) == 0
    assert "## Lesion segmentation" not in text  # the table of our recipes has none of them
    assert '<a id="busi_peer_segresnet"></a>SegResNet' in page(tmp_path, "runs.md")


def test_a_comparison_stands_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    difference = {"estimate": 0.0312, "low": 0.01, "high": 0.052, "p_value": 0.004}
    scores = {"dice": {"first": 0.7, "second": 0.7312, "difference": difference, "method": "bootstrap"}}
    file = tmp_path / "comparison.json"
    file.write_text(json.dumps({"images": 259, "groups": 190, "scores": scores, "provenance": {}}))
    words = ["--title", "Consistency", "--models", "masks alone", "all images"]
    assert record(file, tmp_path, *words, "--note", "One split.", name="compare_consistency") == 0
    text = page(tmp_path)
    lever = "| [Consistency](runs.md#compare_consistency) | 259 | Dice | "
    row = lever + "masks alone: 0.700 | all images: 0.731 | 0.031 [0.010, 0.052] | 0.004 |"
    assert row in text
    assert "Consistency: One split." in text
    assert record(file, tmp_path, *words, name="busi_consistency") == 2
    file.write_text("{}")
    assert record(file, tmp_path, *words, name="compare_nothing") == 2
    told = capsys.readouterr().err
    assert "compare_" in told
    assert "lacks images" in told


@pytest.mark.parametrize(("text", "reason"), [("{", "no JSON"), ("{}", "lacks"), ("[]", "not an object")])
def test_file_that_is_no_result_is_named(
    tmp_path: Path, text: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    bad = tmp_path / "results" / "bad.json"
    bad.write_text(text)
    assert record(bad, tmp_path, *RECIPE) == 2
    assert write_docs.main(["--docs", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("bad.json" in line and reason in line for line in lines)
    assert not (tmp_path / "results.md").exists()


def test_the_cost_of_an_archive_stands_on_the_page(tmp_path: Path) -> None:
    runs = [
        {"images": 100, "seconds": 12.34, "cpu_seconds": 20, "peak_memory_gib": 0.5, "files": 202, "bytes": 3 << 20},
        {"images": 300, "seconds": 20.34, "cpu_seconds": 32, "peak_memory_gib": 0.5, "files": 602, "bytes": 9 << 20},
    ]
    growth = {"seconds": 0.04, "cpu_seconds": 0.06, "files": 2, "bytes": 6 * 2**20 / 200, "peak_memory_bytes": 0}
    record = {"outputs": ["png", "json"], "runs": runs, "growth": {**growth, "start_seconds": 8.34}}
    record["provenance"] = {"command": "python benchmark.py archive", "commit": "c" * 40}
    file = tmp_path / "results" / "benchmark_archive.json"
    file.parent.mkdir()
    file.write_text(json.dumps(record))
    text = page(tmp_path)
    assert "| 100 | 12.3 | 20.0 | 0.50 | 202 | 3.0 |" in text
    assert "| per further 1,000 images | 40 | 60 | 0.000 | 2000 | 30 |\n\nThe start takes 8.3 s." in text
    # 0.04 s for each of 100 million, in weeks of 604,800 s; 0.06 CPU s; 30 KiB; 2 files.
    assert "| machines like this one, for a week | 7 |\n| CPU hours | 1667 |\n| storage, GiB | 2930 |" in text
    assert "| files, millions | 200 |" in text
    file.write_text(json.dumps({**record, "runs": runs[:1], "growth": None}))
    assert "per further" not in page(tmp_path)
    file.write_text("{}")
    assert write_docs.main(["--docs", str(tmp_path)]) == 2


def test_the_search_for_near_duplicates_in_two_builds_stands_on_the_page(tmp_path: Path) -> None:
    found = {"images": 1000, "seconds": 20.0, "cpu_seconds": 30.0, "planted": 10, "found": 9, "wrong": 1}
    searches = {
        build: [{"search": [{**found, "peak_memory_gib": gib}]}] for build, gib in (("former", 8.8), ("current", 1.2))
    }
    record = {"runs": [], "rounds": {"duplicates": searches}, "provenance": {"commit": "c" * 40}}
    file = tmp_path / "results" / "benchmark_duplicates.json"
    file.parent.mkdir()
    file.write_text(json.dumps(record))
    text = page(tmp_path)
    assert "| 1000 | former | 20.0 | 30.0 | 30 | 9 of 10 | 1 | 8.8 |" in text
    assert "| 1000 | now | 20.0 | 30.0 | 30 | 9 of 10 | 1 | 1.2 |" in text
    del record["rounds"]
    file.write_text(json.dumps(record))
    assert write_docs.main(["--docs", str(tmp_path)]) == 2


@pytest.mark.parametrize("name", ["../up", "With Space", "benchmark_training", ""])
def test_name_that_is_no_plain_word_is_refused(tmp_path: Path, name: str) -> None:
    assert record(fabricate(tmp_path), tmp_path, *RECIPE, name=name) == 2
    assert not (tmp_path / "results").exists()


def _classified(folder: Path, auroc: float, **weights: Any) -> Path:
    """Write the metrics.json of a classifier's evaluation."""
    score = {"estimate": auroc, "low": auroc - 0.05, "high": auroc + 0.05}
    names = ("accuracy", "sensitivity", "specificity", "precision_benign", "precision_malignant")
    metrics = {
        **{"task": "classification", "synthetic": False, "masks": "predicted", "intervals": {}, "cases": 40},
        **{"auroc": score, "ece": score, "majority_accuracy": score},
        "operating_points": {"default": {"threshold": 0.5, **dict.fromkeys(names, score)}},
        "weights": {"sha256": "ab" * 32, "seed": 1, **weights},
        "provenance": {"segmenter_sha256": ["cd" * 32]},
    }
    path = folder / "metrics.json"
    path.write_text(json.dumps(metrics))
    return path


def test_runs_over_seeds_are_summarised_and_a_single_run_is_not(tmp_path: Path) -> None:
    for seed, auroc in enumerate((0.80, 0.90)):
        assert record(_classified(tmp_path, auroc), tmp_path / "docs", *RECIPE, name=f"class_seed{seed}") == 0
    assert (
        record(
            _classified(tmp_path, 0.7, folds=3, segmentation_split="3 folds"),
            tmp_path / "docs",
            *RECIPE,
            name="class_folds",
        )
        == 0
    )
    text = page(tmp_path / "docs")
    links = "[1](runs.md#class_seed0), [2](runs.md#class_seed1)"
    assert f"| ours: {links} | predicted | 0.850 (0.800–0.900) | 85.0 (80.0–90.0) |" in text
    assert "| [Ours, seed 0](runs.md#class_folds) | predicted | 0.700 [0.650, 0.750] |" in text


def test_segmenters_over_splits_are_summarised_and_a_single_run_is_not(tmp_path: Path) -> None:
    dice, titled = [], ["--recipe", "ours", "--title"]
    for split, shift in enumerate((1, 3)):
        metrics = fabricate(tmp_path, shift=shift, instance_norm=True)
        dice.append(json.loads(metrics.read_text())["lesions"]["dice"]["estimate"])
        assert record(metrics, tmp_path, *titled, f"Ours, 15 %, split {split}", name=f"busi_ours_seed{split}") == 0
    assert record(fabricate(tmp_path), tmp_path, *titled, "Ours, 70 %, split 0", name="busi_ours_70") == 0
    text = page(tmp_path)
    links = "[1](runs.md#busi_ours_seed0), [2](runs.md#busi_ours_seed1)"
    assert f"| Ours, 15 %: {links} | 98 | {sum(dice) / 2:.3f} ({min(dice):.3f}–{max(dice):.3f}) |" in text
    assert "| [Ours, 70 %, split 0](runs.md#busi_ours_70) | 98 | " in text
    kinds = re.findall(r"^\| \[Ours[^|]*\| ([^|]*) \|", page(tmp_path, "runs.md"), re.M)
    assert kinds == ["ours, batch norm", "ours", "ours"]


def test_folds_of_one_recipe_are_joined_and_half_a_test_part_is_not_taken_for_them(tmp_path: Path) -> None:
    for number in range(2):
        name, title = f"busi_fold{number}", f"Ours, two thirds, fold {number} of 3"
        record(fabricate(tmp_path), tmp_path, "--recipe", "ours", "--title", title, name=name)
        name, title = f"busi_split{number}", f"Masks alone, split {number}, fold 0 of 2"
        record(fabricate(tmp_path), tmp_path, "--recipe", "ours", "--title", title, name=name)
    titles = re.findall(r"^\| (\w[^|]*?) \(batch norm\): \[1\]", page(tmp_path), re.M)
    assert titles == ["Ours, two thirds, folds of 3", "Masks alone, fold 0 of 2"]


def record_external_fabricated(folder: Path, *options: str) -> int:
    """Record what scripts/evaluate_external.py would write for two hospitals' patients."""
    from bundle.evaluation.external import summarise_external

    rows = []
    for number in range(8):
        lesion, probability = np.zeros((30, 40), bool), np.zeros((30, 40))
        lesion[8:20, 8:20], probability[8 + number // 2 : 20 + number // 2, 8:20] = True, True
        label = ("benign", "malignant")[number % 2]
        row = {"image": f"{number}.png", "class": label, "group": f"patient {number // 2}", "probability": number / 8}
        rows.append({**row, **asdict(measure_case(probability, lesion))})
    points = [{"sensitivity_wish": 0.9, "threshold": 0.3, "sensitivity": 0.9, "specificity": 0.5}]
    content = {
        **{"task": "external", "synthetic": False, "unit": "patient", "threshold": 0.5},
        "dataset": {
            **{"name": "Elsewhere", "source": "bus-bra", "dataset_sha256": "ef" * 32, "images": 8, "groups": 4},
            "classes": {"benign": 4, "malignant": 4},
        },
        **summarise_external(rows, points, draws=20),
        "bad": [{"path": "name of a patient.png", "reason": "x"}],
        "left_out": [],
        "weights": {"segmenter": {"sha256": "ab" * 32}, "classifier": {"sha256": "cd" * 32}},
        "provenance": {"command": "python evaluate_external.py", "commit": "c" * 40, "time": "2026-01-01"},
    }
    file = folder / "external.json"
    file.write_text(json.dumps(content))
    return record(file, folder, "--title", "Elsewhere, shipped", *options, name="external_elsewhere")


def test_an_external_evaluation_has_a_row_and_keeps_no_names_of_files_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Other hospitals" not in page(tmp_path)
    assert record_external_fabricated(tmp_path) == 0
    recorded = (tmp_path / "results" / "external_elsewhere.json").read_text()
    assert "name of a patient" not in recorded
    assert json.loads(recorded)["bad"] == 1
    lesions = json.loads(recorded)["segmentation"]["per_image"]["lesions"]["dice"]
    row = next(line for line in page(tmp_path).splitlines() if line.startswith("| [Elsewhere, shipped]"))
    assert f"| 8 (4) | {lesions['estimate']:.3f} [" in row
    assert row.endswith("(90) |")
    runs = page(tmp_path, "runs.md")
    for fact in ("ab" * 32, "cd" * 32, "ef" * 32, "c" * 40, "python evaluate_external.py", "1 not usable"):
        assert fact in runs
    assert record(tmp_path / "external.json", tmp_path, "--title", "x", name="busi_elsewhere") == 2
    assert "external_" in capsys.readouterr().err


def test_a_new_benchmark_stands_on_the_page_of_runs(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    content = {"runs": [{"name": "before", "images_per_second": 1.5}, {"name": "after", "images_per_second": 3.0}]}
    content |= {"settings": {"threads": 2}, "provenance": {"command": "python benchmark.py turns"}}
    (tmp_path / "results" / "benchmark_turns.json").write_text(json.dumps(content))
    text = page(tmp_path, "runs.md")
    assert "| name | images per second |\n|---|---|\n| before | 1.5 |\n| after | 3.0 |" in text
    assert "- Measured by: `python benchmark.py turns`" in text
