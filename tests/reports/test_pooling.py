# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.pooling and scripts/pool_folds.py, on fabricated evaluations."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from bundle.errors import UserError
from bundle.evaluation.classification import area_under_roc
from bundle.evaluation.segmentation import measure_case, summarise
from bundle.files import to_csv
from bundle.reports.pages import render_pages
from bundle.reports.pooling import calibrate_across, pool_folds
from bundle.reports.records import record_result
from scripts import pool_folds as pool_script

Make = Callable[..., Path]


@pytest.fixture
def classifier(tmp_path: Path) -> Make:
    """Make the evaluation of a classifier on fold `fold`: 40 images, probabilities that are too high on the whole."""

    def make(fold: int, seed: int = 0, **changes: Any) -> Path:
        rng = np.random.default_rng([fold, seed])
        labels = np.arange(40) % 3 == 0
        logits = (
            2.0 * labels - 1 + 1.5 * np.random.default_rng(fold).standard_normal(40) + 0.5 * rng.standard_normal(40)
        )
        rows = [
            {
                **{
                    "image": f"{'malignant' if label else 'benign'}/{fold}_{number}.png",
                    "group": f"g{fold}_{number // 2}",
                },
                **{"class": "malignant" if label else "benign", "label": int(label), "logit": value},
                **{"probability_raw": float(expit(value)), "probability": float(expit(value + 2))},
            }
            for number, (label, value) in enumerate(zip(labels, logits, strict=True))
        ]
        metrics = {
            **{"task": "classification", "synthetic": True, "masks": "predicted", "part": "test"},
            "weights": {"sha256": f"{fold}{seed}", "seed": seed, "filters": [4], "split": f"fold {fold} of 3"},
            "provenance": {
                "dataset_sha256": "d",
                "split_seed": 0,
                "split": f"fold {fold} of 3",
                "segmenter_sha256": ["s"],
            },
        }
        return _write(tmp_path / f"fold{fold}_seed{seed}", {**metrics, **changes}, rows)

    return make


