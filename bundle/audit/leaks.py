# SPDX-License-Identifier: Apache-2.0
"""What a score can be made of besides the ultrasound: background, silhouettes, twins in training, copied cases.

No network is trained here; `bundle.audit.factorial` asks the same of one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from bundle.data.cases import DIAGNOSES, Case
from bundle.data.check import THREADS
from bundle.data.classifier import Source, middle_threshold, name_sources, prepare_classifier
from bundle.data.datalists import load_datalist
from bundle.data.prepare import ensure_prepared
from bundle.data.roots import dataset_folder
from bundle.data.split_names import parse_ratio
from bundle.data.splits import PARTS, oversample, split_cases
from bundle.errors import UserError
from bundle.evaluation.classification import area_under_roc
from bundle.evaluation.intervals import (
    DRAWS,
    LEVEL,
    METHOD,
    bootstrap_by_group,
    bootstrap_mean_of_runs,
    bootstrap_ratio_by_group,
)
from bundle.files import make_folder, write_json
from bundle.provenance import describe_run
from bundle.readers import read_image
from bundle.transforms.features import FEATURES, GREY_SCALE, SHAPE_FEATURES, describe_lesion
from bundle.transforms.lesion import find_lesion, quantise
from bundle.transforms.masks import merge_masks

PROTOCOLS = {
    "random 70/30": ("70:0.001:30", False, False),
    "random 60/10/30": ("60:10:30", False, False),
    "oversampled, then random 60/10/30": ("60:10:30", False, True),
    "grouped 60/10/30": ("60:10:30", True, False),
}
"""How a dataset is split: training:validation:test, whether groups stay whole, whether it is oversampled before."""

_FOLDS = 5


def split_by_protocol(
    records: Sequence[Mapping[str, Any]], ratio: str, grouped: bool, oversampled: bool, seed: int
) -> tuple[list[int], list[int]]:
    """Split records as a protocol says.

    Args:
        records: with "image", "class" and "group".
        ratio: training:validation:test.
        grouped: keep groups whole.
        oversampled: repeat the smaller class before the split, as papers do that report the copies as new cases.
        seed: of the split.

    Returns:
        The numbers of the training and of the test records; with repetitions where they are oversampled.
    """
    numbers: list[dict[str, Any]] = [{"class": record["class"], "number": i} for i, record in enumerate(records)]
    if oversampled:
        numbers = oversample(numbers, seed)
    cases = [
        Case(
            image=f"{place:06d}",
            masks=(),
            label=entry["class"],
            group=str(records[entry["number"]]["group"]) if grouped else f"{place:06d}",
        )
        for place, entry in enumerate(numbers)
    ]
    parts = split_cases(cases, parse_ratio(ratio), seed)
    training, test = ([numbers[int(case.image)]["number"] for case in parts[part]] for part in ("training", "test"))
    return training, test


def share_of_twins(records: Sequence[Mapping[str, Any]], training: Sequence[int], test: Sequence[int]) -> float:
    """The share of test records whose group also stands in training: the same frame, or the case itself."""
    known = {records[index]["group"] for index in training}
    return float(np.mean([records[index]["group"] in known for index in test]))


def audit_leaks(
    records: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike[str],
    seeds: int = 5,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure the leaks of a dataset and write ``leaks.json``.

    Args:
        records: of all images with a lesion: "image" and "masks" (paths), "class", "group", and, where a segmenter
            that never saw the image predicted a map, "probability" (path). All or none have one.
        output_dir: made if need be.
        seeds: splits per protocol.
        about: the dataset's name, checksum and the like, copied to the result.

    Returns:
        what the file holds: `background`, `silhouettes`, `protocols`; every score with its interval; and the
        `grey_scale` that features of grey levels were counted in.

    Raises:
        UserError: there are fewer than five groups of a class.
    """
    make_folder(output_dir)
    labels = np.array([record["class"] == "malignant" for record in records])
    groups = [str(record["group"]) for record in records]
    for name, chosen in (("malignant", labels), ("benign", ~labels)):
        if len({group for group, wanted in zip(groups, chosen, strict=True) if wanted}) < _FOLDS:
            raise UserError(f"fewer than {_FOLDS} groups are {name}; a leak audit needs more cases")
    sources = ["ground truth", *(["predicted"] if all("probability" in record for record in records) else [])]
    tables: dict[str, np.ndarray] = {}
    shares: list[float] = []
    for source in sources:
        with ThreadPoolExecutor(THREADS) as pool:
            measured = pool.map(partial(_measure, source=source), records)
            described = list(tqdm(measured, total=len(records), desc=f"Measuring, {source}", disable=None))
        tables[source] = np.array([row for row, _ in described])
        shares = shares or [share for _, share in described]
    result: dict[str, Any] = {
        **(about or {}),
        "images": len(records),
        "malignant": int(labels.sum()),
        "groups": len(set(groups)),
        "grey_scale": GREY_SCALE,
        "intervals": {"method": METHOD, "level": LEVEL, "draws": DRAWS, "seed": 0},
        "background": {
            "pixel_accuracy": bootstrap_ratio_by_group(1 - np.array(shares), groups).as_dict(),
            "dice": 0.0,
            "lesion_share": float(np.mean(shares)),
        },
        "majority_accuracy": bootstrap_ratio_by_group(labels if labels.mean() > 0.5 else ~labels, groups).as_dict(),
        "silhouettes": {source: _ask_silhouettes(tables[source], labels, groups) for source in sources},
        "protocols": {
            name: _ask_protocol(records, tables[sources[-1]], labels, groups, protocol, seeds)
            for name, protocol in PROTOCOLS.items()
        },
        "protocol_masks": sources[-1],
        "seeds": seeds,
        "provenance": describe_run(),
    }
    write_json(Path(output_dir) / "leaks.json", result)
    return result


