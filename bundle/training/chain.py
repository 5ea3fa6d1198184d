# SPDX-License-Identifier: Apache-2.0
"""The whole chain as a list of steps: prepare, train, evaluate, segment, classify, audit. Each is one command."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.data.changes import require_current
from bundle.errors import InputError
from bundle.training.steps import Step

SEGMENTATION_ROWS, CLASSIFICATION_ROWS = (1, 2, 3, 4), (1, 2, 3)
RECIPES = {
    "ours": ("unet_segmentation", "segnet_classifier"),
    "lite": ("lite_segmentation", "lite_classifier"),
    "paper": ("paper_segmentation", "paper_classifier"),
}
"""The overlays of each recipe, for the segmenter and for the classifier."""

MEMBER_SEEDS = 1000
"""Between the seeds of an ensemble's members, so that they never meet those of another --seeds."""


def plan_chain(
    dataset_dir: Path | Sequence[Path],
    output_dir: Path,
    recipe: str,
    seed: int,
    row: int | None = None,
    classifier_rows: Sequence[int | None] = (None,),
    masks: Sequence[str] = ("predicted",),
    folds: int | None = None,
    members: int = 1,
    segmentation_overrides: Sequence[str] = (),
    classification_overrides: Sequence[str] = (),
) -> list[Step]:
    """Return the steps of one segmenter, or of one per fold, of the classifiers that use the masks, and of their audit.

    Args:
        dataset_dir: the dataset, or several that are used together; the audit of leaks is of one alone.
        output_dir: gets a folder per network.
        recipe: of `RECIPES`.
        seed: of the training and of the split.
        row: of the paper's Table 1.
        classifier_rows: of the paper's Table 2; (None,) for ours, () for no classifier.
        masks: what the classifiers see: "predicted", and "oracle" for the ground truth beside it.
        folds: cross-validate: so many segmenters and classifiers, each tested on its fold, and their results pooled.
        members: classifiers per fold, of other seeds, whose answers are averaged; with folds only.
        segmentation_overrides, classification_overrides: further words, such as ``--max_epochs 2``.
    """
    name = f"{recipe}{f'_row{row}' if row else ''}{f'_{folds}folds' if folds else ''}_seed{seed}"
    run, prepared = output_dir / f"segmentation_{name}", output_dir / "prepared" / f"seed{seed}"
    if folds:
        prepared = prepared.with_name(f"seed{seed}_{folds}folds")
    sets = [dataset_dir] if isinstance(dataset_dir, Path) else list(dataset_dir)
    common = ("--dataset_dir", str(sets[0]) if len(sets) == 1 else str([str(path) for path in sets]))
    words = (*_row(row), *segmentation_overrides)
    steps, maps = _plan_segmenters(name, run, prepared, RECIPES[recipe][0], seed, folds, common, words)
    if not classifier_rows:
        return [step for step in steps if step.result not in maps]
    given = (*common, "--segmentation_dir", str(run), "--prepared_dir", str(prepared))
    for classifier_row, source in itertools.product(classifier_rows, masks):
        full = f"{'oracle_' if source == 'oracle' else ''}{recipe}{f'_row{classifier_row}' if classifier_row else ''}"
        full += f"{f'_{folds}folds' if folds else ''}_seed{seed}"
        words = (*_row(classifier_row), *classification_overrides)
        seen = (*given, "--masks", source)
        steps += _plan_classifiers(full, output_dir, recipe, seed, folds, members, seen, words, maps)
    if recipe == "ours" and len(sets) == 1:
        leaks = output_dir / f"leaks_{name}"
        sources = ("--segmentation_dir", str(run), "--prepared_dir", str(prepared))
        step = (str(sets[0]), "--output", str(leaks), *sources, *(("--folds", str(folds)) if folds else ()))
        steps.append(Step(f"audit leaks {name}", step, leaks / "leaks.json", ("scripts/leak_audit.py",), tuple(maps)))
    return steps


