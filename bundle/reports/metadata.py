# SPDX-License-Identifier: Apache-2.0
"""What of ``configs/metadata.json`` is generated: the scores of the shipped weights, the packages that it pins, and the
size and channels of what the networks take and give."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.evaluation.scores import classification_scores, segmentation_scores
from bundle.networks.weights import CLASSIFIER, SEGMENTER, read_card

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
    for key, weights in (("network_data_format", SEGMENTER), ("classifier_data_format", CLASSIFIER)):
        card = read_card(Path(root) / "models" / weights)
        if card:
            text = _fit_format(path, text, key, card)
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


def _fit_format(path: Path, text: str, key: str, card: Mapping[str, Any]) -> str:
    """Give the description of a network the size and the channels of its card."""
    start = text.find(f'\n    "{key}": {{')
    end = text.find("\n    }", start)
    if start < 0 or end < 0:
        raise InputError(path, f"has no {key}", "restore the key, part of its value is generated")
    taken, given, output = text[start:end].partition('"outputs"')
    size = json.dumps(list(card.get("spatial_size", (128, 128))))
    taken = re.sub(r'("spatial_shape": )\[[^]]*\]', rf"\g<1>{size}", taken)
    taken = re.sub(r'("num_channels": )\d+', rf"\g<1>{card.get('in_channels', 1)}", taken)
    if key == "network_data_format":
        output = re.sub(r'("spatial_shape": )\[[^]]*\]', rf"\g<1>{size}", output)
        output = re.sub(r'("num_channels": )\d+', rf"\g<1>{2 if card.get('presence') else 1}", output)
    return text[:start] + taken + given + output + text[end:]


def _replace(path: Path, text: str, key: str, pattern: str, value: str) -> str:
    """Replace the value of a top-level key, which holds nothing nested, and keep the layout of all else."""
    new, count = re.subn(rf'^(    "{key}": ){pattern}', lambda found: found[1] + value, text, flags=re.MULTILINE)
    if count != 1:
        raise InputError(path, f"has {key} {count} times", "restore the key, its value is generated")
    return new
