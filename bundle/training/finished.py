# SPDX-License-Identifier: Apache-2.0
"""What the last steps of both trainings share: the epoch that is kept, the card, what is published."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from bundle.data.training_sets import add_recorded, read_recorded
from bundle.files import write_json
from bundle.networks.weights import flat_state_dict, load_tensors, publish, write_weights
from bundle.provenance import describe_run
from bundle.training.checkpoint import BEST, Checkpoint

logger = logging.getLogger(__name__)


def restore_network(checkpoint: Checkpoint, best: bool = True) -> torch.nn.Module:
    """The network of a finished run, ready to predict: of its best epoch, or as the last one left it."""
    network = checkpoint.network
    if best and (checkpoint.folder / BEST).exists():  # a run shorter than the validation interval has no best epoch
        network.load_state_dict(load_tensors(checkpoint.folder / BEST))
    return network.eval()


def describe_training(
    checkpoint: Checkpoint, datalist: Mapping[str, Any], validation: Mapping[str, Any]
) -> dict[str, Any]:
    """What every card says of the run that its weights are of, and of its data.

    Args:
        checkpoint: of the finished run.
        datalist: of the run.
        validation: what was measured on the validation images, beside the score that chose the epoch.
    """
    return {
        "synthetic": bool(datalist.get("synthetic")),
        "best_epoch": checkpoint.best_epoch,
        **({"continued": checkpoint.continued} if checkpoint.continued else {}),
        **({"started_from": datalist["started_from"]} if datalist.get("started_from") else {}),
        "validation": {"metric": checkpoint.metric, "best": checkpoint.best_score, **validation},
        "training_images": len(datalist["training"]),
        **{key: datalist.get(key) for key in ("name", "dataset_sha256", "split_sha256")},
        **({"datasets": datalist["datasets"]} if datalist.get("datasets") else {}),
        "provenance": describe_run(),
    }


def leave_weights(
    weights: Path, network: torch.nn.Module, card: Mapping[str, Any], trained_on: Mapping[str, Collection[str]] | None
) -> None:
    """Write the weights with their card, the same as ``metrics.json``, and which images they have seen beside them.

    Args:
        weights: the file, in the run's folder.
        network: of the epoch that is kept.
        card: see `describe_training`.
        trained_on: of a run that began at other weights, what those have seen.
    """
    write_weights(weights, flat_state_dict(network), dict(card))
    write_json(weights.with_name("metrics.json"), dict(card))
    if trained_on:
        add_recorded(weights.parent, trained_on)


def publish_trained(weights: Path, target: str | os.PathLike[str] | None, withheld: str | None) -> None:
    """Copy weights of a run to where all tools look for them, and what they have seen.

    Args:
        weights: in the run's folder.
        target: the file; None for not at all.
        withheld: why they are no weights for others; None where they are.
    """
    if target is None:
        return
    if withheld:
        logger.warning("Weights trained on %s are not published to %s", withheld, target)
        return
    publish(weights, target)
    add_recorded(Path(target).parent, read_recorded(weights.parent))
