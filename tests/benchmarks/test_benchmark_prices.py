# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.benchmarks.prices and scripts/benchmark.py prices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.benchmarks import prices
from bundle.benchmarks.prices import CHOICES, DEFAULT, Choice, measure_prices, prices_lines
from bundle.data.datalists import DATALIST
from bundle.data.prepare import prepare
from bundle.errors import UserError
from bundle.files import read_json, write_json
from scripts.benchmark import main
from scripts.predict import PRECISIONS
from scripts.predict import _parse as parse_predict

PLAIN = (DEFAULT, Choice("--no-flip", options={"flip": False}))


@pytest.fixture(scope="module")
def split(small_phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(small_phantom, folder, split="40:10:50")
    return folder


@pytest.fixture
def models(split: Path, write_models: Callable[..., Path], tmp_path: Path) -> Path:
    """Weights whose cards say that they were trained on the split."""
    folder = write_models(tmp_path / "models")
    datalist = read_json(split / DATALIST)
    for file in ("model.json", "model_classifier.json"):
        told = {"dataset_sha256": datalist["dataset_sha256"], "split": "40:10:50", "split_seed": 0}
        write_json(folder / file, {**read_json(folder / file), **told})
    return folder


def test_each_choice_is_scored_on_the_test_part_and_beside_the_default(
    models: Path,
    split: Path,
    small_phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prices, "CHOICES", PLAIN)  # nothing is quantised here
    words = ["prices", "--segmenter", str(models / "model.pt"), "--classifier", str(models / "model_classifier.pt")]
    words += ["--prepared", str(split), "--dataset_dir", str(small_phantom), "--quick"]
    assert main([*words, "--predictions", str(tmp_path / "out"), "--output", str(tmp_path / "record.json")]) == 0
    content = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    first, other = content["runs"]
    scored = (tmp_path / "out" / "no-flip" / "per_image.csv").read_text(encoding="utf-8")
    test_part = [record["image"] for record in read_json(split / DATALIST)["test"]]
    assert sorted(line.split(",")[0] for line in scored.splitlines()[1:]) == sorted(test_part)
    assert content["settings"]["images"] == len(test_part)
    assert (first["name"], first["differences"], first["ratio"]) == ("default", {}, 1)
    assert other["computed_by"]["flip"] is False
    for score in ("dice", "auroc"):
        difference = other["differences"][score]
        assert difference["estimate"] == pytest.approx(other[score] - first[score], abs=1e-9)
        assert {"low", "high"} <= difference.keys()
    assert "--no-flip" in capsys.readouterr().out
    assert "images in" in prices_lines(content)[-1]


def test_weights_of_another_split_are_refused_since_they_may_have_seen_the_images(
    models: Path, split: Path, small_phantom: Path, tmp_path: Path
) -> None:
    card = models / "model_classifier.json"
    write_json(card, {**read_json(card), "split": "fold 1 of 5"})
    files: Any = (models / "model.pt", models / "model_classifier.pt", split, small_phantom, tmp_path / "out")
    with pytest.raises(UserError, match=r"the classifier was trained on split 'fold 1 of 5'.* may have seen"):
        measure_prices(*files)
    card.unlink()
    with pytest.raises(UserError, match="no weights with their card"):
        measure_prices(*files)


def test_several_datasets_are_read_under_their_names(small_phantom: Path, tmp_path: Path) -> None:
    other = shutil.copytree(small_phantom, tmp_path / "other")
    joined = tmp_path / "joined"
    joined.mkdir()
    folder = prices._join([small_phantom, other], joined)
    name = next(path.relative_to(other) for path in other.rglob("*).png"))
    assert (folder / "other" / name).read_bytes() == (folder / small_phantom.name / name).read_bytes()
    assert prices._join(other, joined) == other.resolve()


def test_the_choices_are_options_of_the_command_line() -> None:
    for choice in CHOICES[1:]:
        options = parse_predict(["image.png", *choice.name.split()])
        told = {"flip": options.flip, "int8": options.precision == "int8", "amp": options.precision == "bfloat16"}
        assert {key: value for key, value in told.items() if value != (key == "flip")} == dict(choice.options)
        assert options.small is choice.small
    assert {word for choice in CHOICES for word in choice.name.split()} >= set(PRECISIONS[1:])
