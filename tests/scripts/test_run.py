# SPDX-License-Identifier: Apache-2.0
"""scripts/run.py: what is wrong is named before anything runs; what is right is handed to monai.bundle."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from bundle.config import find_config
from scripts import run


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[list[str]]:
    """The commands that would have been run, from the repository root."""
    seen: list[list[str]] = []

    def record(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.chdir(root)
    monkeypatch.setattr(run, "subprocess", SimpleNamespace(run=record))
    return seen


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["configs/trian.json"], "train.json"),
        (["configs/train.json", "--max_epoch", "3"], "max_epochs"),
        (["configs/train.json", "--train#trainer#max_epoch", "3"], "max_epochs"),
        (["configs/train.json", "configs/paper_segmentation.yaml", "--rwo", "2"], "row"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(
    words: list[str], nearest: str, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(words) == 2
    error = capsys.readouterr().err
    assert nearest in error
    assert len(error.splitlines()) == 1
    assert not commands


def test_an_override_without_a_value_is_refused(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["configs/train.json", "--max_epochs"]) == 2
    assert "--id value" in capsys.readouterr().err
    assert not commands


def test_a_right_command_is_handed_over_with_its_exit_code(commands: list[list[str]], root: Path) -> None:
    overlay = ["configs/train.json", "configs/paper_segmentation.yaml", "--row", "2", "--max_epochs", "3"]
    assert run.main(overlay) == 7
    (command,) = commands
    assert command[1:6] == ["-W", "ignore", "-m", "monai.bundle", "run"]
    assert command[-4:] == ["--row", "2", "--max_epochs", "3"]
    assert str(root / "configs" / "paper_segmentation.yaml") in command[7]


def test_the_bundles_own_configs_are_found_from_any_folder(
    commands: list[list[str]], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.main(["configs/train.json", "--max_epochs", "3"]) == 7
    assert commands[0][7] == str(root / "configs" / "train.json")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text("{}")
    assert find_config(Path("configs/train.json"), root) == Path("configs/train.json")


def test_an_override_that_replaces_the_last_use_of_an_id_is_no_mistake(commands: list[list[str]]) -> None:
    assert run.main(["configs/train.json", "--output_dir", "runs/x", "--max_epochs", "3"]) == 7
    assert len(commands) == 1
