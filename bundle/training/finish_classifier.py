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

from bundle.evaluation.classification import area_under_roc, choose_operating_points
from bundle.evaluation.conformal import fit_conformal
from bundle.evaluation.fusion import calibrated_probability, fit_calibration, fit_fusion
from bundle.training.checkpoint import Checkpoint
from bundle.training.finished import describe_training, leave_weights, publish_trained, restore_network

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
    keep: str = "best",
    described: Iterable[Mapping[str, Any]] | None = None,
    network_settings: Mapping[str, Any] | None = None,
) -> None:
    """Take the run's weights, calibrate them on the validation images and write what a run leaves behind.

    ``model_classifier.pt`` and ``.json`` (weights; card with temperature, operating points and the limits of prediction
    sets), ``metrics.json``.

    Args:
        checkpoint: of the finished run; names folder, network and best epoch.
        dataloader: validation batches.
        prepare_batch: as the evaluator's.
        inferer: as the evaluator's.
        device: where the network is.
        settings: what evaluation and inference must repeat; goes into the card.
        datalist: of the run, for the record.
        publish_to: also copy the weights there; phantom and oracle weights never are.
        keep: "best", the epoch with the best score on validation; or "last", which leaves the validation images
            unspent for the calibration, and is better where they are few.
        described: training images with ``features`` (F,) and ``label``, for the late fusion; None for none.
        network_settings: name and settings of the network's architecture, for the card.

    An image with ``outlined`` 0 is left out of whatever is fitted here: nothing is classified where nothing is
    outlined. The card's ``validation`` counts them.

    Raises:
        ValueError: `keep` is neither.
    """
    if keep not in ("best", "last"):
        raise ValueError(f"keep: '{keep}' must be best or last")
    if idist.get_rank() != 0:
        return
    network = restore_network(checkpoint, best=keep == "best")
    fitted = fit_card(network, dataloader, prepare_batch, inferer, device, described)
    card = {
        **(network_settings or {}),
        **settings,
        **{key: fitted[key] for key in ("fusion", "temperature", "operating_points", "conformal")},
        "kept": keep,
        **describe_training(checkpoint, datalist, fitted["validation"]),
    }
    weights = checkpoint.folder / "model_classifier.pt"
    leave_weights(weights, network, card, datalist.get("trained_on"))
    synthetic, oracle = card["synthetic"], datalist.get("masks") == "oracle"
    logger.info(
        "%s%s%s epoch kept, AUROC %.3f on validation (the network alone %.3f), temperature %.2f; weights: %s",
        "SYNTHETIC phantom: " if synthetic else "",
        "ORACLE masks: " if oracle else "",
        keep,
        *(card["validation"]["auroc"], card["validation"]["auroc_network"], card["temperature"], weights),
    )
    withheld = "the phantom or on oracle masks" if synthetic or oracle else None
    publish_trained(weights, publish_to, withheld)


def fit_card(
    network: torch.nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inferer: Callable[..., torch.Tensor],
    device: torch.device | str,
    described: Iterable[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Fit what a card says of a network besides its weights; arguments as `finish_classification`.

    Returns:
        `fusion`, `temperature`, `operating_points`, `conformal`, and `validation`: `images`, `not_outlined` and both
        areas under the ROC curve.

    Raises:
        UserError: no outlined validation image is malignant.
    """
    fusion = None
    if described is not None:
        items = [item for item in described if item.get("outlined", 1)]
        fusion = fit_fusion(
            np.stack([np.asarray(item["features"]) for item in items]), [float(item["label"]) for item in items]
        )
    logits, features, labels, outlined = _predict(network, dataloader, prepare_batch, inferer, device)
    logits, features, labels = logits[outlined], features[outlined], labels[outlined]
    calibration = fit_calibration(logits, features, labels, fusion)
    calibrated = calibrated_probability(calibration, logits, features)
    return {
        **calibration,
        "operating_points": choose_operating_points(calibrated, labels, SENSITIVITIES),
        "conformal": fit_conformal(calibrated, labels),
        "validation": {
            "images": len(labels),
            "not_outlined": int((~outlined).sum()),
            "auroc": area_under_roc(labels > 0.5, calibrated),
            "auroc_network": area_under_roc(labels > 0.5, logits),
        },
    }


@torch.no_grad()
def _predict(
    network: torch.nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inferer: Callable[..., torch.Tensor],
    device: torch.device | str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return logits (N,), features (N, F; F is 0 where the batches have none) and labels (N,), all float64, and whether
    something is outlined, (N,) bool."""
    logits, features, labels, outlined = [], [], [], []
    for batch in dataloader:
        image, label = prepare_batch(batch, device)
        logits.append(inferer(image, network).cpu().numpy().ravel())
        features.append(np.asarray(batch.get("features", np.empty((len(label), 0)))))
        labels.append(label.cpu().numpy().ravel())
        outlined.append(np.asarray(batch.get("outlined", np.ones(len(label)))).astype(bool))
    scores, described, truth = (np.concatenate(part).astype(float) for part in (logits, features, labels))
    return scores, described, truth, np.concatenate(outlined)
