# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/recalibrate.py, and about all that takes the file it writes, on a phantom."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.special import expit, logit

from bundle.data.phantom import make_phantom
from bundle.errors import UserError
from bundle.evaluation import recalibration
from bundle.networks.weights import read_card
from bundle.prediction import Predictor
from bundle.prediction.batch import weights_digest
from bundle.prediction.external import FITTED_ON, evaluate_external
from scripts.evaluate_external import main as evaluate
from scripts.predict import main as predict
from scripts.recalibrate import main

COUNTS = {"benign": 12, "malignant": 10, "normal": 4}


@pytest.fixture(scope="module")
def hospital(small_phantom: Path) -> Path:
    return small_phantom


@pytest.fixture(scope="module")
def few_will_do() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recalibration, "FEWEST", 8)
        patch.setattr(recalibration, "FEWEST_GROUPS", 5)
        yield


@pytest.fixture(scope="module")
def run(
    hospital: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory, few_will_do: None
) -> tuple[Path, str]:
    """A site file, and what the command printed."""
    folder = tmp_path_factory.mktemp("site")
    printed = pytest.MonkeyPatch()
    lines: list[str] = []
    printed.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
    try:
        assert main(_words(hospital, tiny_models, folder, "--name", "St. Anna")) == 0
    finally:
        printed.undo()
    return folder / "site.json", "\n".join(lines)


def _words(hospital: Path, models: Path, folder: Path, *more: str) -> list[str]:
    words = [str(hospital), "--output", str(folder / "site.json"), "--work", str(folder / "work"), "--draws", "2"]
    return [*words, "--models", str(models), "--device", "cpu", *more]


def _content(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_file_names_weights_counts_intervals_and_what_was_not_fitted(
    run: tuple[Path, str], hospital: Path, tiny_models: Path
) -> None:
    site = _content(run[0])
    for network, file in (("segmenter", "model.pt"), ("classifier", "model_classifier.pt")):
        assert site[network]["sha256"] == read_card(tiny_models / file)["sha256"]
    assert (site["schema_version"], site["name"], site["synthetic"]) == (1, "St. Anna", True)
    assert site["images"]["classes"] == COUNTS
    assert len(site["images"]["pixels"].split()) == sum(COUNTS.values())
    assert set(site["refused"]) == {"presence limit"}
    assert {"temperature", "sensitivity 0.90", "doubt limit"} <= set(site["intervals"])
    for when in ("before", "after"):
        assert site["cross_validation"][when]["classification"]["ece"]["low"] is not None
    assert site["provenance"]["time"].endswith("Z")
    assert str(hospital.parent) not in run[0].read_text(encoding="utf-8")
    assert "not fitted: presence limit: the segmenter does not tell" in run[1]
    assert "with this file, out of fold" in run[1]


def test_a_second_run_predicts_nothing_and_writes_the_same_numbers(
    run: tuple[Path, str], hospital: Path, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run[0].parent / "work", tmp_path / "work")
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("predicted again"))
    assert main(_words(hospital, tiny_models, tmp_path, "--name", "St. Anna")) == 0
    one, other = _content(run[0]), _content(tmp_path / "site.json")
    assert {**one, "provenance": None} == {**other, "provenance": None}


def test_findings_follow_the_site_and_name_it(run: tuple[Path, str], hospital: Path, tiny_models: Path) -> None:
    image, site = hospital / "malignant/malignant (2).png", _content(run[0])
    plain = Predictor.from_folder(tiny_models, "cpu").predict(image)
    finding = Predictor.from_folder(tiny_models, "cpu", site=run[0]).predict(image)
    expected = expit(logit(plain.probability) * 2.0 / site["classifier"]["temperature"])  # 2 is the card's
    assert finding.probability == pytest.approx(expected)
    for point in site["classifier"]["operating_points"]:
        name = f"sensitivity {point['sensitivity_wish']:.2f}"
        assert finding.decisions[name]["threshold"] == point["threshold"] != plain.decisions[name]["threshold"]
    assert (finding.site, plain.site) == ("St. Anna", None)
    assert set(finding.models) == {"segmenter", "classifier", "site"}
    assert finding.call in ("benign", "malignant", "unsure")
    assert weights_digest(tiny_models, site=run[0]) != weights_digest(tiny_models)  # so that nothing stale is kept


