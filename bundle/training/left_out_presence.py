# SPDX-License-Identifier: Apache-2.0
"""Draw a segmenter's limit of "no lesion" by images of hospitals and folds that its recipe's networks had not seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.data.split_names import parse_left_out
from bundle.errors import UserError
from bundle.evaluation.intervals import DRAWS, bootstrap_ratio_by_group
from bundle.evaluation.presence import choose_presence
from bundle.files import write_atomically, write_json
from bundle.networks.weights import card_path, require_card
from bundle.provenance import describe_run
from bundle.reports.pooling import Run, read_run
from bundle.training.left_out import check_recipe

_RECIPE = ("architecture", "width", "presence", "presence_mix")
"""What the networks of the runs must have in common with the weights, whose card they speak for."""


def fit_presence_left_out(
    weights: str | os.PathLike[str],
    runs: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the weights, and their card with a limit of "no lesion" that loses few lesions wherever it was tried.

    A limit from validation images of the training's own hospitals loses several times as many lesions in a hospital
    that the network never saw. So it is the highest that loses no more than the allowed share in any hospital of any
    run: left out, or out of fold.

    Args:
        weights: of the segmenter that was trained on all hospitals, with its card.
        runs: evaluated run folders of the recipe: of the split "leave out NAME", of folds, or pooled folds. For the
            weights of a fold give the other folds, for weights without a hospital the inner folds of the others: then
            nothing that they are tested on has drawn their limit.
        output_dir: gets ``model.pt`` and ``.json``.
        draws, seed: of the bootstrap.

    Returns:
        the card. Beside what `choose_presence` returns, its ``presence_points`` hold ``hospitals``: for each how it was
        tried, its counts, the limit that it alone needs, and the share of its lesions lost and of its normals passed,
        with the common limit, with that of the others, if any, and with that of the run's own card; and
        ``on_validation``, what validation had given.

    Raises:
        UserError: a run is not evaluated, is of another recipe, or tells no presence; an image was tried in the same
            way twice; or no image has a lesion.
    """
    card = require_card(weights, ("architecture", "presence_points"))
    original = card["presence_points"].get("on_validation", card["presence_points"])
    seen: dict[str, dict[str, Mapping[str, Any]]] = {}
    used = {}
    for folder in runs:
        run = read_run(Path(folder))
        _check(run, card, weights)
        for image, row in run.rows.items():
            images = seen.setdefault(_name_hospital(run, row), {})
            if image in images:
                raise UserError(f"{run.folder}: {image} was tried by another of the runs; give folds of one split")
            images[image] = row
        used[run.folder.name] = run.metrics["weights"].get("sha256")
    tried = {name: rows for name, images in seen.items() if _lesions(rows := list(images.values()))}
    if not tried:
        raise UserError("the runs have no image with a lesion, so no limit can be drawn")
    needed = {name: _choose(rows, original["most_lost"]) for name, rows in tried.items()}
    hospitals = {}
    for name, rows in tried.items():
        others = [limit for key, limit in needed.items() if key != name]
        hospitals[name] = {
            "lesions": _lesions(rows),
            "without": len(rows) - _lesions(rows),
            "needed": needed[name],
            "common": _count(rows, min(needed.values()), draws, seed),
            "from_others": _count(rows, min(others), draws, seed) if others else None,
            "from_card": _count(rows, None, draws, seed),
        }
    points = {
        **{"none_below": min(needed.values()), "most_lost": original["most_lost"]},
        "hospitals": hospitals,
        "on_validation": original,
        "runs": used,
        "provenance": describe_run(),
    }
    record = {**card, "presence_points": points}
    target = Path(output_dir) / Path(weights).name
    write_atomically(target, Path(weights).read_bytes())
    write_json(card_path(target), record)
    return record


def _check(run: Run, card: Mapping[str, Any], weights: str | os.PathLike[str]) -> None:
    check_recipe(run, card, weights, _RECIPE)
    if any(row.get("presence") is None for row in run.rows.values()):
        raise UserError(f"{run.folder}: its table tells no presence; evaluate it again")


def _name_hospital(run: Run, row: Mapping[str, Any]) -> str:
    """The dataset of an image, and how it was tried."""
    left = parse_left_out(str(run.metrics["provenance"].get("split")))
    how = "left out" if left is not None and left[1] is None else "out of fold"
    return f"{row.get('dataset') or run.metrics['provenance'].get('dataset')}, {how}"


def _lesions(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["dice"] is not None for row in rows)


def _choose(rows: Sequence[Mapping[str, Any]], most_lost: float) -> float:
    points = choose_presence([row["presence"] for row in rows], [row["dice"] is not None for row in rows], most_lost)
    return float(points["none_below"])


def _count(rows: Sequence[Mapping[str, Any]], limit: float | None, draws: int, seed: int) -> dict[str, Any]:
    """The shares of lesions lost and of normals passed, with intervals; by the run's own word without a limit."""
    told = np.array([row["told_none"] if limit is None else row["presence"] < limit for row in rows])
    lesion = np.array([row["dice"] is not None for row in rows])
    groups = np.array([str(row["group"]) for row in rows])

    def share(values: np.ndarray, part: np.ndarray) -> dict[str, Any] | None:
        if not part.any():
            return None
        cases = values[part].astype(float).tolist()
        return bootstrap_ratio_by_group(cases, groups[part].tolist(), draws=draws, seed=seed).as_dict()

    return {"limit": limit, "lost": share(told, lesion), "passed": share(~told, ~lesion)}
