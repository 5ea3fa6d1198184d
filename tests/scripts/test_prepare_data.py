# SPDX-License-Identifier: Apache-2.0
"""Claims about the command line scripts/prepare_data.py."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import warm
from monai.bundle import ConfigParser

from bundle.data.phantom import make_phantom
from bundle.data.prepare import ensure_prepared
from bundle.data.splits import PARTS
from scripts import prepare_data
from scripts.prepare_data import main

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_data.py"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_phantom(tmp_path / "set", counts={"benign": 6, "malignant": 5, "normal": 3}, size_range=((48, 50), (48, 50)))
    return tmp_path / "set"


def test_command_runs_from_any_folder_and_prints_counts(dataset: Path, tmp_path: Path) -> None:
    result = warm.run([sys.executable, str(SCRIPT), str(dataset), "--output", "out"], tmp_path, os.environ)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["training", "validation", "test", "all"]
    assert lines[1][0] == "benign"
    assert lines[1][-1] == "6"
    assert (tmp_path / "out/datalist_segmentation.json").is_file()


def test_choices_are_kept_where_the_configs_look_and_a_run_says_so(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prepare_data, "ROOT", tmp_path)
    for name in ("", "_mask"):
        shutil.copy(dataset / f"benign/benign (1){name}.png", dataset / f"malignant/copy{name}.png")
    argv = [str(dataset), "--split", "2:1:1", "--seed", "3", "--conflicts", "drop", "--leave-out", "marks", "doppler"]
    assert main(argv) == 0
    parser = ConfigParser(json.loads((SCRIPT.parents[1] / "configs/train.json").read_text()))
    parser["bundle_root"], parser["dataset_dir"] = str(tmp_path), str(dataset)
    parser["split"], parser["split_seed"] = "2:1:1", 3
    datalist = parser.get_parsed_content("datalist")
    images = {record["image"] for part in PARTS for record in datalist[part]}
    assert str(dataset / "malignant/copy.png") not in images
    (told,) = (record.getMessage() for record in caplog.records if "was prepared with" in record.getMessage())
    assert "--conflicts drop, --leave-out doppler marks: this run leaves out 2 images" in told


def test_groups_come_from_a_table_or_from_a_prepared_folder_not_both(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(dataset), "--split", "2:1:1", "--output"]
    assert main([*argv, str(tmp_path / "first")]) == 0
    table = str(tmp_path / "first/groups.csv")
    assert main([*argv, str(tmp_path / "second"), "--groups", table]) == 0
    lists = [(tmp_path / name / "datalist_segmentation.json").read_bytes() for name in ("first", "second")]
    assert lists[0] == lists[1]
    with pytest.raises(SystemExit) as caught:
        main([*argv, str(tmp_path / "third"), "--groups", table, "--like", str(tmp_path / "first")])
    assert caught.value.code == 2
    assert "give it or --groups" in capsys.readouterr().err
    assert main([*argv, str(tmp_path / "third"), "--groups", str(tmp_path / "none.csv")]) == 2
    assert "none.csv: cannot be read" in capsys.readouterr().err


def test_a_run_over_all_images_has_nothing_to_say(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        ensure_prepared(dataset, dataset.parent / "out", split="2:1:1", seed=0)
    assert not caplog.records


def test_options_reach_the_files(dataset: Path, tmp_path: Path) -> None:
    argv = [str(dataset), "--output", str(tmp_path / "out"), "--split", "2:1:1", "--folds", "2", "--seed", "5"]
    assert main(argv) == 0
    datalist = json.loads((tmp_path / "out/datalist_segmentation.json").read_text())
    assert (datalist["split"], datalist["seed"]) == ("2:1:1", 5)
    assert (tmp_path / "out/datalist_segmentation_fold1.json").is_file()


def test_bad_file_gives_exit_code_2_and_skip_bad_goes_on(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "benign/benign (2).png").write_bytes(b"")
    argv = [str(dataset), "--output", str(tmp_path / "out"), "--split", "2:1:1"]
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert "benign (2).png: the file is empty" in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()
    assert main([*argv, "--skip-bad"]) == 0
    assert "1 images were left out" in capsys.readouterr().out


@pytest.mark.parametrize("extra", [["--split", "1:2"], ["--folds", "1"], ["--folds", "99"]])
def test_bad_option_gives_one_line_and_exit_code_2(
    dataset: Path, tmp_path: Path, extra: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(dataset), "--output", str(tmp_path / "out"), *extra]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_classifiers_datalist_is_made_of_ground_truth_only_in_a_folder_named_oracle(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(dataset), "--output", str(tmp_path / "prepared"), "--split", "1:1:8"]) == 0
    words = [str(dataset), "--classifier", "--segmentation_dir", str(tmp_path / "run"), "--split", "1:1:1"]
    words += ["--prepared_dir", str(tmp_path / "prepared"), "--masks", "oracle", "--output"]
    assert main([*words, str(tmp_path / "run")]) == 2
    assert "oracle" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "oracle")]) == 0
    assert "training: " in capsys.readouterr().out
    datalist = json.loads((tmp_path / "oracle/datalist_classifier.json").read_text())
    assert (datalist["masks"], datalist["split"]) == ("oracle", "1:1:1")


def test_the_classifiers_datalist_needs_to_know_its_segmenter(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(dataset), "--classifier"])
    assert stopped.value.code == 2
    assert "needs --output, --segmentation_dir and --prepared_dir" in capsys.readouterr().err


def test_several_datasets_are_prepared_together_and_split_again_without_reading(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    make_phantom(other, counts={"benign": 5, "malignant": 5}, seed=1, size_range=((48, 50), (48, 50)))
    assert main([str(dataset), str(other), "--output", str(tmp_path / "both"), "--split", "2:1:1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "11"
    words = ["--like", str(tmp_path / "both"), "--output", str(tmp_path / "left"), "--split", "leave out other"]
    assert main([str(dataset), str(other), *words]) == 0
    datalist = json.loads((tmp_path / "left/datalist_segmentation.json").read_text())
    assert {record["dataset"] for record in datalist["test"]} == {"other"}
    assert main([str(dataset), str(other), *words[:-1], "leave out nobody"]) == 2
    assert "here: other, set" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["fold 7 of 5", "80:20", "fold 0 of 1"])
def test_an_impossible_split_is_one_line_without_an_output_too(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--split", split]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: split '{split}'")
