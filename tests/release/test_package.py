# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.release.package and scripts/package.py."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from bundle.errors import UserError
from bundle.release.package import FILES, MAX_BYTES, list_files, make_environment, try_package, write_package
from scripts import package as script


@pytest.fixture
def bundle_root(root: Path, tmp_path: Path, write_models: Callable[..., Path]) -> Path:
    """A copy of the bundle with small weights; tests may spoil it."""
    folder = tmp_path / "root.tmp"
    for name in ("bundle", "configs", "scripts"):
        copytree(root / name, folder / name, ignore=ignore_patterns("__pycache__"))
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((root / name).read_bytes())
    write_models(folder / "models")
    return folder


def test_equal_files_give_equal_bytes_and_nothing_else_is_packed(bundle_root: Path, tmp_path: Path) -> None:
    first = write_package(bundle_root, tmp_path / "a")
    for path in bundle_root.rglob("*"):
        os.utime(path, (1, 1))
    (bundle_root / "bundle" / "__pycache__").mkdir()
    (bundle_root / "bundle" / "__pycache__" / "x.pyc").write_bytes(b"x")
    for name in ("runs/secret.png", "models/versions/model-0.pt", "configs/train.json.tmp"):
        (bundle_root / name).parent.mkdir(exist_ok=True)
        (bundle_root / name).write_bytes(b"x")
    second = write_package(bundle_root, tmp_path / "b")
    assert first.name == "breast_ultrasound_segmentation_classification_v0.1.0.zip"
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(second) as archive:
        names = archive.namelist()
    assert all(name.startswith("breast_ultrasound_segmentation_classification/") for name in names)
    inside = [name.partition("/")[2] for name in names]
    assert inside == list_files(bundle_root)
    assert {"configs/inference.json", "models/model.pt", "docs/README.md", "LICENSE"} <= set(inside)
    folders = {name.partition("/")[0] for name in inside if "/" in name}
    assert folders == {"bundle", "configs", "docs", "models", "scripts"}
    assert {name for name in inside if "/" not in name} == {name for name in FILES if "/" not in name}


def test_the_package_runs_where_nothing_else_is(bundle_root: Path, tmp_path: Path) -> None:
    assert try_package(write_package(bundle_root, tmp_path)) == 3


def test_a_package_that_does_not_run_is_refused_with_its_reason(bundle_root: Path, tmp_path: Path) -> None:
    card = bundle_root / "models" / "model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "sha256": "0" * 64}))
    with pytest.raises(UserError, match=r"does not run on its own: .*sha256"):
        try_package(write_package(bundle_root, tmp_path))


def test_missing_and_too_large_files_are_named(bundle_root: Path) -> None:
    with open(bundle_root / "models" / "model.pt", "r+b") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match=r"model.pt: 25.0 MB, but a zoo takes 25 MB"):
        list_files(bundle_root)
    (bundle_root / "models" / "model.pt").unlink()
    with pytest.raises(UserError, match="missing, but a zoo needs it"):
        list_files(bundle_root)


def test_a_fresh_environment_gets_the_pins_alone_and_pytorch_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, int("monai==1" in command), "", "noise\nERROR: no monai==1")

    monkeypatch.setattr(subprocess, "run", run)
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    python = make_environment(metadata, tmp_path)
    assert Path(python).parts[:-2] == tmp_path.parts
    assert [words[1:3] for words in commands] == [["-m", "venv"], ["-m", "pip"], ["-m", "pip"]]
    assert {words[0] for words in commands[1:]} == {python}
    pins = [word for words in commands for word in words if "==" in word]
    assert pins[0] == f"torch=={metadata['pytorch_version']}"
    assert set(pins) == {line for line in (root / "requirements.txt").read_text().splitlines() if "==" in line}
    with pytest.raises(UserError, match=r"no environment from the metadata's pins: ERROR: no monai==1$"):
        make_environment({**metadata, "monai_version": "1"}, tmp_path)


@pytest.mark.slow
def test_the_bundle_itself_is_packed_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--output", str(tmp_path)]) == 0
    assert "found the lesions of 3 synthetic images" in capsys.readouterr().out