def _plan_segmenters(
    name: str,
    run: Path,
    prepared: Path,
    overlay: str,
    seed: int,
    folds: int | None,
    common: Sequence[str],
    overrides: Sequence[str],
) -> tuple[list[Step], list[Path]]:
    """Training, evaluation and segmentation of all images, by one segmenter or by one per fold, pooled.

    Returns:
        The steps, and the results of those that segment all images.
    """
    steps: list[Step] = []
    maps: list[Path] = []
    for fold in [None] if folds is None else range(folds):
        suffix = "" if fold is None else f"_fold{fold}"
        folder = run.with_name(run.name + suffix)
        split = ["--prepared_dir", str(prepared.with_name(prepared.name + suffix)), "--split_seed", str(seed)]
        if fold is not None:
            split += ["--split", f"fold {fold} of {folds}"]
        train = ("training", *_configs("train", overlay), *common, *split, "--output_dir", str(folder))
        evaluate = (*_configs("evaluate"), *common, *split, "--output_dir", str(folder))
        segment = (*_configs("inference"), *common, "--weights", str(folder / "model.pt"))
        segment += ("--output_dir", str(folder / "predictions"))
        weights, own = folder / "model.pt", f"{name}{suffix}"
        metrics = folder / "evaluation" / "metrics.json"
        maps.append(folder / "predictions" / "skipped.json")
        steps += [
            Step(f"train segmentation {own}", (*train, "--seed", str(seed), *overrides), weights, trains=True),
            Step(f"evaluate segmentation {own}", evaluate, metrics, needs=(weights,)),
            Step(f"segment all images with {own}", segment, maps[-1], needs=(weights,)),
        ]
    if folds:
        runs = [run.with_name(f"{run.name}_fold{fold}") for fold in range(folds)]
        steps.append(_plan_pooling(f"segmentation {name}", runs, run.with_name(f"{run.name}_out_of_fold")))
    return steps, maps


def _plan_classifiers(
    name: str,
    output_dir: Path,
    recipe: str,
    seed: int,
    folds: int | None,
    members: int,
    common: Sequence[str],
    overrides: Sequence[str],
    segmented: Sequence[Path],
) -> list[Step]:
    """Training and evaluation of one classifier, or of the members of each fold, pooled."""
    folder = output_dir / f"classification_{name}"
    if not folds:
        return _plan_classifier(name, folder, recipe, (seed, seed), common, overrides, segmented)
    steps, runs = [], []
    for fold, member in itertools.product(range(folds), range(members)):
        suffix = f"_fold{fold}{f'_member{member}' if members > 1 else ''}"
        runs.append(folder.with_name(folder.name + suffix))
        own = ("--folds", str(folds), "--split", f"fold {fold} of {folds}", *overrides)
        seeds = (seed, seed + MEMBER_SEEDS * member)
        steps += _plan_classifier(name + suffix, runs[-1], recipe, seeds, common, own, segmented)
    return [*steps, _plan_pooling(f"classification {name}", runs, folder.with_name(f"{folder.name}_out_of_fold"))]


def _plan_pooling(name: str, runs: Sequence[Path], folder: Path) -> Step:
    result = folder / "evaluation"
    words = (*map(str, runs), "--output", str(result))
    needs = tuple(run / "evaluation" / "metrics.json" for run in runs)
    return Step(f"pool {name}", words, result / "metrics.json", ("scripts/pool_folds.py",), needs)


def _plan_classifier(
    name: str,
    folder: Path,
    recipe: str,
    seeds: tuple[int, int],
    common: Sequence[str],
    overrides: Sequence[str],
    segmented: Sequence[Path],
) -> list[Step]:
    """Training and evaluation, once all maps are there; the seeds are of the split and of the network."""
    overlay = RECIPES[recipe][1]
    words = (*common, "--output_dir", str(folder))
    return [
        Step(
            f"train classification {name}",
            (
                *("training", *_configs("train_classifier", overlay), *words, "--split_seed", str(seeds[0])),
                *("--segmentation_split_seed", str(seeds[0]), "--seed", str(seeds[1]), *overrides),
            ),
            folder / "model_classifier.pt",
            needs=tuple(segmented),
            trains=True,
        ),
        Step(
            f"evaluate classification {name}",
            (*_configs("evaluate_classifier"), *words),
            folder / "evaluation" / "metrics.json",
            needs=(folder / "model_classifier.pt",),
        ),
    ]


def require_data_unchanged(dataset_dir: Path | Sequence[Path], output_dir: Path) -> None:
    """Refuse to go on with a chain whose data are not what its finished steps have seen.

    Raises:
        UserError: the dataset gained or lost files, or one has another content.
    """
    prepared = sorted((output_dir / "prepared").glob("*/cases.json"))
    if not prepared:
        return
    for cases in prepared:
        try:
            require_current(dataset_dir, cases.parent)
        except InputError as error:
            mend = f"give another --output_dir, or delete {output_dir} to have all steps made anew"
            raise InputError(error.path, error.reason, mend) from error


def _configs(*names: str) -> tuple[str, str]:
    files = [f"configs/{name}.{'json' if number == 0 else 'yaml'}" for number, name in enumerate(names)]
    return "--config_file", files[0] if len(files) == 1 else str(files)


def _row(row: int | None) -> tuple[Any, ...]:
    return () if row is None else ("--row", str(row))


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path as the steps need it, which run in the bundle's root whatever the caller's folder is."""
    return Path(path).resolve()
