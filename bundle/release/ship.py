# SPDX-License-Identifier: Apache-2.0
"""Put newly trained weights into ``models/``, with what is known of them: the former ones stay beside them by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.training_sets import TRAINED_ON, add_recorded, read_recorded
from bundle.errors import InputError, UserError
from bundle.files import read_json, sha256_of, write_atomically, write_json
from bundle.networks.build import CLASSIFIERS, SEGMENTERS
from bundle.networks.weights import CLASSIFIER, SEGMENTER, SMALL_SEGMENTER, card_path, require_card

ALIKE = ("architecture", "width", "presence", "presence_mix", "pretrained", "masks")
"""What networks of one recipe have in common on their cards; the size of images may grow."""


def keep_former(models: str | os.PathLike[str], name: str) -> list[Path]:
    """Make the weights of a folder, with their cards, a set of their own: ``model.pt`` becomes ``<name>_model.pt``.

    Raises:
        UserError: the set is there already.
    """
    folder, moved = Path(models), []
    present = [folder / file for file in (SEGMENTER, SMALL_SEGMENTER, CLASSIFIER) if (folder / file).is_file()]
    for weights in present:
        if weights.with_name(f"{name}_{weights.name}").exists():
            raise UserError(f"{weights.with_name(f'{name}_{weights.name}')}: is there already; give another name")
    for weights in present:
        moved.append(weights.with_name(f"{name}_{weights.name}"))
        os.replace(card_path(weights), card_path(moved[-1]))
        os.replace(weights, moved[-1])
    return moved


def ship_weights(
    weights: str | os.PathLike[str],
    models: str | os.PathLike[str],
    results_dir: str | os.PathLike[str],
    cross_validated_by: str,
    left_out: Sequence[str] = (),
    small: bool = False,
    keep_former_as: str | None = None,
) -> Path:
    """Copy the weights of a run into a folder of models, and write on their card how good networks like them are.

    Weights that were trained on all images have none left to be tested on. Their figures are those of networks of the
    same recipe, each tested on images that it never saw; figures of images that they saw themselves are never written.

    Args:
        weights: of a run folder, with their card and, there, `trained_on.json`.
        models: gets ``model.pt`` or ``model_classifier.pt``, by the card's architecture, and the pixels that they saw.
            A classifier's card also names the large segmenter there, whose recipe made the masks that it learned from.
        results_dir: recorded results.
        cross_validated_by: the record of the same data and recipe, out of fold.
        left_out: records of networks of the recipe that were tested on a hospital that they never saw.
        small: the segmenter is the small one.
        keep_former_as: first make what is there a set of this name, see `keep_former`.

    Returns:
        the file.

    Raises:
        UserError: there is no card, or a record is missing, synthetic, of other data, or of another recipe; nothing is
            changed then.
    """
    source, folder = Path(weights), Path(models)
    card = require_card(source, ("sha256", "architecture", "dataset_sha256"))
    if card.get("synthetic"):
        raise UserError(f"{source}: trained on the SYNTHETIC phantom; such weights are not shipped")
    figures = _figures(Path(results_dir), cross_validated_by, card)
    if figures["dataset_sha256"] != card["dataset_sha256"]:
        raise UserError(f"{cross_validated_by}: is of other data than {source}; give the record of its own data")
    seen = read_recorded(source.parent)
    if card["dataset_sha256"] not in seen:
        mend = f"run scripts/record_training_set.py PREPARED_DIR --models {source.parent}"
        raise InputError(source.parent / TRAINED_ON, "does not tell which images the weights have seen", mend)
    is_classifier = card["architecture"] in CLASSIFIERS
    target = folder / (CLASSIFIER if is_classifier else SMALL_SEGMENTER if small else SEGMENTER)
    if not is_classifier and card["architecture"] not in SEGMENTERS:
        raise UserError(f"{source}: '{card['architecture']}' is no network of the bundle's")
    known = {
        **card,
        "cross_validated_by": cross_validated_by,
        "cross_validated": figures,
        "tested_elsewhere": {name: _figures(Path(results_dir), name, card) for name in left_out},
        "data_license": "docs/data_license.txt",
    }
    if keep_former_as:
        keep_former(folder, keep_former_as)
    if is_classifier:
        # Not with the small one: its masks are of another recipe, and findings by it say so.
        known["paired_with"] = [sha256_of(folder / SEGMENTER)] if (folder / SEGMENTER).is_file() else []
    write_atomically(target, source.read_bytes())
    write_json(card_path(target), known)
    add_recorded(folder, seen)
    return target


def _figures(results_dir: Path, name: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a record that belong on a card."""
    file = results_dir / f"{name}.json"
    record = read_json(file, "record it with scripts/record_result.py")
    if record.get("synthetic"):
        raise InputError(file, "is of the SYNTHETIC phantom", "give a record of real images")
    other = [key for key in ALIKE if record["weights"].get(key) != card.get(key)]
    if other:
        raise InputError(file, f"is of networks with another {', '.join(other)}", "give a record of the same recipe")
    told = {"title": record.get("title"), "dataset_sha256": record["provenance"].get("dataset_sha256")}
    parts: dict[str, Mapping[str, Any]] = {"all": record, **record.get("datasets", {})}
    if record.get("task") == "classification":
        return {**told, "auroc": {part: scores["auroc"] for part, scores in parts.items()}, "images": record["cases"]}
    presence = {part: scores["presence"]["auroc"] for part, scores in parts.items() if "presence" in scores}
    dice = {part: scores["lesions"]["dice"] for part, scores in parts.items()}
    return {**told, "dice": dice, "presence_auroc": presence, "images": record["lesions"]["cases"]}
