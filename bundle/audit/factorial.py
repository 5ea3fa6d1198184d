# SPDX-License-Identifier: Apache-2.0
"""How much of a classifier's score is the ultrasound? The same small SegNet under every combination of four choices.

Masks from ground truth or from segmenters that never saw the image; frames split at random or by group; the smaller
class repeated before or after the split; the whole frame under the mask (the silhouette shows) or a crop with its
surroundings (it does not). Nothing is tuned and no epoch is chosen: every cell trains for the same number of epochs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.utils import set_determinism
from tqdm import tqdm

from bundle.audit.leaks import share_of_twins, split_by_protocol, summarise_runs
from bundle.data.splits import oversample
from bundle.errors import InputError
from bundle.files import make_folder, read_json, write_atomically, write_json
from bundle.networks import SegNet
from bundle.provenance import describe_run
from bundle.readers import read_image
from bundle.transforms.dictionary import CropLesiond
from bundle.transforms.masks import merge_masks

FACTORS = {
    "masks": ("ground truth", "predicted"),
    "split": ("random", "grouped"),
    "oversampled": ("before", "after"),
    "input": ("masked", "crop"),
}
RATIO = "70:0.001:30"

SETTINGS = {
    "filters": [8, 16, 32, 64],
    "dropout": 0.1,
    "spatial_size": [64, 64],
    "margin": 0.25,
    "epochs": 30,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
}
"""Of the network and its training, the same in every cell. Settled on BUSI, in the cell where the class is easiest to
learn (ground truth, grouped, after, masked): a network that fails there says nothing about the others."""


def run_factorial(
    records: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike[str],
    seeds: int = 3,
    about: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and test a SegNet in all 16 cells and write ``factorial.json``; finished cells are kept on a rerun.

    Args:
        records: as `bundle.audit.leaks.audit_leaks` takes them, each with a predicted "probability".
        output_dir: made if need be; ``cells.jsonl`` there holds what is done.
        seeds: splits and trainings per cell.
        about: the dataset's name, checksum and the like, copied to the result.
        settings: in place of entries of `SETTINGS`.

    Returns:
        what the file holds: per cell the factors, the share of test images with a twin in training, AUROC and accuracy
        with intervals and every run.

    Raises:
        InputError: the folder holds cells of other data or settings.
    """
    make_folder(output_dir)
    chosen = {**SETTINGS, **(settings or {})}
    labels = np.array([record["class"] == "malignant" for record in records])
    groups = [str(record["group"]) for record in records]
    done = _Done(Path(output_dir) / "cells.jsonl", {**(about or {}), "settings": chosen, "images": len(records)})
    images = {
        (source, variant): _show(records, source, variant, chosen)
        for source, variant in product(FACTORS["masks"], FACTORS["input"])
    }
    cells, bar = [], tqdm(total=16 * seeds, desc="Training", unit="network", disable=None)
    for masks, split, when, variant in product(*FACTORS.values()):
        runs: list[tuple[list[int], np.ndarray]] = []
        twins: list[float] = []
        for seed in range(seeds):
            training, test = split_by_protocol(records, RATIO, split == "grouped", when == "before", seed)
            twins.append(share_of_twins(records, training, test))
            if when == "after":
                entries = [{"class": records[index]["class"], "number": index} for index in training]
                training = [entry["number"] for entry in oversample(entries, seed)]
            key = f"{masks}/{split}/{when}/{variant}/{seed}"
            if key not in done.answers:
                done.add(key, _train_and_test(images[masks, variant], labels, training, test, seed, chosen))
            runs.append((test, np.array(done.answers[key])))
            bar.update()
        cells.append(
            {
                **{"masks": masks, "split": split, "oversampled": when, "input": variant},
                "test_images_with_a_twin_in_training": float(np.mean(twins)),
                **summarise_runs(runs, labels, groups),
            }
        )
    bar.close()
    result = {**(about or {}), "images": len(records), "seeds": seeds, "settings": chosen, "cells": cells}
    result["provenance"] = describe_run()
    write_json(Path(output_dir) / "factorial.json", result)
    return result


