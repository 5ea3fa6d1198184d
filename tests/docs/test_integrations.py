# SPDX-License-Identifier: Apache-2.0
"""Every block of docs/integrations.md is pasted and run, from a folder that is not the bundle's."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
CONSUMERS = [
    *("Python", "monai.bundle from Python", "monai.bundle from a shell", "MONAI Label", "Model zoo"),
    *("Federated learning", "MLflow", "ONNX Runtime", "TorchScript", "safetensors", "TensorRT", "Hugging Face hub"),
]
NEEDS = {"MLflow": "mlflow"}
Block = tuple[str, str, bool]


def _sections() -> dict[str, list[Block]]:
    """Heading -> its blocks as (language, text, whether it is to be run)."""
    sections: dict[str, list[Block]] = {}
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        found = re.findall(r"(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
        sections[heading] = [(language, code, not comment) for comment, language, code in found]
    return sections


SECTIONS = _sections()


def test_the_page_has_a_section_for_every_consumer() -> None:
    assert list(SECTIONS)[1:] == CONSUMERS
    assert all(SECTIONS[name] for name in CONSUMERS if name != "MONAI Label")


@pytest.mark.parametrize("heading", CONSUMERS)
def test_blocks_are_of_the_language_that_they_name(heading: str) -> None:
    for language, code, _ in SECTIONS[heading]:
        if language == "python":
            compile(code, heading, "exec")
        else:
            assert language == "sh"
            assert subprocess.run(["bash", "-n"], input=code, text=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("heading", [name for name in CONSUMERS if any(run for _, _, run in SECTIONS[name])])
def test_a_pasted_section_runs(heading: str, root: Path, small_phantom: Path, tmp_path: Path) -> None:
    needed = NEEDS.get(heading)
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    images, place = tmp_path / "images", tmp_path / "place"
    images.mkdir()
    place.mkdir()
    for path in sorted((small_phantom / "benign").glob("benign ([1-4]).png")):
        shutil.copy(path, images)
    environment = {
        **{key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
        **{"BUNDLE": str(root), "IMAGES": str(images), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for language, code, wanted in SECTIONS[heading]:
        if wanted:
            (place / "block").write_text(code)
            command = [sys.executable, "block"] if language == "python" else ["bash", "-e", "block"]
            done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
