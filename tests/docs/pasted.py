# SPDX-License-Identifier: Apache-2.0
"""The blocks of a page, and running one as a reader would who pastes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import warm

Block = tuple[str, str, bool]
"""Language, text, and whether it is to be run: not below `<!-- not run: reason -->`."""


def blocks_in(text: str) -> list[Block]:
    """The fenced blocks of a page or of a part of it, in order."""
    found = re.findall(r"(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [(language, code, not comment) for comment, language, code in found]


def check_block(language: str, code: str, where: str) -> None:
    """Raise what is wrong with a block's syntax."""
    if language == "python":
        compile(code, where, "exec")
    else:
        assert language == "sh"
        assert subprocess.run(["bash", "-n"], input=code, text=True, check=False).returncode == 0


def run_block(language: str, code: str, place: Path, bundle: Path, **variables: str) -> str:
    """Run a block in a folder with the variables that the pages name; return what it printed."""
    with tempfile.TemporaryDirectory() as folder, warm.python_in(Path(folder)):
        path = os.pathsep.join((folder, str(Path(sys.executable).parent), os.environ["PATH"]))
        return _run_block(language, code, place, bundle, path, variables)


def _run_block(language: str, code: str, place: Path, bundle: Path, path: str, variables: dict[str, str]) -> str:
    environment = {
        **{key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        **{"BUNDLE": str(bundle), "PYTHONPATH": str(bundle), "OMP_NUM_THREADS": "1"},
        "PATH": path,
        **variables,
    }
    (place / "block").write_text(code)
    command = ["python", "block"] if language == "python" else ["bash", "-e", "block"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    (place / "block").unlink()
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
