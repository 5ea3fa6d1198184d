# SPDX-License-Identifier: Apache-2.0
"""Runs whose records a tool puts into the config, as MONAI Label does with what an annotator submitted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import CacheDataset, Dataset

from bundle.config.guard import running_parser
from bundle.data.ancestry import ancestors, describe_start, leave_out_seen
from bundle.data.cases import CASES
from bundle.data.classifier import TARGETS, ensure_classifier_prepared
from bundle.data.prepare import ensure_prepared
from bundle.data.training_sets import pixels_of, read_recorded
from bundle.errors import UserError
from bundle.files import sha256_of
from bundle.networks.weights import card_path, require_card

logger = logging.getLogger(__name__)

Records = Sequence[Mapping[str, Any]]
PathLike = str | os.PathLike[str]


def given_records(id_: str = "train#dataset#data") -> list[dict[str, Any]] | None:
    """Return the records that replaced an id of the running config; None where its own expression still stands.

    Args:
        id_: where they would be.

    Raises:
        UserError: they are an empty list: nothing is labelled yet.
    """
    found = running_parser().get(id_)
    if not isinstance(found, list):
        return None
    if not found:
        raise UserError(f"{id_}: an empty list, so there is nothing to train on; label images first")
    return found


def name_given_run(records: Records | None, weights: PathLike) -> str | None:
    """Name the run folder of given records by their files' content and the weights that the run starts from.

    So an interrupted run goes on when it is asked for again, and new labels, or weights that a run published, begin a
    new one.

    Args:
        records: as `given_records` returns them; None gives None.
        weights: may be missing.
    """
    if records is None:
        return None
    start = sha256_of(weights) if Path(weights).is_file() else ""
    return "given_" + hashlib.sha256(f"{_digest(records)} {start}".encode()).hexdigest()[:12]


def datalist_of(given: Records | None, init: PathLike | None = None, **prepared: Any) -> dict[str, Any]:
    """The datalist of a segmentation run: of the given records, or else as `ensure_prepared` makes it.

    Images that the start weights have seen are left out of validation and test. What the run's own weights will have
    seen is added as ``started_from`` and ``trained_on``.

    Args:
        given: records of a tool, or None.
        init: weights that the run starts from.
        prepared: arguments of `ensure_prepared`; not looked at when records are given.

    Raises:
        UserError: as `ensure_prepared` and `leave_out_seen`.
    """
    if given is not None:
        return _with_start(_datalist(given), init or _loaded_by_tool())
    datalist, folder = ensure_prepared(**prepared), prepared["prepared_dir"]
    return _with_start(datalist, init, prepared["dataset_dir"], [folder])


def _with_start(
    datalist: dict[str, Any],
    init: PathLike | None,
    dataset_dir: PathLike | None = None,
    prepared: Sequence[PathLike] = (),
) -> dict[str, Any]:
    """Add what a card and `trained_on.json` will say, and leave out what the start weights have seen."""
    trained_on = {key: pixels for folder in prepared for key, pixels in _pixels_of(folder).items()}
    if init is not None:
        start = describe_start(init)
        if dataset_dir is not None:
            datalist = leave_out_seen(datalist, dataset_dir, prepared, start, Path(init).parent)
        datasets = {each.get("dataset_sha256") for each in (start, *ancestors(start))}
        trained_on |= {key: pixels for key, pixels in read_recorded(Path(init).parent).items() if key in datasets}
        datalist = {**datalist, "started_from": start}
    return {**datalist, "trained_on": trained_on}


def _pixels_of(prepared: PathLike) -> dict[str, set[str]]:
    # A list that was written by hand may have no cases beside it.
    return pixels_of(prepared) if (Path(prepared) / CASES).exists() else {}


def _loaded_by_tool(id_: str = "train#handlers") -> str | None:
    """The weights that a tool's handler loads before the training, as MONAI Label asks for with ``pretrained``.

    None where no handler does, or no config is running.
    """
    try:
        handlers = running_parser().get(id_)
    except UserError:
        return None
    for handler in handlers if isinstance(handlers, list) else ():
        if isinstance(handler, dict) and handler.get("_target_") == "CheckpointLoader":
            path = str(handler.get("load_path"))
            return path if card_path(path).is_file() else None
    return None


def classifier_datalist_of(
    given: Records | None, segmenter: PathLike | None, init: PathLike | None = None, **prepared: Any
) -> dict[str, Any]:
    """The datalist of a classification run: of the given records, or else as `ensure_classifier_prepared` makes it.

    Args:
        given: records of a tool, or None.
        segmenter: weights of what made the given records' maps.
        init: weights that the run starts from, see `datalist_of`.
        prepared: arguments of `ensure_classifier_prepared`.

    Raises:
        UserError: the given records lack a class, or nothing says which segmenter made their maps.
    """
    if given is None:
        folders = [Path(source["datalist"]).parent for source in prepared["sources"]]
        datalist = ensure_classifier_prepared(**prepared)
        return _with_start(datalist, init, prepared["dataset_dir"], folders)
    if segmenter is None:
        raise UserError("segmenter: name the weights that made the probability maps of the given records")
    for name, target in TARGETS.items():
        if target not in [record["label"] for record in given]:
            raise UserError(f"no {name} image is among the records given for training; label some of each class")
    card = require_card(segmenter, ("sha256",))
    extra: dict[str, Any] = {"masks": "predicted", "segmenter_sha256": [card["sha256"]]}
    extra |= {"segmentation_split": None, "segmentation_seed": None}
    return {**_with_start(_datalist(given), init or _loaded_by_tool()), **extra}


def validation_dataset(data: Records, transform: Callable[..., Any], training: Dataset, **options: Any) -> Dataset:
    """The dataset to validate on: of its own records, or the training images where a tool left none for it.

    MONAI Label splits off a fifth: of one or two labelled images none.

    Args:
        data: records, possibly none.
        transform: of a record.
        training: dataset of the training images.
        options: further arguments of `CacheDataset`.
    """
    if len(data):
        return CacheDataset(data, transform, **options)
    logger.warning("No image is left for validation: the scores of this run are those of its training images")
    return training


def _datalist(given: Records) -> dict[str, Any]:
    return {
        "name": "records given by a tool",
        "synthetic": False,
        "dataset_sha256": _digest(given),
        **{key: None for key in ("split", "seed", "split_sha256")},
        "training": list(given),
        "validation": [],
    }


def _digest(records: Records) -> str:
    """The sha256 of what the records say and of the files that they name."""
    digest = hashlib.sha256()
    for record in records:
        for key, value in sorted(record.items()):
            values = value if isinstance(value, (list, tuple)) else [value]
            told = [sha256_of(item) if isinstance(item, str) and os.path.isfile(item) else item for item in values]
            digest.update(json.dumps([key, told], default=str).encode())
    return digest.hexdigest()