def test_predict_takes_the_site_and_every_table_and_page_names_it(
    run: tuple[Path, str], hospital: Path, tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(hospital / "benign/benign (1).png"), "--models", str(tiny_models), "--site", str(run[0])]
    assert predict([*words, "--output", str(tmp_path), "--write", "json", "csv", "html"]) == 0
    assert "Calibrated for St. Anna" in capsys.readouterr().out
    assert _content(tmp_path / "findings.json")["findings"][0]["site"] == "St. Anna"
    with open(tmp_path / "findings.csv", encoding="utf-8", newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert row["site"] == "St. Anna"
    assert len(row["site_sha256"]) == 64
    assert "Calibration of St. Anna" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_weights_that_the_site_was_not_fitted_for_refuse_it(
    run: tuple[Path, str], hospital: Path, write_models: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = write_models(tmp_path / "models", bias=0.5)
    words = [str(hospital / "benign/benign (1).png"), "--models", str(other), "--site", str(run[0])]
    assert predict(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "fitted for another segmenter" in line


def test_the_images_of_the_fit_are_not_called_unseen(
    run: tuple[Path, str], hospital: Path, tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--models", str(tiny_models), "--site", str(run[0]), "--device", "cpu", "--draws", "2"]
    assert evaluate([str(hospital), *words, "--output", str(tmp_path / "none")]) == 2
    assert "no image is left to score" in capsys.readouterr().err
    other = tmp_path / "other"
    make_phantom(other, counts={"benign": 4, "malignant": 4, "normal": 0}, size_range=((60, 64), (80, 84)), seed=8)
    for part in ("", "_mask"):
        shutil.copy(hospital / f"benign/benign (1){part}.png", other / f"benign/benign (9){part}.png")
    plain = evaluate_external(other, tmp_path / "out", tiny_models, device="cpu", draws=2)
    metrics = evaluate_external(other, tmp_path / "out", tiny_models, device="cpu", site=run[0], draws=2)
    assert (plain["site"], metrics["reused_predictions"]) == (None, 0)  # not mixed up
    assert [entry["path"] for entry in metrics["left_out"] if entry["reason"] == FITTED_ON] == ["benign/benign (9).png"]
    assert metrics["site"]["name"] == "St. Anna"
    assert "left out: the site file was fitted on them" in metrics["warnings"][-1]
    points = _content(run[0])["classifier"]["operating_points"]
    assert [point["threshold"] for point in metrics["transfer"]] == [point["threshold"] for point in points]
    assert "Calibrated for St. Anna" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_too_few_images_write_nothing_and_say_what_each_lacks(
    hospital: Path,
    tiny_models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recalibration, "FEWEST", 30)
    assert main(_words(hospital, tiny_models, tmp_path)) == 2
    *lines, last = (line for line in capsys.readouterr().err.splitlines() if line.startswith(("not", "error")))
    assert "nothing was written" in last
    assert [line.split(": ")[1] for line in lines] == [
        *("presence limit", "temperature", "sensitivity 0.90", "sensitivity 0.95", "prediction sets", "doubt limit")
    ]
    assert not (tmp_path / "site.json").exists()


def test_the_training_set_of_the_weights_is_refused(
    hospital: Path, tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = shutil.copytree(tiny_models, tmp_path / "models")
    for name in ("model", "model_classifier"):
        card = _content(models / f"{name}.json")
        (models / f"{name}.json").write_text(json.dumps({**card, "name": hospital.name, "dataset_sha256": "d" * 64}))
    assert main(_words(hospital, models, tmp_path)) == 2
    assert "--trained-on" in capsys.readouterr().err


def test_a_folder_as_output_is_refused_before_anything_is_predicted(
    hospital: Path, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("predicted"))
    (tmp_path / "site.json").mkdir()
    assert main(_words(hospital, tiny_models, tmp_path)) == 2


def test_the_pipeline_config_takes_the_site(
    run: tuple[Path, str], hospital: Path, tiny_models: Path, tmp_path: Path, run_bundle: Callable[..., Any]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(hospital / "malignant/malignant (2).png", images / "a.png")
    result = run_bundle(
        *(
            "--config_file",
            "configs/inference_pipeline.json",
            "--dataset_dir",
            images,
            "--output_dir",
            tmp_path / "out",
        ),
        *("--weights", tiny_models / "model.pt", "--classifier_weights", tiny_models / "model_classifier.pt"),
        *("--site", run[0], "--amp", "False", "--device", "cpu"),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (finding,) = _content(tmp_path / "out/findings.json")["findings"]
    expected = Predictor.from_folder(tiny_models, "cpu", amp=False, site=run[0]).predict(images / "a.png")
    assert finding["site"] == "St. Anna"
    assert finding["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert finding["decisions"] == expected.decisions


def test_site_of_a_wrong_model_raises_in_python(run: tuple[Path, str], write_models: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another segmenter"):
        Predictor.from_folder(write_models(tmp_path, bias=0.3), "cpu", site=run[0])
