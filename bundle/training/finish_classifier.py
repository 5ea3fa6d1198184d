# SPDX-License-Identifier: Apache-2.0
"""The last step of a classification training: best weights, temperature, operating points, metrics, publishing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from scipy.special import expit

from bundle.evaluation.classification import choose_operating_points, fit_temperature
from bundle.files import write_json
from bundle.provenance import describe_run
from bundle.training.checkpoint import BEST, Checkpoint
from bundle.weights import flat_state_dict, load_tensors, publish, write_weights

logger = logging.getLogger(__name__)
SENSITIVITIES = (0.90, 0.95)


def finish_classification(
    checkpoint: Checkpoint,
    dataloader: Iterable[Mapping[str, Any]],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inferer: Callable[..., torch.Tensor],
    device: torch.device | str,
    settings: Mapping[str, Any],
    datalist: Mapping[str, Any],
    publish_to: str | os.PathLike[str] | None = None,
) -> None:
    """Restore the best epoch, calibrate on the validation images and write what a run leaves behind.

    ``model_classifier.pt`` and ``.json`` (weights; card with temperature and operating points), ``metrics.json``.

    Args:
        checkpoint: of the finished run; names folder, network and best epoch.
        dataloader: validation batches.
        prepare_batch: as the evaluator's.
        inferer: as the evaluator's.
        device: where the network is.
        settings: what evaluation and inference must repeat; goes into the card.
        datalist: of the run, for the record.
        publish_to: also copy the weights there; phantom and oracle weights never are.
    """
    if idist.get_rank() != 0:
        return
    folder, network = checkpoint.folder, checkpoint.network
    if (folder / BEST).exists():  # a run shorter than the validation interval has no best epoch
        network.load_state_dict(load_tensors(folder / BEST))
    network.eval()
    logits, labels = _predict(network, dataloader, prepare_batch, inferer, device)
    temperature = fit_temperature(logits, labels)
    calibrated = expit(logits / temperature)
    synthetic, oracle = bool(datalist.get("synthetic")), datalist.get("masks") == "oracle"
    record = {
        **settings,
        "temperature": temperature,
        "operating_points": choose_operating_points(calibrated, labels, SENSITIVITIES),
        "synthetic": synthetic,
        "best_epoch": checkpoint.best_epoch,
        "validation": {"metric": checkpoint.metric, "best": checkpoint.best_score, "images": len(labels)},
        "training_images": len(datalist["training"]),
        **{key: datalist.get(key) for key in ("name", "dataset_sha256")},
        "provenance": describe_run(),
    }
    weights = folder / "model_classifier.pt"
    write_weights(weights, flat_state_dict(network), record)
    write_json(folder / "metrics.json", record)
    logger.info(
        "%s%sbest epoch %d, validation %s %.3f, temperature %.2f; weights: %s",
        "SYNTHETIC phantom: " if synthetic else "",
        "ORACLE masks: " if oracle else "",
        *(checkpoint.best_epoch, checkpoint.metric, checkpoint.best_score or float("nan"), temperature, weights),
    )
    if publish_to is not None:
        if synthetic or oracle:
            logger.warning("Weights trained on the phantom or on oracle masks are not published to %s", publish_to)
        else:
            publish(weights, publish_to)


@torch.no_grad()
def _predict(
    network: torch.nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inferer: Callable[..., torch.Tensor],
    device: torch.device | str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels, each (N,) float64."""
    logits, labels = [], []
    for batch in dataloader:
        image, label = prepare_batch(batch, device)
        logits.append(inferer(image, network).cpu().numpy().ravel())
        labels.append(label.cpu().numpy().ravel())
    return np.concatenate(logits).astype(float), np.concatenate(labels).astype(float)
