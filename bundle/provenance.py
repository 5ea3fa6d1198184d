# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from: enough to repeat it, nothing that tells of the machine's folders."""

from __future__ import annotations

import os
import platform
import re
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
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program == "__main__.py":
        program = f"-m {'.'.join(Path(sys.argv[0]).parent.parts[-2:])}"
    return " ".join(["python", program, *(_without_folders(word) for word in sys.argv[1:])])


def _without_folders(word: str) -> str:
    """Shorten absolute paths to their last part: results are published, and folders can name people."""
    option, equals, value = word.partition("=")
    if equals and os.path.isabs(value):
        return f"{option}={Path(value).name}"
    if os.path.isabs(word):
        return Path(word).name
    # Inside a list, as in --config_file "['configs/train.json','/home/ann/more.yaml']".
    return re.sub(r"(?<=[\['\",\s])/[^'\",\]]+", lambda path: Path(path[0]).name, word)


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


# Taken when the code is loaded: a long run shall name the code that it runs, not what lies there when it ends.
_COMMIT = commit_of(Path(__file__).resolve().parents[1])
