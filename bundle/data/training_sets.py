# SPDX-License-Identifier: Apache-2.0
"""Which images weights were trained on, so that they are never scored as another hospital's."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.cases import CASES, DIGITS, CaseList, read_cases
from bundle.errors import InputError, UserError
from bundle.files import read_json, write_json

TRAINED_ON = "trained_on.json"
SAME_PIXELS = "the pixels are those of an image in the dataset that the weights were trained on"
_MEND = "make it anew with scripts/record_training_set.py"


def record_training_set(prepared: str | os.PathLike[str], models: str | os.PathLike[str]) -> Path:
    """Keep, beside the weights, which pixels the dataset of their training holds, so that they are known elsewhere.

    A dataset's checksum tells only the whole set in its own layout; images are passed on in others. `trained_on.json`
    holds the first digits of each image's checksum, by the dataset's checksum; no image can be made from them.

    Args:
        prepared: the prepared folder of the training.
        models: the folder of the weights.

    Returns:
        The file.
    """
    return add_recorded(models, pixels_of(prepared))


def pixels_of(prepared: str | os.PathLike[str]) -> dict[str, set[str]]:
    """What `trained_on.json` keeps of a prepared dataset."""
    case_list = read_cases(Path(prepared) / CASES)
    return {case_list.dataset_sha256: {case.sha256[:DIGITS] for case in case_list.cases}}


def read_recorded(models: str | os.PathLike[str]) -> dict[str, set[str]]:
    """The content of the `trained_on.json` in a folder of weights, empty where there is none."""
    file = Path(models) / TRAINED_ON
    recorded = read_json(file, _MEND) if file.is_file() else {}
    return {dataset: set(str(pixels).split()) for dataset, pixels in recorded.items()}


def add_recorded(models: str | os.PathLike[str], recorded: Mapping[str, Collection[str]]) -> Path:
    """Add to the `trained_on.json` in a folder of weights; returns the file."""
    # One string: a list of hundreds of entries would be hundreds of lines.
    content = {**read_recorded(models), **recorded}
    file = Path(models) / TRAINED_ON
    write_json(file, {dataset: " ".join(sorted(pixels)) for dataset, pixels in content.items()})
    return file


def read_training_sets(
    trained_on: Sequence[str | os.PathLike[str]], models: Path, cards: Mapping[str, Mapping[str, Any]]
) -> dict[str, set[str]]:
    """The first digits of the pixels' checksums of what the networks were trained on, by the dataset's checksum."""
    wanted = {card.get("dataset_sha256") for card in _with_ancestors(cards).values()}
    found = {dataset: pixels for dataset, pixels in read_recorded(models).items() if dataset in wanted}
    for prepared in trained_on:
        case_list = read_cases(Path(prepared) / CASES)
        if case_list.dataset_sha256 not in wanted:
            raise InputError(prepared, "is not what these weights were trained on", "give their own prepared folder")
        found[case_list.dataset_sha256] = {case.sha256[:DIGITS] for case in case_list.cases}
    return found


def refuse_training_set(
    checked: CaseList, cards: Mapping[str, Mapping[str, Any]], dataset: Path, trained: Collection[str]
) -> None:
    """Refuse the dataset of the training: by its checksum, or by its name where nothing tells which images are new."""
    for name, card in _with_ancestors(cards).items():
        sets: Mapping[str, str] = card.get("datasets") or {card.get("name", ""): card.get("dataset_sha256", "")}
        if checked.dataset_sha256 in (card.get("dataset_sha256"), *sets.values()):
            raise UserError(
                f"{dataset}: is the dataset that the {name} was trained on, so nothing in it is external; give another "
                "one, or evaluate its test part with configs/evaluate.json and configs/evaluate_classifier.json"
            )
        if checked.name in sets and card.get("dataset_sha256") not in trained:
            raise UserError(
                f"{dataset}: has the name of the dataset that the {name} was trained on, with other images or labels; "
                "name the training's prepared folder with --trained-on, so that its images are not scored"
            )


def _with_ancestors(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The cards, and those of what their weights were started from, by names for a message."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, card in cards.items():
        found[name] = card
        start = card.get("started_from")
        while start:
            found[f"{name}'s start {start['weights']} ({len(found)})"] = start
            start = start.get("started_from")
    return found
