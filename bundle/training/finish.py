# SPDX-License-Identifier: Apache-2.0
"""The last step of a segmentation training: best weights, threshold, examples, metrics, and publishing on request."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch

from bundle.evaluation.presence import choose_presence
from bundle.evaluation.segmentation import choose_threshold, measure_case
from bundle.evaluation.uncertainty import choose_doubt_limit, confidence_of_map
from bundle.networks.lite_unet import PRESENCE_MIX, LiteUNet
from bundle.reports.figures import plot_examples
from bundle.training.checkpoint import Checkpoint
from bundle.training.finished import describe_training, leave_weights, publish_trained, restore_network

logger = logging.getLogger(__name__)


def finish_segmentation(
    checkpoint: Checkpoint,
    dataloader: Iterable[Mapping[str, Any]],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inferer: Callable[..., torch.Tensor],
    device: torch.device | str,
    settings: Mapping[str, Any],
    datalist: Mapping[str, Any],
    publish_to: str | os.PathLike[str] | None = None,
    choose_from: int = 1,
    network_settings: Mapping[str, Any] | None = None,
) -> None:
    """Restore the best epoch and write what a run leaves behind in its folder.

    ``model.pt`` and ``model.json`` (weights and card), ``metrics.json`` (validation), ``examples.png``. The threshold
    is chosen by the mean Dice over the validation images, see `choose_threshold`; so is the confidence below which an
    outline is doubtful, see `choose_doubt_limit`, and where the network has a presence head, see `choose_presence`, the
    probability below which no lesion is told of. From here on that head is joined with the map, see `PRESENCE_MIX`.

    Args:
        checkpoint: of the finished run; names folder, network and best epoch.
        dataloader: validation batches.
        prepare_batch: as the evaluator's.
        inferer: as the evaluator's; where the network has a presence head, with its channel.
        device: where the network is.
        settings: what evaluation and inference must repeat (filters, spatial_size …); goes into the card.
        datalist: of the run, for the record.
        publish_to: also copy the weights there; phantom weights never are.
        choose_from: fewest validation images that the threshold is chosen from; with fewer it is 0.5.
        network_settings: name and settings of the network's architecture, for the card.
    """
    if idist.get_rank() != 0:
        return
    folder, network = checkpoint.folder, restore_network(checkpoint)
    mixed = {}
    if isinstance(network, LiteUNet) and network.presence_head is not None:
        network.mix_presence(PRESENCE_MIX)
        mixed = {"presence_mix": list(PRESENCE_MIX)}
    cases = list(_predict(network, dataloader, prepare_batch, inferer, device))
    enough = len(cases) >= choose_from
    threshold = choose_threshold((probability, lesion) for _, lesion, probability, *_ in cases) if enough else 0.5
    dice = [measure_case(probability, lesion, threshold).dice for _, lesion, probability, *_ in cases]
    heads = [head for *_, head in cases if head is not None]
    present, datasets = [bool(lesion.any()) for _, lesion, *_ in cases], _datasets(dataloader, len(cases))
    presence = choose_presence(heads, present, datasets=datasets) if heads else None
    validation = {
        "images": sum(value is not None for value in dice),
        "images_without_lesion": sum(value is None for value in dice),
        "mean_dice_at_threshold": float(np.mean([value for value in dice if value is not None])),
    }
    card = {
        **(network_settings or {}),
        **mixed,
        **settings,
        "threshold": threshold,
        "doubtful_below": choose_doubt_limit(
            [confidence_of_map(probability, threshold) for _, lesion, probability, *_ in cases if lesion.any()]
        ),
        **({"presence_points": presence} if presence else {}),
        **describe_training(checkpoint, datalist, validation),
    }
    weights, synthetic = folder / "model.pt", card["synthetic"]
    leave_weights(weights, network, card, datalist.get("trained_on"))
    shown = [
        (image * 255, lesion, probability, f"Dice {score:.2f}" if score is not None else "no lesion")
        for (image, lesion, probability, *_), score in zip(cases[:6], dice[:6], strict=True)
    ]
    plot_examples(shown, folder / "examples.png", threshold=threshold, synthetic=synthetic)
    logger.info(
        "%sbest epoch %d, validation Dice %.3f at threshold %.2f; weights: %s",
        "SYNTHETIC phantom: " if synthetic else "",
        *(checkpoint.best_epoch, validation["mean_dice_at_threshold"], threshold, weights),
    )
    publish_trained(weights, publish_to, "the SYNTHETIC phantom" if synthetic else None)


@torch.no_grad()
def _predict(
    network: torch.nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    prepare_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inferer: Callable[..., torch.Tensor],
    device: torch.device | str,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float | None]]:
    """Yield image [0, 1], lesion bool and probability [0, 1], each (H, W), of every validation image, and, where the
    network has a presence head, the probability that there is a lesion."""
    for batch in dataloader:
        image, label = prepare_batch(batch, device)
        probability = inferer(image, network).sigmoid()
        pictures, lesions, maps = (tensor[:, 0].cpu().numpy() for tensor in (image, label, probability))
        heads = probability[:, 1].mean(dim=(1, 2)).tolist() if probability.shape[1] > 1 else [None] * len(maps)
        yield from zip(pictures, lesions > 0.5, maps, heads, strict=True)


def _datasets(dataloader: Any, count: int) -> list[str] | None:
    """The dataset of each validation image, from its record; None where unreadable images were passed over."""
    records = getattr(getattr(dataloader, "dataset", None), "data", [])
    return [record.get("dataset") or "" for record in records] if len(records) == count else None
