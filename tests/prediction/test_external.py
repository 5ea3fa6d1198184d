# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/evaluate_external.py, on a BUS-BRA that is made of phantom images."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.data.phantom import MARKER
from bundle.data.prepare import prepare
from bundle.data.training_sets import SAME_PIXELS
from bundle.errors import UserError
from bundle.evaluation.comparison import compare_tables
from bundle.evaluation.segmentation import measure_case
from bundle.networks.weights import card_path, read_card
from bundle.prediction import Predictor
from bundle.prediction.external import evaluate_external
from bundle.readers import read_image, read_mask
from scripts.evaluate_external import main
from scripts.record_training_set import main as record_main

BUSI = os.environ.get("BUSI_DIR")
DRAWS = 40


def _make_bus_bra(phantom: Path, folder: Path) -> Path:
    """Each patient has two images; one image has no mask, one no file."""
    lines, number = ["ID,Case,Pathology,Height,Width,Device"], 0
    for label, count in (("benign", 6), ("malignant", 6)):
        for index in range(1, count + 1):
            if index == 4:  # has two masks
                continue
            number += 1
            name = f"{(number + 1) // 2:04d}-{'lr'[number % 2]}"
            image, mask = folder / f"Images/bus_{name}.png", folder / f"Masks/mask_{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(phantom / label / f"{label} ({index}).png", image)
            shutil.copy(phantom / label / f"{label} ({index})_mask.png", mask)
            height, width = read_image(image).pixels.shape
            scanner = ("Logiq", "Toshiba")[number % 2]
            lines.append(f"bus_{name},{(number + 1) // 2},{label.title()},{height + (number == 1)},{width},{scanner}")
    lines += ["bus_0098-l,98,benign,9,9,", "bus_0099-l,99,benign,9,9,"]
    shutil.copy(folder / "Images/bus_0001-r.png", folder / "Images/bus_0098-l.png")
    (folder / "bus_data.csv").write_text("\n".join(lines) + "\n")
    if (phantom / MARKER).exists():
        shutil.copy(phantom / MARKER, folder)
    return folder


