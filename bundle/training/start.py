# SPDX-License-Identifier: Apache-2.0
"""Start a training from the weights of an earlier one: its network's settings, its weights, and what it has seen."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Container, Sequence
from pathlib import Path

import torch
from monai.bundle.reference_resolver import ReferenceResolver
from torch.nn.parallel import DistributedDataParallel

from bundle.config.guard import running_parser
from bundle.config.typed import typed_overrides
from bundle.errors import UserError
from bundle.networks.autocast import as_flag
from bundle.networks.build import settings_of
from bundle.networks.efficientnet import LiteEncoder, load_imagenet
from bundle.networks.weights import load_weights, require_card

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


def take_settings(init: PathLike | None, ids: Sequence[str], network: str = "network_def") -> None:
    """Give the running config the settings that the start weights were trained with, where none was typed.

    To be called before anything refers to them. Settings of the network that were typed and that its architecture does
    not know are refused, with start weights or without.

    Args:
        init: the weights; None does nothing.
        ids: of the config, each also the name of a card's entry.
        network: id of the network, whose own arguments follow the card too.

    Raises:
        UserError: the weights have no card, or a typed setting is of another architecture.
    """
    resolver, typed = running_parser().ref_resolver, typed_overrides(sys.argv[1:])
    if init is not None:
        _follow_card(init, ids, network, resolver, typed)
    arguments = resolver.items[network].get_config()
    if "architecture" in arguments:
        architecture = str(resolver.get_resolved_content("architecture"))
        for id_ in ids:
            if id_ in typed and id_ in arguments and id_ not in ("architecture", *settings_of(architecture)):
                raise UserError(f"--{id_}: a {architecture} has none; leave it out, or name its --architecture")


def _follow_card(
    init: PathLike, ids: Sequence[str], network: str, resolver: ReferenceResolver, typed: Container[str]
) -> None:
    card = require_card(init, ("sha256",))
    taken = {id_: card[id_] for id_ in ids if id_ in card and id_ in resolver.items and id_ not in typed}
    changed = {id_: value for id_, value in taken.items() if resolver.get_resolved_content(id_) != value}
    resolver.resolved_content.update(taken)
    arguments = resolver.items[network].get_config()
    for name in arguments:
        if name in card and isinstance(arguments[name], (bool, int, float)) and f"{network}#{name}" not in typed:
            arguments[name] = card[name]
            resolver.resolved_content[f"{network}::{name}"] = card[name]
    if changed:
        told = ", ".join(f"{id_} {value}" for id_, value in changed.items())
        logger.info("Settings of the start weights %s: %s", Path(init).name, told)


def start_from(init: PathLike | None, network: torch.nn.Module, pretrained: bool | str = False) -> None:
    """Load the start weights into a network, before the trainer resumes a run of its own.

    Args:
        init: the weights; None for none.
        network: of the same settings.
        pretrained: without start weights, give the encoder its ImageNet weights, see `load_imagenet`. This is done
            here so that whoever builds the network of a config for other weights needs no package of ImageNet's.

    Raises:
        UserError: they are missing, damaged, or of another network; or the network has no encoder that ImageNet weights
            fit.
    """
    plain = network.module if isinstance(network, DistributedDataParallel) else network
    if init is not None:
        load_weights(plain, init)
        logger.info("Starting from %s", init)
    elif as_flag("pretrained", pretrained):
        encoder = getattr(plain, "encoder", None)
        if not isinstance(encoder, LiteEncoder):
            raise UserError(f"pretrained: there are no ImageNet weights of {type(plain).__name__}; leave it out")
        load_imagenet(encoder)
        logger.info("Starting from ImageNet weights")