def _measure(record: Mapping[str, Any], source: str) -> tuple[list[float], float]:
    """All features of one lesion, and the share of the image that its ground truth covers."""
    image = read_image(record["image"])
    truth = image.cut(merge_masks(record["masks"], record["image"]))
    if source == "ground truth":
        levels = quantise(truth.astype(np.float32))
    else:
        levels = np.rint(image.cut(read_image(record["probability"]).pixels)).astype(np.uint8)
    described = describe_lesion(image.tissue, levels, find_lesion(levels, record.get("threshold", 0.5)))
    return [described[name] for name in FEATURES], float(truth.mean())


def _ask_silhouettes(table: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """How well a lesion's shape, and its shape and grey levels, tell the class; out of fold, groups whole."""
    shape = table[:, [FEATURES.index(name) for name in SHAPE_FEATURES]]
    # Solidity needs no fit: a ragged outline is the more malignant.
    answers = {"solidity alone": -table[:, FEATURES.index("solidity")]}
    for name, values in ((f"{len(SHAPE_FEATURES)} shape features", shape), (f"all {len(FEATURES)} features", table)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=5000))
        folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
        answers[name] = cross_val_predict(model, values, labels, groups=groups, cv=folds, method="predict_proba")[:, 1]
    scores = {}
    for name, answer in answers.items():
        area = partial(_area, labels, answer)
        scores[name] = {"auroc": bootstrap_by_group(area, groups).as_dict(), "accuracy": None}
        if name != "solidity alone":
            scores[name]["accuracy"] = bootstrap_ratio_by_group((answer >= 0.5) == labels, groups).as_dict()
    return scores


def _ask_protocol(
    records: Sequence[Mapping[str, Any]],
    table: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    protocol: tuple[str, bool, bool],
    seeds: int,
) -> dict[str, Any]:
    """One classifier on measured features under one way of splitting, over several splits."""
    twins, runs = [], []
    for seed in range(seeds):
        training, test = split_by_protocol(records, *protocol, seed)
        twins.append(share_of_twins(records, training, test))
        # A forest remembers what it saw, as a large network does.
        model = RandomForestClassifier(300, random_state=seed, n_jobs=1).fit(table[training], labels[training])
        runs.append((test, model.predict_proba(table[test])[:, 1]))
    return {"test_images_with_a_twin_in_training": float(np.mean(twins)), **summarise_runs(runs, labels, groups)}


def summarise_runs(
    runs: Sequence[tuple[Sequence[int], np.ndarray]], labels: np.ndarray, groups: Sequence[str]
) -> dict[str, Any]:
    """AUROC and accuracy over several splits and seeds: the mean with its interval, and what each run scored.

    Args:
        runs: for each, the numbers of its test cases and P(malignant) of them.
        labels: (N,) bool of all cases.
        groups: N group names.
    """
    areas, hits, each = [], [], []
    for test, answer in runs:
        truth, names = labels[list(test)], [groups[index] for index in test]
        areas.append((partial(_area, truth, answer), names))
        hits.append((partial(_mean, (answer >= 0.5) == truth), names))
        everything = np.arange(len(test))
        each.append({"auroc": areas[-1][0](everything), "accuracy": hits[-1][0](everything)})
    return {
        "auroc": bootstrap_mean_of_runs(areas).as_dict(),
        "accuracy": bootstrap_mean_of_runs(hits).as_dict(),
        "runs": each,
    }


def _area(labels: np.ndarray, scores: np.ndarray, cases: np.ndarray) -> float:
    return area_under_roc(labels[cases], scores[cases])


def _mean(values: np.ndarray, cases: np.ndarray) -> float:
    return float(values[cases].mean()) if cases.size else float("nan")


def read_records(
    dataset: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    segmentation_dir: str | os.PathLike[str] | None = None,
    prepared_dir: str | os.PathLike[str] | None = None,
    folds: int | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The images with a lesion as `audit_leaks` takes them, and what is to be told of the dataset.

    Args:
        dataset: a folder or a CSV manifest.
        output_dir: gets the datalists, in ``prepared``.
        segmentation_dir, prepared_dir, folds: of the segmenters whose maps are used, as
            `bundle.data.classifier.name_sources` takes them; only images that a segmenter never saw are kept. None for
            ground truth alone.

    Raises:
        UserError: as `bundle.data.prepare.ensure_prepared` and `bundle.data.classifier.prepare_classifier`.
    """
    prepared, folder = Path(output_dir) / "prepared", dataset_folder(Path(dataset))
    if segmentation_dir is None or prepared_dir is None:
        datalist = ensure_prepared(dataset, prepared, split="15:5:80", seed=0)
        maps: dict[str, str] = {}
        threshold = 0.5
    else:
        sources = name_sources(segmentation_dir, prepared_dir, folds)
        datalist = load_datalist(sources[0]["datalist"], folder)
        classified = prepare_classifier([Source(**source) for source in sources], folder, prepared)
        maps = {record["image"]: record["probability"] for part in PARTS for record in classified[part]}
        threshold = middle_threshold(sources)
    records = [
        {
            **{"image": record["image"], "masks": record["label"], "class": record["class"], "group": record["group"]},
            **({"probability": maps[record["image"]], "threshold": threshold} if maps else {}),
        }
        for part in PARTS
        for record in datalist[part]
        if record["class"] in DIAGNOSES and (not maps or record["image"] in maps)
    ]
    about = {key: datalist[key] for key in ("name", "synthetic", "dataset_sha256")}
    about["segmenters"] = classified["segmenter_sha256"] if maps else []
    return sorted(records, key=lambda record: str(record["image"])), about
