# SPDX-License-Identifier: Apache-2.0
"""What several tests share: the repository root, a small phantom, and running a command as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root, which is the bundle root."""
    return ROOT


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of 26 small non-square images."""
    from bundle.data.phantom import make_phantom

    folder = tmp_path_factory.mktemp("data") / "phantom"
    counts = {"benign": 12, "malignant": 10, "normal": 4}
    make_phantom(folder, counts=counts, size_range=((60, 80), (90, 120)))
    return folder


@pytest.fixture(scope="session")
def run_bundle() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m monai.bundle run …` in the repository root and return the finished process."""

    def run(*words: object, launcher: tuple[str, ...] = (), timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", *(launcher or ("-m",)), "monai.bundle", "run", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run
