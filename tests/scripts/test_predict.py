# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/predict.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from PIL import Image

from bundle.prediction import Predictor
from scripts.predict import _Lines, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def images(small_phantom: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "Ann" / "images"
    folder.mkdir(parents=True)
    for number in (1, 2):
        shutil.copy(small_phantom / "malignant" / f"malignant ({number}).png", folder / f"m{number}.png")
    return folder


@pytest.fixture
def common(tiny_models: Path, tmp_path: Path) -> list[str]:
    return ["--models", str(tiny_models), "--device", "cpu", "--output", str(tmp_path / "out")]


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "findings.json").read_text())


def test_a_folder_of_good_images_is_done_with_exit_code_0(
    images: Path, common: list[str], tmp_path: Path, tiny_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(images), *common]) == 0
    content = _read(tmp_path)
    predictor = Predictor.from_folder(tiny_models, "cpu", backend="auto")
    assert content["computed_by"] == predictor.computed_by
    for finding, name in zip(content["findings"], ("m1.png", "m2.png"), strict=True):
        assert finding["image"] == name
        assert finding["probability"] == pytest.approx(predictor.predict(images / name).probability, abs=1e-9)
        size = Image.open(images / name).size
        assert Image.open(tmp_path / "out" / "overlays" / name).size == size
        assert set(np.unique(np.asarray(Image.open(tmp_path / "out" / "masks" / name)))) <= {0, 255}
    assert content["skipped"] == []
    output = capsys.readouterr().out
    assert output.count("P(malignant)") == 2
    assert "not a medical device" in output


def test_predicting_imports_neither_monai_nor_what_draws_and_fits(images: Path, common: list[str]) -> None:
    """They would take twice as long as all the rest of one image."""
    code = "import json, sys; from scripts.predict import main; main(sys.argv[1:]); print(json.dumps([*sys.modules]))"
    words = [sys.executable, "-c", code, str(images / "m1.png"), *common]
    output = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    loaded = set(json.loads(output.splitlines()[-1]))
    assert "torch" in loaded
    heavy = {"monai", "ignite", "matplotlib", "sklearn", "kornia", "skimage", "pandas", "highdicom", "pydicom"}
    assert loaded & {*heavy, "nibabel", "scipy.signal", "scipy.stats", "scipy.optimize"} == set()


def test_a_bad_file_among_good_ones_is_named_and_the_others_are_done(
    images: Path, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.png").write_bytes((images / "m1.png").read_bytes()[:300])
    missing = tmp_path / "Ann" / "missing.png"
    assert main([str(images), str(missing), *common]) == 3
    content, text = _read(tmp_path), (tmp_path / "out" / "findings.json").read_text()
    assert [finding["image"] for finding in content["findings"]] == ["m1.png", "m2.png"]
    assert [bad["path"] for bad in content["skipped"]] == ["broken.png", "missing.png"]
    assert str(tmp_path) not in text
    assert "Ann" not in text
    errors = capsys.readouterr().err
    assert "broken.png: " in errors
    assert f"{missing}: no such file" in errors


def test_no_usable_file_ends_with_exit_code_2(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.png").touch()
    assert main([str(tmp_path / "empty.png"), *common]) == 2
    assert "no image could be used" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "folder").mkdir()
    assert main([str(tmp_path / "folder"), *common]) == 2
    assert "no readable image" in capsys.readouterr().err


def test_two_inputs_of_one_name_are_refused_instead_of_overwritten(
    images: Path, common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images, tmp_path / "other")
    assert main([str(images), str(tmp_path / "other" / "m2.png"), *common]) == 2
    assert "would both be written as m2.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([str(images), str(tmp_path / "other" / "m2.png"), *common[:-2]]) == 0  # nothing is written


@pytest.mark.parametrize("words", [["--device", "banana"], ["--models", "nowhere"]])
def test_a_wrong_device_or_folder_of_models_is_one_line(
    images: Path, common: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(images), *common, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words[1] in line


def test_it_runs_from_any_folder_and_writes_nothing_unasked(
    images: Path, tiny_models: Path, tmp_path: Path, root: Path
) -> None:
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    words = (root / "scripts" / "predict.py", images / "m1.png", "--models", tiny_models)
    command = [sys.executable, *map(str, words)]
    done = warm.run(command, empty, {**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "P(malignant)" in done.stdout
    assert not list(empty.iterdir())


def test_explain_draws_a_heat_map_of_each_image(images: Path, common: list[str], tmp_path: Path) -> None:
    assert main([str(images), *common, "--explain"]) == 0
    for name in ("m1.png", "m2.png"):
        explanation = Image.open(tmp_path / "out" / "explanations" / name)
        assert explanation.mode == "RGB"
        assert explanation.size == Image.open(images / name).size
    assert "explanation" not in _read(tmp_path)["findings"][0]


def test_nothing_is_explained_unasked(images: Path, common: list[str], tmp_path: Path) -> None:
    assert main([str(images), *common]) == 0
    assert not (tmp_path / "out" / "explanations").exists()


def test_explain_without_a_folder_to_draw_to_is_refused(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([str(images), "--explain"])
    assert leaving.value.code == 2
    assert "--output DIR" in capsys.readouterr().err


def test_an_output_among_the_images_is_refused(
    images: Path, common: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(images), *common, "--output", str(images / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lies inside" in line
    assert not (images / "out").exists()


def test_lines_above_the_bar_keep_their_order_and_streams_and_none_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with _Lines() as lines:
        for number in range(6):
            lines.add(f"line {number}", sys.stderr if number == 3 else sys.stdout)
            assert number or "line 0" in capsys.readouterr().out  # the first at once
    shown = capsys.readouterr()
    assert shown.out.split("\n") == ["line 1", "line 2", "line 4", "line 5", ""]
    assert shown.err.split("\n") == ["line 3", ""]
