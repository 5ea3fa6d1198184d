# SPDX-License-Identifier: Apache-2.0
"""What of ``configs/metadata.json`` is generated: the scores of the shipped weights, and the packages that it pins."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.evaluation.scores import classification_scores, segmentation_scores

FILE = Path("configs", "metadata.json")
DIGITS = 4
_OWN_KEYS = {"torch": "pytorch_version", "monai": "monai_version", "numpy": "numpy_version"}


def read_pins(requirements: str | os.PathLike[str]) -> dict[str, str]:
    """Return package -> version of a requirements file, in its order.

    Raises:
        InputError: a line does not pin a version with ``==``.
    """
    pins = {}
    for line in Path(requirements).read_text(encoding="utf-8").splitlines():
        wanted = line.partition("#")[0].strip()
        if wanted:
            package, equals, version = (part.strip() for part in wanted.partition("=="))
            if not equals or not re.fullmatch(r"[\w.+-]+", version):
                raise InputError(requirements, f"'{wanted}' pins no version", "write it as package==version")
            pins[package] = version
    return pins


def render_metadata(
    root: str | os.PathLike[str], segmentation: Mapping[str, Any] | None, classification: Mapping[str, Any] | None
) -> str:
    """Return the text of ``configs/metadata.json`` with its generated parts made anew, and the rest as it is.

    Args:
        root: of the bundle; its ``requirements.txt`` is the source of the pins.
        segmentation: the recorded result of the shipped segmenter, with its ``name``; None where there is none.
        classification: likewise of the shipped classifier.

    Raises:
        InputError: a requirement is not pinned, or the metadata lack a generated part to be replaced.
    """
    path = Path(root) / FILE
    text = path.read_text(encoding="utf-8")
    pins = read_pins(Path(root) / "requirements.txt")
    for package, key in _OWN_KEYS.items():
        text = _replace(path, text, key, r'"[^"]*"', json.dumps(pins.pop(package)))
    scores: dict[str, float] = {}
    sources: dict[str, str] = {}
    if segmentation is not None:
        scores |= segmentation_scores(segmentation)
        sources["segmentation"] = f"docs/results/{segmentation['name']}.json"
    if classification is not None:
        scores |= {f"classifier_{name}": value for name, value in classification_scores(classification).items()}
        sources["classification"] = f"docs/results/{classification['name']}.json"
    if sources:
        sources["intervals"] = "_low and _high are the 95 % bootstrap interval by group of near-duplicate images"
    rounded = {name: round(value, DIGITS) for name, value in scores.items()}
    for key, values in (
        ("required_packages_version", pins),
        ("eval_metrics", rounded),
        ("eval_metrics_source", sources),
    ):
        block = json.dumps(values, indent=4, ensure_ascii=False).replace("\n", "\n    ")
        text = _replace(path, text, key, r"\{[^{}]*\}", block)
    return text


def _replace(path: Path, text: str, key: str, pattern: str, value: str) -> str:
    """Replace the value of a top-level key, which holds nothing nested, and keep the layout of all else."""
    new, count = re.subn(rf'^(    "{key}": ){pattern}', lambda found: found[1] + value, text, flags=re.MULTILINE)
    if count != 1:
        raise InputError(path, f"has {key} {count} times", "restore the key, its value is generated")
    return new
