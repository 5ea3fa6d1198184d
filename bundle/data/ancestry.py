# SPDX-License-Identifier: Apache-2.0
"""Weights that were started from others: what those have seen is never scored as unseen."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.cases import CASES, DIGITS, read_cases
from bundle.data.roots import Dataset, Roots, find_roots
from bundle.data.training_sets import TRAINED_ON, read_recorded
from bundle.errors import InputError, UserError
from bundle.networks.weights import read_card, require_card

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
Records = list[dict[str, Any]]

SCORED = ("validation", "test")
_KEPT = ("sha256", "name", "dataset_sha256", "datasets", "split_sha256", "synthetic", "started_from")


def describe_start(weights: PathLike) -> dict[str, Any]:
    """What a card keeps, as `started_from`, of the weights that a training starts from.

    Raises:
        UserError: they have no card.
    """
    card = require_card(weights, ("sha256",))
    return {"weights": Path(weights).name, **{key: card[key] for key in _KEPT if card.get(key) is not None}}


def ancestors(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the weights of a card were started from, and what those were started from, the nearest first."""
    found: list[dict[str, Any]] = []
    start = card.get("started_from")
    while start:
        found.append(start)
        start = start.get("started_from")
    return found


def leave_out_seen(
    datalist: Mapping[str, Any],
    dataset_dir: Dataset | Roots,
    prepared: Sequence[PathLike],
    start: Mapping[str, Any],
    beside: Path,
) -> dict[str, Any]:
    """A datalist without the validation and test images that the start weights, or those before them, have seen.

    Args:
        datalist: with absolute paths.
        dataset_dir: the dataset, or several.
        prepared: folders of its cases.
        start: as `describe_start` gives it.
        beside: the folder of the start weights, whose `trained_on.json` tells what they have seen.

    Raises:
        UserError: nothing tells what they have seen, or no image is left for validation.
    """
    seen = _seen([start, *ancestors(start)], datalist, beside)
    digests = _digests(dataset_dir, prepared)
    left = dict(datalist)
    for part in SCORED:
        for name in (part, f"{part}_normal"):
            if name in datalist:
                left[name] = _unseen(datalist[name], digests, seen)
    dropped = sum(len(datalist[name]) - len(left[name]) for name in left if isinstance(left[name], list))
    if dropped:
        logger.warning("%d images that %s has seen are not scored", dropped, start["weights"])
    if datalist["validation"] and not left["validation"]:
        raise UserError(
            f"init: {start['weights']} has seen all validation images of {find_roots(dataset_dir).name}; give the "
            "--split and --split_seed that it was trained with, or images of your own"
        )
    return left


def unseen(
    records: Records,
    datalist: Mapping[str, Any],
    dataset_dir: Dataset | Roots,
    prepared: Sequence[PathLike],
    weights: PathLike,
) -> Records:
    """The records of an evaluation without those that the weights' ancestors have seen.

    Args:
        records: of one part, with absolute paths.
        datalist: that they are of.
        dataset_dir: the dataset, or several.
        prepared: folders of its cases.
        weights: that are evaluated; their card and the `trained_on.json` beside them tell.

    Raises:
        UserError: nothing tells what they have seen, or they have seen all.
    """
    chain = ancestors(read_card(weights))
    if not chain:
        return records
    left = _unseen(records, _digests(dataset_dir, prepared), _seen(chain, datalist, Path(weights).parent))
    if records and not left:
        raise UserError(f"{weights}: started from weights that have seen all of these images, so none can be scored")
    if len(left) < len(records):
        logger.warning("%d images that the start weights have seen are not scored", len(records) - len(left))
    return left


def _seen(chain: Iterable[Mapping[str, Any]], datalist: Mapping[str, Any], beside: Path) -> set[str]:
    """First digits of the pixels' checksums of all that weights have seen, but of a training with this very split."""
    recorded, found = read_recorded(beside), set[str]()
    for start in chain:
        same = all(start.get(key) == datalist.get(key) for key in ("dataset_sha256", "split_sha256"))
        if same or start.get("synthetic"):
            continue
        if start.get("dataset_sha256") not in recorded:
            reason = f"does not tell which images {start['weights']} has seen, so nothing could be scored as unseen"
            mend = f"run scripts/record_training_set.py PREPARED_DIR --models {beside}"
            raise InputError(beside / TRAINED_ON, reason, mend)
        found |= recorded[start["dataset_sha256"]]
    return found


def _digests(dataset_dir: Dataset | Roots, prepared: Sequence[PathLike]) -> dict[str, str]:
    """The first digits of each image's checksum, by its absolute path."""
    roots = find_roots(dataset_dir)
    return {
        str(roots.absolute(case.image)): case.sha256[:DIGITS]
        for place in prepared
        for case in read_cases(Path(place) / CASES).cases
    }


def _unseen(records: Records, digests: Mapping[str, str], seen: set[str]) -> Records:
    """Near duplicates of what was seen go with it."""
    groups = {record["group"] for record in records if digests.get(record["image"]) in seen}
    return [record for record in records if record["group"] not in groups]
