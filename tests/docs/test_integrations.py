# SPDX-License-Identifier: Apache-2.0
"""Every block of docs/integrations.md is pasted and run, from a folder that is not the bundle's."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from pasted import Block, blocks_in, check_block, run_block

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
CONSUMERS = [
    *("Python", "monai.bundle from Python", "monai.bundle from a shell", "MONAI Label", "Model zoo"),
    *("Federated learning", "MLflow", "ONNX Runtime", "TorchScript", "safetensors", "TensorRT", "Hugging Face hub"),
]
NEEDS = {"MLflow": "mlflow"}


def _sections() -> dict[str, list[Block]]:
    """Heading -> its blocks as (language, text, whether it is to be run)."""
    sections: dict[str, list[Block]] = {}
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        sections[heading] = blocks_in(text)
    return sections


SECTIONS = _sections()


def test_the_page_has_a_section_for_every_consumer() -> None:
    assert list(SECTIONS)[1:] == CONSUMERS
    assert all(SECTIONS[name] for name in CONSUMERS if name != "MONAI Label")


@pytest.mark.parametrize("heading", CONSUMERS)
def test_blocks_are_of_the_language_that_they_name(heading: str) -> None:
    for language, code, _ in SECTIONS[heading]:
        check_block(language, code, heading)


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
    for language, code, wanted in SECTIONS[heading]:
        if wanted:
            run_block(language, code, place, root, IMAGES=str(images))