class _Done:
    """The answers of the cells that are done, a line each, so that an interrupted run goes on."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.answers = path, dict[str, list[float]]()
        header = path.with_name("cells.json")
        known = json.loads(json.dumps(about))
        if header.exists() and read_json(header) != known:
            raise InputError(path, "holds cells of other data or settings", "name another folder, or delete it")
        write_json(header, known)
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                key, answer = json.loads(line)
            except ValueError:
                continue  # the line that was being written when the run was killed
            self.answers[key] = answer
        write_atomically(path, "".join(f"{json.dumps(entry)}\n" for entry in self.answers.items()))

    def add(self, key: str, answer: np.ndarray) -> None:
        self.answers[key] = [round(float(value), 6) for value in answer]
        with open(self.path, "a", encoding="utf-8") as file:
            print(json.dumps([key, self.answers[key]]), file=file)


def _show(records: Sequence[Mapping[str, Any]], source: str, variant: str, chosen: Mapping[str, Any]) -> torch.Tensor:
    """What the network sees of all records, (N, 1, h, w) float32 in [0, 1]."""
    seen = []
    for record in tqdm(records, desc=f"Cutting, {source}, {variant}", disable=None):
        read = read_image(record["image"])
        image = torch.from_numpy(read.tissue / 255)[None]
        if source == "ground truth":
            probability: np.ndarray = merge_masks(record["masks"], record["image"]).astype(np.float32)
        else:
            probability = read_image(record["probability"]).pixels / np.float32(255)
        crop = CropLesiond(
            "image",
            threshold=record.get("threshold", 0.5),
            variant=variant,
            margin=chosen["margin"],
            spatial_size=chosen["spatial_size"],
        )
        cut = crop({"image": MetaTensor(image), "probability": torch.from_numpy(read.cut(probability))[None]})
        seen.append(cut["image"].as_tensor())
    return torch.stack(seen)


def _train_and_test(
    images: torch.Tensor,
    labels: np.ndarray,
    training: Sequence[int],
    test: Sequence[int],
    seed: int,
    chosen: Mapping[str, Any],
) -> np.ndarray:
    """P(malignant) of the test images, (M,), by a network of the last epoch."""
    set_determinism(seed)
    truth = torch.from_numpy(labels.astype(np.float32))
    network = SegNet(1, chosen["filters"], decoder=False, dropout=chosen["dropout"], batch_norm=True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=chosen["learning_rate"], weight_decay=chosen["weight_decay"])
    size, epochs = chosen["batch_size"], chosen["epochs"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, chosen["learning_rate"], total_steps=epochs * max(1, len(training) // size)
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.tensor(list(training))
    for _ in range(epochs):
        shuffled = order[torch.randperm(len(order), generator=generator)]
        for start in range(0, max(1, len(order) // size) * size, size):
            chosen_now = shuffled[start : start + size]
            batch = _move(images[chosen_now], generator)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                network(batch.contiguous(memory_format=torch.channels_last)).reshape(-1), truth[chosen_now]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        parts = [network(images[list(test[i : i + 256])]).reshape(-1).sigmoid() for i in range(0, len(test), 256)]
    return torch.cat(parts).numpy()


def _move(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror images at random, and move and scale them a little."""
    count = len(batch)
    uniform = torch.rand((4, count), generator=generator) * 2 - 1
    zoom = 1 + 0.15 * uniform[0]
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = zoom * uniform[1].sign(), zoom
    matrix[:, 0, 2], matrix[:, 1, 2] = 0.1 * uniform[2], 0.1 * uniform[3]
    grid = torch.nn.functional.affine_grid(matrix, list(batch.shape), align_corners=False)
    return torch.nn.functional.grid_sample(batch, grid, padding_mode="zeros", align_corners=False)
