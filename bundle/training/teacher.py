# SPDX-License-Identifier: Apache-2.0
"""The large network that a small one learns from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bundle.errors import UserError
from bundle.networks import build_from_card
from bundle.networks.weights import load_weights, require_card

KEYS = ("architecture", "standardize", "spatial_size", "split_sha256", "sha256")


def load_teacher(
    weights: str | os.PathLike[str],
    datalist: Mapping[str, Any],
    spatial_size: Sequence[int],
    device: torch.device | str = "cpu",
) -> torch.nn.Module:
    """Build the network of a weights file by its card, for `Consistency`.

    Args:
        weights: of the teacher, its card beside it.
        datalist: of the student's training.
        spatial_size: (H, W) of the student's images.
        device: of the training.

    Raises:
        UserError: the weights cannot be used; the teacher was trained on another split, so it may have seen images that
            the student is tested on; or it sees images of another size.
    """
    card = require_card(weights, KEYS)
    if card["split_sha256"] != datalist.get("split_sha256"):
        raise UserError(
            f"{weights}: the teacher was trained on another split, so it may have seen images that its student is "
            "tested on; give a teacher of this split, or its --split, --split_seed and --prepared_dir, which for the "
            "shipped ones scripts/prepare_data.py makes with --groups docs/results/groups_busi_busbra.csv"
        )
    if list(card["spatial_size"]) != list(spatial_size):
        raise UserError(
            f"{weights}: the teacher sees images of {card['spatial_size']}, not {list(spatial_size)}; "
            f"give --spatial_size {card['spatial_size']}"
        )
    network = build_from_card(card)
    load_weights(network, weights)
    network.requires_grad_(False)
    return network.to(torch.device(device), memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
