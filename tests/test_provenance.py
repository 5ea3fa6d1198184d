# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.provenance."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bundle import provenance
from bundle.provenance import commit_of, describe_run


def _command(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", list(words))
    return describe_run()["command"]


def test_a_run_is_described_by_what_repeating_it_needs() -> None:
    run = describe_run()
    assert set(run) == {"command", "time", "bundle_version", "commit", "python", "packages", "device"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run["time"])
    assert all(run["packages"].values())
    assert json.loads(json.dumps(run)) == run


@pytest.mark.parametrize(
    "words",
    [
        ("/home/ann/bundle/scripts/report.py", "--dataset_dir", "/home/ann/study"),
        ("report.py", "--dataset_dir=/home/ann/study"),
        ("report.py", "--config_file", "['configs/train.json','/home/ann/study/more.yaml']"),
        ("report.py", "--config_file=['/home/ann/a.json', '/home/ann/b c.json']"),
        ("report.py", "--files", "a.png,/home/ann/b.png"),
    ],
)
def test_folders_of_the_machine_are_not_told(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    command = _command(monkeypatch, *words)
    assert command.startswith("python report.py")
    assert "ann" not in command.replace("more.yaml", "")
    assert "home" not in command


def test_the_last_part_of_a_path_and_all_other_words_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--config_file", "['configs/train.json','/x/more.yaml']", "--split", "70:10:20", "--train#lr", "1e-3/2"]
    expected = """--config_file "['configs/train.json','more.yaml']" --split 70:10:20 "--train#lr" 1e-3/2"""
    assert _command(monkeypatch, "report.py", *words) == f"python report.py {expected}"


@pytest.mark.parametrize(
    "words",
    [["--split", "fold 0 of 5"], ["--dataset_dir", "['A','B']"], ["--title", """Ann's "$5" set"""], ["--x", ""]],
)
def test_the_command_means_the_same_to_a_shell(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    assert shlex.split(_command(monkeypatch, "report.py", *words)) == ["python", "report.py", *words]


def test_the_bundles_own_files_are_named_from_its_root(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    words = [str(root / "scripts" / "run.py"), str(root / "configs" / "train.json"), str(root / "data" / "ann")]
    assert _command(monkeypatch, *words) == "python scripts/run.py configs/train.json ann"
    monkeypatch.chdir(root / "scripts")
    assert _command(monkeypatch, "run.py") == "python scripts/run.py"


def test_a_module_is_named_as_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    command = _command(monkeypatch, "/usr/lib/python3/monai/bundle/__main__.py", "run", "training")
    assert command == "python -m monai.bundle run training"


def _git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code, no git checkout yet."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "provenance.py").write_text("")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def test_the_commit_tells_whether_files_were_changed(checkout: Path) -> None:
    _git(checkout, "init", "--quiet")
    _git(checkout, "add", ".")
    _git(checkout, "commit", "--quiet", "-m", "first")
    commit = _git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout) == commit
    (checkout / "untracked").write_text("")
    assert commit_of(checkout) == commit
    (checkout / "bundle" / "provenance.py").write_text("changed")
    assert commit_of(checkout) == commit + "+changes"


def test_a_run_names_the_code_it_loaded_not_what_lies_there_when_it_ends(root: Path) -> None:
    program = (
        "import subprocess, bundle.provenance as p; before = p.describe_run()['commit']; "
        "p.commit_of = lambda root: 'later'; assert p.describe_run()['commit'] == before; print(before)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(commit_of(root))


def test_outside_a_checkout_or_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(checkout) is None
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout) is None


def test_a_package_that_is_not_installed_is_recorded_as_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "surely-not-installed"))
    assert describe_run()["packages"]["surely-not-installed"] is None
