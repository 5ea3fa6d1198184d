# SPDX-License-Identifier: Apache-2.0
"""Build a network by the name and the settings that its card holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch.nn as nn

from bundle.errors import UserError
from bundle.networks.autocast import as_flag

from .lite_segnet import LiteSegNet
from .lite_unet import LiteUNet
from .segnet import SegNet
from .unet import UNet

SEGMENTERS: dict[str, type[nn.Module]] = {"UNet": UNet, "LiteUNet": LiteUNet}
CLASSIFIERS: dict[str, type[nn.Module]] = {"SegNet": SegNet, "LiteSegNet": LiteSegNet}
ARCHITECTURES = SEGMENTERS | CLASSIFIERS


def settings_of(architecture: str) -> tuple[str, ...]:
    """The names of the settings that an architecture takes.

    Raises:
        UserError: there is no such architecture.
    """
    return tuple(inspect.signature(_find(architecture)).parameters)


def network_settings(architecture: str, **settings: Any) -> dict[str, Any]:
    """The name of an architecture and those of the settings that it takes: what a card keeps.

    Args:
        architecture: one of `ARCHITECTURES`.
        settings: of any of them; those that this one does not know, and those that are None, are left out.

    Raises:
        UserError: there is no such architecture, or a flag is neither true nor false.
    """
    known = inspect.signature(_find(architecture)).parameters
    taken = {name: value for name, value in settings.items() if name in known and value is not None}
    # `--pretrained false` comes as text from MONAI's command line.
    flags = {name: as_flag(name, value) for name, value in taken.items() if isinstance(known[name].default, bool)}
    return {"architecture": architecture, **taken, **flags}


def build_network(architecture: str, **settings: Any) -> nn.Module:
    """The network of a name, with those of the settings that it takes.

    Arguments and errors are those of `network_settings`.
    """
    chosen = network_settings(architecture, **settings)
    return _find(chosen.pop("architecture"))(**chosen)


def build_from_card(card: Mapping[str, Any]) -> nn.Module:
    """The network that a card describes, with random weights.

    Raises:
        UserError: the card names an architecture that is not known here.
    """
    return build_network(**{**card, "pretrained": False})


def _find(architecture: str) -> type[nn.Module]:
    if architecture not in ARCHITECTURES:
        raise UserError(f"architecture: '{architecture}' is none of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[architecture]
