# SPDX-License-Identifier: Apache-2.0
"""Pack what a model zoo hosts into one zip of the same bytes everywhere, and try it where nothing else is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.data.phantom import make_phantom
from bundle.errors import UserError
from bundle.files import read_json, write_atomically

WANTED = ("bundle", "configs", "docs", "models", "scripts")
FILES = (
    *("LICENSE", "docs/README.md", "docs/data_license.txt"),
    *(
        "requirements.txt",
        "requirements-backends.txt",
        "requirements-export.txt",
        "requirements-hub.txt",
        "requirements-tracking.txt",
    ),
)
MAX_BYTES = 25_000_000
"""A zoo takes no larger file without an entry in large_files.yml."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PASSED_OVER = ("__pycache__", ".pyc", ".tmp", ".lock", "models/versions/")  # former weights stay at home


def list_files(root: str | os.PathLike[str]) -> list[str]:
    """The files of a package, relative to the bundle's root, sorted.

    Raises:
        UserError: one is missing or too large.
    """
    folder = Path(root)
    paths = [path for name in WANTED for path in (folder / name).rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix() for path in paths} | set(FILES)
    names = sorted(name for name in found if not any(part in name for part in _PASSED_OVER))
    for name in (*names, "models/model.pt", "models/model_classifier.pt", "configs/metadata.json"):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing, but a zoo needs it")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size / 1e6:.1f} MB, but a zoo takes {MAX_BYTES / 1e6:.0f} MB")
    return names


def write_package(root: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> Path:
    """Write ``<name>_v<version>.zip``, whose only folder is the bundle's name; equal files give equal bytes.

    Raises:
        UserError: as `list_files`.
    """
    folder = Path(root)
    names = list_files(folder)
    metadata = read_json(folder / "configs" / "metadata.json")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{metadata['name']}/{name}", _EPOCH)
            entry.external_attr, entry.create_system = 0o644 << 16, 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (folder / name).read_bytes(), compresslevel=9)
    target = Path(output_dir) / f"{metadata['name']}_v{metadata['version']}.zip"
    write_atomically(target, buffer.getvalue())
    return target


def make_environment(metadata: Mapping[str, Any], folder: str | os.PathLike[str]) -> str:
    """Make a virtual environment that holds what the metadata pin and nothing else; returns its Python.

    PyTorch is installed first, from where pip is configured to look, so that nothing else chooses its build.

    Args:
        metadata: of the bundle, with the versions of MONAI, PyTorch and NumPy, and ``required_packages_version``.
        folder: for the environment; a former one there is cleared.

    Raises:
        UserError: a package can not be installed; the message ends with pip's last line.
    """
    python = str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python")
    pins = {"monai": metadata["monai_version"], "numpy": metadata["numpy_version"]}
    pins |= metadata["required_packages_version"]
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, f"torch=={metadata['pytorch_version']}"],
        [*pip, *(f"{package}=={version}" for package, version in pins.items())],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            lines = (ended.stderr or ended.stdout).strip().splitlines()
            raise UserError(f"{folder}: no environment from the metadata's pins: {lines[-1] if lines else command}")
    return python


def try_package(package: str | os.PathLike[str], python: str = sys.executable) -> int:
    """Unpack a package elsewhere and run its pipeline on a synthetic phantom there; returns the number of findings.

    Args:
        package: the zip.
        python: of the environment to try it in.

    Raises:
        UserError: the pipeline failed; the message ends with its last line.
    """
    with tempfile.TemporaryDirectory(prefix="package-") as name:
        place = Path(name)
        with zipfile.ZipFile(package) as archive:
            archive.extractall(place)  # our own archive, written a moment ago
        (unpacked,) = place.iterdir()
        make_phantom(place / "images", counts={"benign": 2, "malignant": 1}, size_range=((60, 70), (80, 90)))
        words = ["--config_file", "configs/inference_pipeline.json", "--dataset_dir", str(place / "images")]
        words += ["--output_dir", str(place / "out")]
        ended = subprocess.run(
            [python, "-W", "ignore", "-m", "monai.bundle", "run", *words],
            cwd=unpacked,
            env={**os.environ, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        result = place / "out" / "findings.json"
        if ended.returncode or not result.is_file():
            lines = (ended.stderr or ended.stdout).strip().splitlines()
            raise UserError(f"{package}: does not run on its own: {lines[-1] if lines else ended.returncode}")
        return len(read_json(result)["findings"])
