# SPDX-License-Identifier: Apache-2.0
"""Start a training from the weights of an earlier one: its network's settings, its weights, and what it has seen."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from bundle.config.guard import running_parser
from bundle.config.typed import typed_overrides
from bundle.networks.weights import load_weights, require_card

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


def take_settings(init: PathLike | None, ids: Sequence[str], network: str = "network_def") -> None:
    """Give the running config the settings that the start weights were trained with, where none was typed.

    To be called before anything refers to them.

    Args:
        init: the weights; None does nothing.
        ids: of the config, each also the name of a card's entry.
        network: id of the network, whose own arguments follow the card too.

    Raises:
        UserError: the weights have no card.
    """
    if init is None:
        return
    card, resolver = require_card(init, ("sha256",)), running_parser().ref_resolver
    typed = typed_overrides(sys.argv[1:])
    taken = {id_: card[id_] for id_ in ids if id_ in card and id_ in resolver.items and id_ not in typed}
    changed = {id_: value for id_, value in taken.items() if resolver.items[id_].get_config() != value}
    resolver.resolved_content.update(taken)
    arguments = resolver.items[network].get_config()
    for name in arguments:
        if name in card and isinstance(arguments[name], (bool, int, float)) and f"{network}#{name}" not in typed:
            arguments[name] = card[name]
            resolver.resolved_content[f"{network}::{name}"] = card[name]
    if changed:
        told = ", ".join(f"{id_} {value}" for id_, value in changed.items())
        logger.info("Settings of the start weights %s: %s", Path(init).name, told)


def start_from(init: PathLike | None, network: torch.nn.Module) -> None:
    """Load the start weights into a network, before the trainer resumes a run of its own.

    Args:
        init: the weights; None does nothing.
        network: of the same settings.

    Raises:
        UserError: they are missing, damaged, or of another network.
    """
    if init is not None:
        load_weights(network.module if isinstance(network, DistributedDataParallel) else network, init)
        logger.info("Starting from %s", init)
