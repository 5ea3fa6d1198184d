# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from: enough to repeat it, nothing that tells of the machine's folders."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bundle import __version__

PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "kornia")


def describe_run() -> dict[str, Any]:
    """Record the command, the time, the code's commit, the versions and the processor of this run."""
    return {
        "command": _command(),
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bundle_version": __version__,
        "commit": _COMMIT,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": _device(),
    }


def _command() -> str:
    """The command line as a shell takes it."""
    program = _shorten(sys.argv[0]) if sys.argv else ""
    if program == "__main__.py":
        program = f"-m {'.'.join(Path(sys.argv[0]).parent.parts[-2:])}"
    return " ".join(["python", program, *(_quote(_without_folders(word)) for word in sys.argv[1:])])


def _quote(word: str) -> str:
    """Quote a word for a shell; by double quotes where they do, since lists of names have single ones inside."""
    quoted = shlex.quote(word)
    return quoted if quoted == word or set(word) & set('"$`\\!') else f'"{word}"'


def _without_folders(word: str) -> str:
    """Shorten absolute paths: results are published, and folders can name people."""
    option, equals, value = word.partition("=")
    if equals and os.path.isabs(value):
        return f"{option}={_shorten(value)}"
    if os.path.isabs(word):
        return _shorten(word)
    # Inside a list, as in --config_file "['configs/train.json','/home/ann/more.yaml']".
    return re.sub(r"(?<=[\['\",\s])/[^'\",\]]+", lambda path: _shorten(path[0]), word)


def _shorten(path: str) -> str:
    """The bundle's own files from its root, so that the command can be repeated there; of others the last part."""
    whole = Path(os.path.abspath(path))
    inside = any(whole.is_relative_to(_ROOT / folder) for folder in _PUBLIC)
    return whole.relative_to(_ROOT).as_posix() if inside else Path(path).name


def commit_of(root: Path) -> str | None:
    """The commit of a checkout, with ``+changes`` when files differ from it; None outside a git checkout."""
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_ROOT = Path(__file__).resolve().parents[1]
_PUBLIC = ("configs", "models", "scripts")  # of the bundle's folders, those that hold no one's data

# Taken when the code is loaded: a long run shall name the code that it runs, not what lies there when it ends.
_COMMIT = commit_of(_ROOT)
