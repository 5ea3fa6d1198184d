# SPDX-License-Identifier: Apache-2.0
"""The whole chain as a list of steps: prepare, train, evaluate, segment, classify, audit. Each is one command."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    overlay = RECIPES[recipe][0]
    sets = [dataset_dir] if isinstance(dataset_dir, Path) else list(dataset_dir)
    common = ("--dataset_dir", str(sets[0]) if len(sets) == 1 else str([str(path) for path in sets]))
    steps: list[Step] = []
    segmented: list[Path] = []
    for fold in [None] if folds is None else range(folds):
        suffix = "" if fold is None else f"_fold{fold}"
        folder = run.with_name(run.name + suffix)
        split = ["--prepared_dir", str(prepared.with_name(prepared.name + suffix)), "--split_seed", str(seed)]
        if fold is not None:
            split += ["--split", f"fold {fold} of {folds}"]
        words = (*_row(row), *segmentation_overrides)
        steps += [
            Step(
                f"train segmentation {name}{suffix}",
                (
                    *("training", *_configs("train", overlay), *common, *split),
                    *("--output_dir", str(folder), "--seed", str(seed), *words),
                ),
                folder / "model.pt",
                trains=True,
            ),
            Step(
                f"evaluate segmentation {name}{suffix}",
                (*_configs("evaluate"), *common, *split, "--output_dir", str(folder)),
                folder / "evaluation" / "metrics.json",
                needs=(folder / "model.pt",),
            ),
        ]
        if classifier_rows:
            segmented.append(folder / "predictions" / "skipped.json")
            steps.append(
                Step(
                    f"segment all images with {name}{suffix}",
                    (
                        *(*_configs("inference"), *common, "--weights", str(folder / "model.pt")),
                        *("--output_dir", str(folder / "predictions")),
                    ),
                    segmented[-1],
                    needs=(folder / "model.pt",),
                )
            )
    if folds:
        runs = [run.with_name(f"{run.name}_fold{fold}") for fold in range(folds)]
        steps.append(_plan_pooling(f"segmentation {name}", runs, run.with_name(f"{run.name}_out_of_fold")))
    words = (*common, "--segmentation_dir", str(run), "--prepared_dir", str(prepared))
    for classifier_row in classifier_rows:
        for source in masks:
            oracle = "oracle_" if source == "oracle" else ""
            full = f"{oracle}{recipe}{f'_row{classifier_row}' if classifier_row else ''}"
            full += f"{f'_{folds}folds' if folds else ''}_seed{seed}"
            folder = output_dir / f"classification_{full}"
            overrides = (*_row(classifier_row), *classification_overrides)
            given = (*words, "--masks", source)
            if not folds:
                steps += _plan_classifier(full, folder, recipe, (seed, seed), given, overrides, segmented)
                continue
            runs = []
            for fold, member in itertools.product(range(folds), range(members)):
                suffix = f"_fold{fold}{f'_member{member}' if members > 1 else ''}"
                runs.append(folder.with_name(folder.name + suffix))
                own = ("--folds", str(folds), "--split", f"fold {fold} of {folds}", *overrides)
                seeds = (seed, seed + MEMBER_SEEDS * member)
                steps += _plan_classifier(full + suffix, runs[-1], recipe, seeds, given, own, segmented)
            steps.append(_plan_pooling(f"classification {full}", runs, folder.with_name(f"{folder.name}_out_of_fold")))
    if recipe == "ours" and classifier_rows and len(sets) == 1:
        leaks = output_dir / f"leaks_{name}"
        sources = ("--segmentation_dir", str(run), "--prepared_dir", str(prepared))
        step = (str(sets[0]), "--output", str(leaks), *sources, *(("--folds", str(folds)) if folds else ()))
        steps.append(
            Step(f"audit leaks {name}", step, leaks / "leaks.json", ("scripts/leak_audit.py",), tuple(segmented))
        )
    return steps


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
    from bundle.data.prepare import require_current  # which takes seconds to import, where there is nothing to compare

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