@pytest.fixture(scope="module")
def bus_bra(small_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make_bus_bra(small_phantom, tmp_path_factory.mktemp("external") / "BUSBRA")


@pytest.fixture(scope="module")
def run(bus_bra: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """One run of the command line, and its exit code."""
    output = tmp_path_factory.mktemp("out") / "run"
    words = ["--models", str(tiny_models), "--device", "cpu", "--output", str(output), "--draws", str(DRAWS)]
    return output, main([str(bus_bra), *words])


def _metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def _table(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_bad_images_are_listed_and_the_exit_code_is_3(run: tuple[Path, int]) -> None:
    output, code = run
    assert code == 3
    bad = {entry["path"]: entry["reason"] for entry in _metrics(output)["bad"]}
    assert "is not in Masks" in bad.pop("Images/bus_0098-l.png")
    assert "'bus_0099-l' is not in Images" in bad.pop("bus_data.csv line 13")
    assert not bad


def test_scores_are_those_of_the_predictor(run: tuple[Path, int], bus_bra: Path, tiny_models: Path) -> None:
    rows = _table(run[0] / "per_image.csv")
    assert len(rows) == 10
    predictor = Predictor.from_folder(tiny_models, "cpu", backend="auto")
    for row in rows[::4]:
        finding = predictor.predict(bus_bra / row["image"])
        assert float(row["probability"]) == pytest.approx(finding.probability, abs=1e-6)
        name = Path(row["image"]).name.replace("bus", "mask")
        expected = measure_case(finding.probability_map / np.float32(255), read_mask(bus_bra / "Masks" / name))
        assert float(row["dice"]) == pytest.approx(expected.dice)


def test_patients_are_one_row_each_by_max_and_by_mean(run: tuple[Path, int]) -> None:
    images, patients = _table(run[0] / "per_image.csv"), _table(run[0] / "per_patient.csv")
    assert len(patients) == 5
    for patient in patients:
        own = [float(row["probability"]) for row in images if row["group"] == patient["group"]]
        assert len(own) == int(patient["images"]) == 2
        assert float(patient["probability_max"]) == pytest.approx(max(own))
        assert float(patient["probability_mean"]) == pytest.approx(sum(own) / 2)
    mixed = [p for p in patients if len({r["class"] for r in images if r["group"] == p["group"]}) == 2]
    assert [patient["class"] for patient in mixed] == ["malignant"]  # the worst of her images


def test_metrics_tell_both_levels_the_baselines_and_the_transfer(run: tuple[Path, int], tiny_models: Path) -> None:
    metrics = _metrics(run[0])
    assert (metrics["unit"], metrics["dataset"]["groups"], metrics["dataset"]["source"]) == ("patient", 5, "bus-bra")
    levels = {"per_image": 10, "per_patient_max": 5, "per_patient_mean": 5}
    assert {name: scores["cases"] for name, scores in metrics["classification"].items()} == levels
    assert metrics["classification"]["per_image"]["majority_accuracy"]["estimate"] == 0.5
    assert 0 < metrics["segmentation"]["per_image"]["lesions"]["background_accuracy"]["estimate"] < 1
    assert metrics["segmentation"]["per_patient"]["patients"] == 5
    assert set(metrics["calibration"]["per_image"]) >= {"ece", "slope", "intercept", "in_the_large", "reliability"}
    low, high = metrics["transfer"]
    # The thresholds of the tiny models call everything, and nothing, malignant.
    assert (low["sensitivity_wish"], low["reached"]["per_image"]["sensitivity"]["estimate"]) == (0.9, 1.0)
    assert (high["sensitivity_wish"], high["reached"]["per_image"]["sensitivity"]["estimate"]) == (0.95, 0.0)
    assert high["reached"]["per_image"]["interval_holds_wish"] is False
    assert high["on_validation"] == {"sensitivity": 0.0, "specificity": 1.0}
    assert metrics["dataset"]["flags"] == {"size-differs": 1}
    for found in (metrics["strata"]["sizes"], metrics["segmentation"]["per_image"]["sizes"]):
        assert sum(part["cases"] for part in found.values()) == 10
    assert {name: part["cases"] for name, part in metrics["strata"]["device"].items()} == {"Logiq": 5, "Toshiba": 5}
    assert set(metrics["segmentation"]["per_image"]["device"]) == {"Logiq", "Toshiba"}
    assert metrics["weights"]["segmenter"]["sha256"] == read_card(tiny_models / "model.pt")["sha256"]


def test_report_is_one_page_that_names_bad_images_and_no_folder(run: tuple[Path, int], bus_bra: Path) -> None:
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    for text in (
        "SYNTHETIC data",
        "Not a medical device",
        "bus_0098-l.png",
        "Do the operating points hold",
        "per patient, max",
        "Toshiba",
        "share of the image",
    ):
        assert text in page
    for leak in ("http://", "https://", str(bus_bra.parent), str(run[0])):
        assert leak not in page
    assert str(bus_bra.parent) not in (run[0] / "metrics.json").read_text(encoding="utf-8")


def test_a_second_run_predicts_nothing_and_says_the_same(
    run: tuple[Path, int], bus_bra: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run[0] / "per_image.csv").read_bytes()
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("predicted again"))
    metrics = evaluate_external(bus_bra, run[0], tiny_models, device="cpu", draws=DRAWS)
    assert metrics["reused_predictions"] == 10
    assert (run[0] / "per_image.csv").read_bytes() == before


def test_only_what_changed_is_predicted_again(
    bus_bra: Path, tiny_models: Path, write_models: Any, tmp_path: Path
) -> None:
    data = shutil.copytree(bus_bra, tmp_path / "BUSBRA")
    table = (data / "bus_data.csv").read_text().splitlines()
    (data / "bus_data.csv").write_text("\n".join(table[:5]))  # two patients
    assert evaluate_external(data, tmp_path / "out", tiny_models, device="cpu", draws=2)["reused_predictions"] == 0
    with Image.open(data / "Images/bus_0002-l.png") as image:
        pixels = np.asarray(image).copy()
    pixels[:20] = 0
    Image.fromarray(pixels).save(data / "Images/bus_0002-l.png")
    (tmp_path / "out/images/Images/bus_0001-r.png.json").write_text('{"key": ')  # as no crash of ours leaves it
    assert evaluate_external(data, tmp_path / "out", tiny_models, device="cpu", draws=2)["reused_predictions"] == 2
    other = write_models(tmp_path / "models", bias=0.5)
    assert evaluate_external(data, tmp_path / "out", other, device="cpu", draws=2)["reused_predictions"] == 0
    card = card_path(other / "model.pt")  # as a refit does: another card of the same weights
    card.write_text(json.dumps({**json.loads(card.read_text()), "threshold": 0.4}))
    assert evaluate_external(data, tmp_path / "out", other, device="cpu", draws=2)["reused_predictions"] == 0


def test_the_small_network_is_scored_by_its_own_card_and_no_answer_of_the_large_one_is_taken_for_its(
    bus_bra: Path, write_models: Any, run: tuple[Path, int], tmp_path: Path
) -> None:
    models = write_models(tmp_path / "models")
    silent = write_models(tmp_path / "silent", bias=-40.0)
    for name in (Path("model.pt"), card_path(Path("model.pt"))):
        shutil.copy(silent / name, models / name.name.replace("model", "model_small"))
    output = shutil.copytree(run[0], tmp_path / "out")
    assert main([str(bus_bra), "--models", str(models), "--small", "--device", "cpu", "--output", str(output)]) == 3
    metrics = _metrics(output)
    assert metrics["reused_predictions"] == 0
    assert metrics["weights"]["segmenter"]["sha256"] == read_card(models / "model_small.pt")["sha256"]
    assert sum(metrics["dataset"]["lesion_states"]["none found"].values()) == 10


def test_two_external_runs_can_be_compared_in_both_tasks(run: tuple[Path, int]) -> None:
    table = run[0] / "per_image.csv"
    result = compare_tables(table, table, draws=20)
    assert (result["images"], result["groups"]) == (10, 5)
    assert {"auroc", "brier", "dice", "pixel_accuracy"} <= set(result["scores"])


def _trained_on(models: Path, prepared: Path, target: Path) -> Path:
    """Copies of weights whose cards say that they were trained on a prepared dataset."""
    shutil.copytree(models, target)
    cases = json.loads((prepared / "cases.json").read_text(encoding="utf-8"))
    for file in (target / "model.pt", target / "model_classifier.pt"):
        card = {**read_card(file), "name": cases["name"], "dataset_sha256": cases["dataset_sha256"]}
        card_path(file).write_text(json.dumps(card))
    return target


def test_the_training_set_is_refused_and_its_images_in_another_set_are_left_out(
    small_phantom: Path, bus_bra: Path, tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tmp_path / "phantom"
    shutil.copytree(small_phantom, training)
    for number in (1, 2, 3):
        (training / f"malignant/malignant ({number}).png").unlink()
        (training / f"malignant/malignant ({number})_mask.png").unlink()
    prepare(training, tmp_path / "prepared", split="50:25:25")
    models = _trained_on(tiny_models, tmp_path / "prepared", tmp_path / "models")
    words = ["--models", str(models), "--device", "cpu", "--output", str(tmp_path / "out"), "--draws", "2"]
    assert main([str(training), *words]) == 2
    assert "is the dataset that the segmenter was trained on" in capsys.readouterr().err
    (training / "normal/normal (1).png").unlink()
    (training / "normal/normal (1)_mask.png").unlink()
    assert main([str(training), *words]) == 2
    assert "--trained-on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([str(bus_bra), *words, "--trained-on", str(tmp_path / "prepared")]) == 3
    metrics = _metrics(tmp_path / "out")
    assert metrics["dataset"]["images"] == 3  # malignant 1 to 3, which the training did not have
    assert {entry["reason"] for entry in metrics["left_out"]} == {SAME_PIXELS}
    assert record_main([str(tmp_path / "prepared"), "--models", str(models)]) == 0
    assert main([str(bus_bra), *words]) == 3  # known by what lies beside the weights
    assert _metrics(tmp_path / "out")["left_out"] == metrics["left_out"]


def test_a_prepared_folder_of_something_else_is_refused(
    small_phantom: Path, bus_bra: Path, tiny_models: Path, tmp_path: Path
) -> None:
    prepare(small_phantom, tmp_path / "prepared", split="50:25:25")
    with pytest.raises(UserError, match="is not what these weights were trained on"):
        evaluate_external(bus_bra, tmp_path / "out", tiny_models, trained_on=[tmp_path / "prepared"], device="cpu")


def test_a_set_without_classes_and_patients_is_scored_for_its_outlines(
    small_phantom: Path, tiny_models: Path, tmp_path: Path
) -> None:
    data = tmp_path / "STU"
    data.mkdir()
    for number in (1, 2, 3):
        shutil.copy(small_phantom / f"benign/benign ({number}).png", data / f"Test_Image_{number}.png")
        with Image.open(small_phantom / f"benign/benign ({number})_mask.png") as mask:
            mask.convert("L").resize((mask.width * 2, mask.height * 2)).save(data / f"mask_{number}.png")
    metrics = evaluate_external(data, tmp_path / "out", tiny_models, device="cpu", draws=DRAWS)
    assert metrics["classification"] == metrics["calibration"] == {}
    assert metrics["transfer"] == []
    assert metrics["segmentation"]["per_image"]["lesions"]["cases"] == 3
    assert metrics["dataset"]["flags"] == {"mask-resized": 3}
    assert "near duplicates stand in for patients" in metrics["warnings"][0]
    assert "only the segmentation is scored" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_an_output_among_the_images_is_refused(
    bus_bra: Path, tiny_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", str(tiny_models), "--output", str(bus_bra / "out")]
    assert main([str(bus_bra), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lies inside" in line


@pytest.mark.slow
@pytest.mark.skipif(BUSI is None, reason="set BUSI_DIR to the BUSI dataset")
def test_the_shipped_weights_refuse_busi_in_its_own_layout_and_in_any_other(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the dataset that the segmenter was trained on"):
        evaluate_external(str(BUSI), tmp_path / "out", root / "models", device="cpu")
    data = _make_bus_bra(Path(str(BUSI)), tmp_path / "BUSBRA")
    with pytest.raises(UserError, match=f"no image is left to score.*{SAME_PIXELS}"):
        evaluate_external(data, tmp_path / "out", root / "models", device="cpu")


def test_lesions_that_are_not_outlined_are_missed_and_benign_in_every_figure(
    bus_bra: Path, write_models: Callable[..., Path], tmp_path: Path
) -> None:
    models = write_models(tmp_path / "models", bias=-40.0)
    evaluate_external(bus_bra, tmp_path / "out", models, device="cpu", draws=DRAWS)
    metrics, rows = _metrics(tmp_path / "out"), _table(tmp_path / "out" / "per_image.csv")
    assert {(row["lesion_state"], row["dice"], row["probability"]) for row in rows} == {("none found", "0.0", "0.0")}
    assert sum(metrics["dataset"]["lesion_states"]["none found"].values()) == len(rows) == 10
    assert metrics["segmentation"]["per_image"]["lesions"]["missed"]["estimate"] == 1.0
    scores = metrics["classification"]["per_image"]
    assert (scores["cases"], scores["auroc"]["estimate"]) == (10, 0.5)
    assert scores["operating_points"]["default"]["sensitivity"]["estimate"] == 0.0
    assert "none found" in (tmp_path / "out" / "report.html").read_text()