def _write(folder: Path, metrics: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    (folder / "evaluation" / "per_image.csv").write_text(to_csv(rows))
    return folder


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "per_image.csv", newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def test_seeds_of_a_fold_are_averaged_and_folds_calibrated_by_the_others(classifier: Make, tmp_path: Path) -> None:
    runs = [classifier(fold, seed) for fold in range(3) for seed in range(2)]
    metrics = pool_folds(runs, tmp_path / "pooled")
    assert (metrics["cases"], metrics["weights"]["runs_per_fold"]) == (120, 2)
    pooled = _rows(tmp_path / "pooled")
    single = [_rows(run / "evaluation") for run in runs[:2]]
    for image in single[0]:
        values = [float(table[image]["probability"]) for table in single]
        assert float(pooled[image]["logit"]) == pytest.approx(np.mean([logit(value) for value in values]))
    # The single runs call nearly everything malignant; pooled, their mean probability is the share of malignant ones.
    labels = np.array([row["label"] == "1" for row in pooled.values()])
    probabilities = np.array([float(row["probability"]) for row in pooled.values()])
    raw = np.array([float(row["probability_raw"]) for row in pooled.values()])
    assert raw.mean() > labels.mean() + 0.2
    assert probabilities.mean() == pytest.approx(labels.mean(), abs=0.02)
    assert metrics["auroc"]["estimate"] == area_under_roc(labels, probabilities)
    assert {"default", "sensitivity 0.90 on the other folds"} <= metrics["operating_points"].keys()
    assert metrics["conformal"]["promised"] == 0.9
    assert {member["sha256"] for member in metrics["weights"]["members"]} == {
        f"{f}{s}" for f in range(3) for s in range(2)
    }
    report = (tmp_path / "pooled" / "report.html").read_text()
    assert "SYNTHETIC" in report
    assert "With “unsure” as an answer" in report
    assert "validation images" not in report


def test_the_pages_show_a_pooled_result_with_its_networks(classifier: Make, tmp_path: Path, root: Path) -> None:
    pool_folds([classifier(fold) for fold in range(3)], tmp_path / "pooled")
    results = tmp_path / "results"
    metrics = tmp_path / "pooled" / "metrics.json"
    record_result(metrics, results, "pooled", title="Pooled", recipe="ours", allow_synthetic=True)
    pages = render_pages(results, root)
    page = pages["runs.md"]
    assert "calibrated on the other folds" in page
    assert "sensitivity 0.90 on the other folds" in page
    assert "fold 2, seed 0: `20`" in page
    # In short, the table of recipes, prediction sets.
    assert pages["results.md"].count("[Pooled](runs.md#pooled) **SYNTHETIC**") == 3


def test_nothing_of_a_fold_changes_its_own_calibration() -> None:
    rng = np.random.default_rng(0)
    labels, folds = (np.arange(90) % 3 == 0).astype(int), np.arange(90) // 30
    logits = labels + rng.standard_normal(90)
    _, points, limits = calibrate_across(logits, labels, folds)
    other = np.where(folds == 1, -logits, logits), np.where(folds == 1, 1 - labels, labels)
    _, changed_points, changed_limits = calibrate_across(*other, folds)
    assert (points[1], limits[1]) == (changed_points[1], changed_limits[1])
    assert points[0] != changed_points[0]


def test_the_order_of_the_runs_changes_nothing(classifier: Make, tmp_path: Path) -> None:
    runs = [classifier(fold) for fold in range(3)]
    first, second = pool_folds(runs, tmp_path / "a"), pool_folds(runs[::-1], tmp_path / "b")
    assert first["auroc"] == second["auroc"]
    assert (tmp_path / "a" / "per_image.csv").read_bytes() == (tmp_path / "b" / "per_image.csv").read_bytes()


def test_segmenters_are_summarised_over_all_folds(tmp_path: Path) -> None:
    rng, runs, everything = np.random.default_rng(0), [], []
    for fold in range(2):
        rows = []
        for number in range(5):
            lesion = np.zeros((20, 30), dtype=bool)
            lesion[5:12, 8:20] = number > 0
            found = np.roll(lesion, int(rng.integers(4)), axis=1).astype(float)
            name = "benign" if number else "normal"
            scores = asdict(measure_case(found, lesion))
            rows.append({"image": f"{name}/{fold}{number}.png", "class": name, "group": f"{fold}{number}", **scores})
        provenance = {"dataset_sha256": "d", "split_seed": 0, "split": f"fold {fold} of 2"}
        metrics = {"synthetic": True, "threshold": 0.5, "lesions": {}, "weights": {"training_images": 8 + fold}}
        runs.append(_write(tmp_path / str(fold), {**metrics, "provenance": provenance}, rows))
        everything += rows
    metrics = pool_folds(runs, tmp_path / "pooled")
    assert {key: metrics[key] for key in ("lesions", "classes", "sizes", "normals")} == {
        key: value for key, value in summarise(everything).items() if key != "intervals"
    }
    assert metrics["weights"]["training_images"] == "8–9"
    assert (tmp_path / "pooled" / "report.html").is_file()
    with pytest.raises(UserError, match="not averaged"):
        pool_folds([*runs, _copy(runs[0], tmp_path / "again")], tmp_path / "c")


def _copy(run: Path, target: Path) -> Path:
    return shutil.copytree(run, target)


def test_what_does_not_belong_together_is_refused(classifier: Make, tmp_path: Path) -> None:
    runs = [classifier(fold) for fold in range(3)]
    with pytest.raises(UserError, match="one fold only"):
        pool_folds(runs[:1], tmp_path / "out")
    oracle = classifier(0, 7, masks="oracle")
    with pytest.raises(UserError, match="masks"):
        pool_folds([oracle, *runs[1:]], tmp_path / "out")
    validation = classifier(0, 8, part="validation")
    with pytest.raises(UserError, match="validation part"):
        pool_folds([validation, *runs[1:]], tmp_path / "out")
    with pytest.raises(UserError, match="runs of fold 1 of 3 are missing"):
        pool_folds([runs[0], runs[2]], tmp_path / "out")
    other = classifier(4, provenance={"dataset_sha256": "d", "split_seed": 0, "split": "fold 1 of 2"})
    with pytest.raises(UserError, match="different splits"):
        pool_folds([*runs, other], tmp_path / "out")
    torn = _copy(runs[1], tmp_path / "torn")
    with open(torn / "evaluation" / "per_image.csv", "a") as file:
        file.write("benign/new.png,benign\r\n")
    with pytest.raises(UserError, match="line 42: has more or fewer fields"):
        pool_folds([runs[0], torn, runs[2]], tmp_path / "out")
    part = _copy(runs[0], tmp_path / "part")
    table = part / "evaluation" / "per_image.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(UserError, match="pool folds of one split"):
        pool_folds([*runs, part], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_script_pools_and_names_what_is_no_run(
    classifier: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(classifier(fold)) for fold in range(3)]
    assert pool_script.main([*runs, "--output", str(tmp_path / "out")]) == 0
    assert "AUROC" in capsys.readouterr().out
    assert pool_script.main([*runs, str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_lesions_that_were_told_to_be_none_are_pooled_with_score_0_and_calibrated_ungated_beside(
    classifier: Make, tmp_path: Path
) -> None:
    runs = [classifier(fold) for fold in range(3)]
    free = pool_folds(runs, tmp_path / "free")
    for run in runs:
        table = run / "evaluation" / "per_image.csv"
        with open(table, newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        for number, row in enumerate(rows):
            row |= {key: float(row[key]) for key in ("logit", "probability", "probability_raw")}
            lost = row["class"] == "malignant" and number % 6 == 0
            row |= {"probability_ungated": row["probability"], "told_none": lost, "outlined": not lost}
            row["probability"] = 0.0 if lost else row["probability"]
        table.write_text(to_csv(rows))
    pooled = pool_folds(runs, tmp_path / "pooled")
    assert pooled["ungated"]["auroc"]["estimate"] == pytest.approx(free["auroc"]["estimate"])
    assert pooled["auroc"]["estimate"] < free["auroc"]["estimate"]
    assert pooled["ungated"]["told_none"]["malignant"] == 21
    lost = [row for row in _rows(tmp_path / "pooled").values() if row["told_none"] == "True"]
    assert {row["probability"] for row in lost} == {"0.0"}
    assert all(0 < float(row["probability_ungated"]) < 1 for row in lost)
    assert "ungated" not in free
