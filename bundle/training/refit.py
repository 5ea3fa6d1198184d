# SPDX-License-Identifier: Apache-2.0
"""Fit a classifier's card anew, its weights unchanged: fusion, temperature, operating points, prediction sets.

For cards of an older version, whose features were measured in other units; and wherever what is fitted after the
training has changed. The images are those of the classifier's own training and validation, told by the checksums on its
card; the config of its training reads them, so nothing differs from the last step of a training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from bundle.errors import UserError
from bundle.files import write_atomically, write_json
from bundle.networks import build_from_card
from bundle.networks.weights import card_path, load_weights, require_card
from bundle.provenance import describe_run
from bundle.training.finish_classifier import fit_card

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "train_classifier.json"

_SETTINGS = (
    *("architecture", "variant", "margin", "mask_threshold", "spatial_size", "flip", "masks", "folds", "seed"),
    *("split", "split_seed", "segmentation_split", "segmentation_split_seed"),
)
"""Ids of the config that a card holds under the same name."""


def refit_classifier(
    weights: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    folders: Mapping[str, str | os.PathLike[str] | None],
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Write the weights and their new card into a folder, as ``model_classifier.pt`` and ``.json``.

    Args:
        weights: of the classifier, with the card that its training wrote.
        output_dir: also gets the datalist; where there is one already it is used.
        folders: ``dataset_dir``, ``segmentation_dir``, ``prepared_dir``, ``segmenter``, ``maps_dir``, as the training's
            config takes them; None for its defaults.
        device: of the network.

    Returns:
        the card; `refit` in it says when and by which command.

    Raises:
        UserError: the images are not those of the training, or as the training.
    """
    card = require_card(weights, (*_SETTINGS, "split_sha256", "validation"))
    parser = ConfigParser()
    parser.read_config(str(CONFIG))
    parser["bundle_root"], parser["output_dir"] = str(ROOT), os.fspath(output_dir)
    parser["device"], parser["num_workers"] = str(device), 0
    for name, value in folders.items():
        if value is not None:
            parser[name] = os.fspath(value)
    for name in _SETTINGS:
        parser[name] = card[name]
    parser.parse()
    datalist = parser.get_parsed_content("datalist")
    for key in ("dataset_sha256", "split_sha256"):
        if datalist[key] != card.get(key):
            raise UserError(
                f"{weights}: its card has {key} {card.get(key)}, these folders {datalist[key]}; "
                "give the dataset and the prepared folder of its own training"
            )
    network = build_from_card(card)
    load_weights(network, weights)
    network = network.to(torch.device(device), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    described = None
    if card.get("fusion") is not None:
        described = [item for item in parser.get_parsed_content("train::dataset") if isinstance(item, dict)]
    dataloader, prepare_batch, inferer = (
        parser.get_parsed_content(f"validate::{name}") for name in ("dataloader", "prepare_batch", "inferer")
    )
    fitted = fit_card(network, dataloader, prepare_batch, inferer, device, described)
    card.pop("left_out", None)  # it was fitted on top of what is replaced here; see `bundle.training.left_out`
    record = {**card, **fitted, "validation": {**card["validation"], **fitted["validation"]}, "refit": describe_run()}
    target = Path(output_dir) / "model_classifier.pt"
    write_atomically(target, Path(weights).read_bytes())
    write_json(card_path(target), record)
    return record
