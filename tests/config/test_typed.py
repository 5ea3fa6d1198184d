# SPDX-License-Identifier: Apache-2.0
"""Claims about what was typed: Fire makes numbers and tuples of it, MONAI makes `::` of `#`; a path stays a path."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import monai.bundle
import pytest
from fire.parser import DefaultParseValue

from bundle.config import guard
from bundle.config.typed import resolve_paths, text_values, typed_overrides
from bundle.errors import UserError

SEEN: dict[str, Any] = {}


def look(**values: Any) -> None:
    """What the config below runs last."""
    SEEN.update(values)


CONFIG = {
    "imports": ["$import os"],
    "dataset_dir": "$os.path.join('data', 'phantom')",
    "dataset_name": "$os.path.basename(os.path.abspath(@dataset_dir))",
    "output_dir": "$'runs/' + @dataset_name",
    "max_epochs": 3,
    "publish": False,
    "filters": [16, 32],
    "learning_rate": 0.002,
    "initialize": [],
    "run": [
        {"_target_": "bundle.config.refuse_unknown_ids"},
        {
            "_target_": f"{__name__}.look",
            **{name: f"@{name}" for name in ("dataset_dir", "output_dir", "dataset_name", "max_epochs", "publish")},
        },
    ],
    "finalize": [],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the config as `python -m monai.bundle run` does with these words, in this process; returns what it saw."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.json").write_text(json.dumps(CONFIG))
    monkeypatch.setattr(guard, "_is_monai_command_line", lambda: True)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(**typed: str) -> dict[str, Any]:
        words = [word for id_, value in typed.items() for word in (f"--{id_}", value)]
        monkeypatch.setattr(sys, "argv", ["monai", "run", *words])
        SEEN.clear()
        values = {id_: DefaultParseValue(value) for id_, value in typed.items()}
        monai.bundle.run(config_file=str(tmp_path / "configs/a.json"), logging_file=False, **values)
        return dict(SEEN)

    return call


@pytest.mark.parametrize(
    "path",
    [
        "2024",
        "7",
        "1e5",
        "1_000",
        "0x10",
        "a,b",
        "2024-11",
        "x#1",
        "#1",
        "/data/set #2",
        "True",
        "...",
        "{a}",
        "2024,7",
    ],
)
def test_a_path_is_taken_as_it_was_typed(run: Any, path: str) -> None:
    seen = run(dataset_dir=path, output_dir=path)
    assert (seen["dataset_dir"], seen["output_dir"]) == (path, path)
    assert seen["dataset_name"] == os.path.basename(path)


def test_a_bracketed_literal_is_a_list_of_paths(run: Any) -> None:
    assert run(dataset_dir="['A', '/b#1/B,c']", dataset_name="x")["dataset_dir"] == ["A", "/b#1/B,c"]


def test_what_is_no_path_means_what_it_did(run: Any) -> None:
    seen = run(max_epochs="7", output_dir="$'runs' + '/' + @dataset_name", dataset_dir="'2024'")
    assert {key: value for key, value in seen.items() if key != "publish"} == {
        **{"max_epochs": 7, "output_dir": "runs/2024", "dataset_dir": "2024", "dataset_name": "2024"}
    }


def test_a_whole_number_may_be_written_as_a_float(run: Any) -> None:
    seen = run(max_epochs="1e3", dataset_dir="x", output_dir="y")
    assert (seen["max_epochs"], type(seen["max_epochs"])) == (1000, int)


@pytest.mark.parametrize("text", ["2.5", "one", "0", "True", "1,000", "inf", "nan"])
def test_what_is_no_whole_number_is_refused_in_one_line(run: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        run(max_epochs=text, dataset_dir="x", output_dir="y")
    assert "give a whole number from 1" in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("text", "flag"),
    [*((text, False) for text in ("false", "False", "FALSE", "'False'", "0")), ("true", True), ("1", True)],
)
def test_false_is_never_true_however_it_is_written(run: Any, text: str, flag: bool) -> None:
    assert run(publish=text, dataset_dir="x", output_dir="y")["publish"] is flag


@pytest.mark.parametrize(
    ("id_", "text", "wanted"),
    [("filters", "4", "a list"), ("learning_rate", "0,002", "above 0"), ("learning_rate", "-1.0", "above 0")],
)
def test_what_is_no_list_or_no_number_is_refused_in_one_line(run: Any, id_: str, text: str, wanted: str) -> None:
    with pytest.raises(RuntimeError) as error:
        run(**{id_: text}, dataset_dir="x", output_dir="y")
    assert wanted in str(error.value.__cause__)


@pytest.mark.parametrize("text", ["no", "off", "2", "None of these"])
def test_what_is_neither_true_nor_false_is_refused_in_one_line(run: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        run(publish=text, dataset_dir="x", output_dir="y")
    assert "--publish " in str(error.value.__cause__)
    assert "give true or false" in str(error.value.__cause__)


@pytest.mark.parametrize("text", ["[2024, 7]", "[]", "(1, 2)"])
def test_a_list_of_something_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="list of quoted ones"):
        text_values({"dataset_dir": text})


def test_an_override_without_its_value_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="--output_dir: give a value"):
        text_values(typed_overrides(["run", "--output_dir", "--max_epochs", "3"]))


def test_words_are_paired_as_fire_does() -> None:
    words = ["run", "training", "--a=1=2", "--dataset-dir", "-3", "-b", "x", "--flag"]
    assert typed_overrides(words) == {"a": "1=2", "dataset_dir": "-3", "b": "x", "flag": None}


def test_relative_paths_are_those_of_the_caller_s_folder() -> None:
    words = ["--dataset_dir", "2024", "--max_epochs", "3", "--output_dir=a,b", "--segmenter", "None"]
    words += ["--weights", "$@output_dir + '/model.pt'", "--prepared_dir", "/x/y", "--init", "['a', '../b']"]
    assert resolve_paths(words, Path("/caller/here")) == [
        *("--dataset_dir", "/caller/here/2024", "--max_epochs", "3", "--output_dir=/caller/here/a,b"),
        *("--segmenter", "None", "--weights", "$@output_dir + '/model.pt'", "--prepared_dir", "/x/y"),
        *("--init", "['/caller/here/a', '/caller/b']"),
    ]


def test_scripts_hand_paths_over_as_those_of_the_caller_s_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    from scripts import run as script

    commands: list[list[str]] = []

    def record(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=record))
    monkeypatch.chdir(tmp_path)
    assert script.main([str(root / "configs/train.json"), "--dataset_dir", "set#1", "--output_dir", "7"]) == 0
    assert commands[0][-4:] == ["--dataset_dir", str(tmp_path / "set#1"), "--output_dir", str(tmp_path / "7")]
