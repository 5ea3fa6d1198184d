# SPDX-License-Identifier: Apache-2.0
"""Give a classifier's card what its recipe needed in hospitals that were left out of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from bundle.data.split_names import parse_left_out
from bundle.errors import UserError
from bundle.evaluation.hospitals import Hospital, fit_across
from bundle.evaluation.intervals import DRAWS
from bundle.files import write_atomically, write_json
from bundle.networks.weights import card_path, require_card
from bundle.provenance import describe_run
from bundle.reports.pooling import CLIP, Run, read_run

_RECIPE = ("architecture", "in_channels", "variant", "margin", "spatial_size", "masks")
"""What the left-out networks must have in common with the weights, whose card they speak for."""
_FITTED = ("temperature", "operating_points", "conformal")


def fit_left_out(
    weights: str | os.PathLike[str],
    runs: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the weights, and their card with temperature, operating points and prediction sets of left-out hospitals.

    The networks of the runs are others than the weights, of one recipe. So what carries over is by how much the
    temperature of their own validation was too low in the hospital that they had not seen: by this factor that of the
    weights is raised. Thresholds are of probabilities after it.

    Args:
        weights: of the classifier that was trained on all hospitals, with its card.
        runs: evaluated run folders whose split is "leave out NAME", one for each hospital.
        output_dir: gets ``model_classifier.pt`` and ``.json``.
        draws, seed: of the bootstrap.

    Returns:
        the card. `left_out` in it is what `fit_across` returns, with the runs, and what validation had given
        (`on_validation`), from which another call begins.

    Raises:
        UserError: a run is not evaluated, leaves no hospital out, or is of another recipe; two leave out the same one;
            or `fit_across` refuses them.
    """
    card = require_card(weights, (*_RECIPE, "temperature", "operating_points"))
    original = {**card, **card.get("left_out", {}).get("on_validation", {})}
    read: dict[str, Run] = {}
    for folder in runs:
        run = read_run(Path(folder))
        name = _hospital_of(run)
        _check(run, card, weights)
        if name in read:
            raise UserError(f"{run.folder}: leaves out {name}, as {read[name].folder} does; give one run of each")
        read[name] = run
    wishes = [point["sensitivity_wish"] for point in original["operating_points"]]
    fitted = fit_across({name: _as_hospital(run) for name, run in read.items()}, wishes, draws, seed)
    known = card.get("datasets") or {}
    record = {
        **card,
        "temperature": original["temperature"] * fitted["factor"],
        "operating_points": fitted["operating_points"],
        "conformal": fitted["conformal"],
        "left_out": {
            "on_validation": {key: original.get(key) for key in _FITTED},
            **{key: value for key, value in fitted.items() if key not in ("operating_points", "conformal")},
            "runs": {name: {"run": run.folder.name, "weights_sha256": run.metrics["weights"].get("sha256")}
                     for name, run in read.items()},
            "not_trained_on": sorted(set(read) - set(known)),
            "provenance": describe_run(),
        },
    }  # fmt: skip
    target = Path(output_dir) / "model_classifier.pt"
    write_atomically(target, Path(weights).read_bytes())
    write_json(card_path(target), record)
    return record


def _hospital_of(run: Run) -> str:
    if not run.is_classification:
        raise UserError(f"{run.folder}: is no run of a classifier; give those whose split is 'leave out NAME'")
    left = parse_left_out(str(run.metrics["provenance"].get("split")))
    if left is None or left[1] is not None:
        split = run.metrics["provenance"].get("split")
        raise UserError(f"{run.folder}: its split is '{split}'; give runs whose split is 'leave out NAME'")
    return left[0]


def _check(run: Run, card: Mapping[str, Any], weights: str | os.PathLike[str]) -> None:
    """Refuse a run whose networks say nothing of these weights."""
    check_recipe(run, card, weights, _RECIPE)
    theirs = run.metrics["weights"]
    wishes = [[point["sensitivity_wish"] for point in one["operating_points"]] for one in (theirs, card)]
    if wishes[0] != wishes[1]:
        raise UserError(f"{run.folder}: its operating points are meant for {wishes[0]}, those of {weights} {wishes[1]}")
    if (theirs.get("fusion") is None) != (card.get("fusion") is None):
        raise UserError(f"{run.folder}: one of it and {weights} joins measured features; give runs of the same recipe")


def check_recipe(run: Run, card: Mapping[str, Any], weights: str | os.PathLike[str], keys: Sequence[str]) -> None:
    """Refuse a run whose networks differ from weights in an entry of their cards, or whose data are made otherwise.

    Args:
        run: evaluated.
        card: of the weights.
        weights: named in the message.
        keys: of the entries.

    Raises:
        UserError: they differ.
    """
    theirs = run.metrics["weights"]
    for key in keys:
        if theirs.get(key) != card.get(key):
            raise UserError(
                f"{run.folder}: its {key} is {theirs.get(key)}, that of {weights} {card.get(key)}; "
                "give runs of the same recipe"
            )
    if bool(run.metrics["synthetic"]) != bool(card.get("synthetic")):
        raise UserError(f"{run.folder}: one of it and {weights} is of a SYNTHETIC phantom; give runs of the same data")


def _as_hospital(run: Run) -> Hospital:
    rows = list(run.rows.values())
    probability = np.array([row["probability"] for row in rows], dtype=float).clip(CLIP, 1 - CLIP)
    outlined = np.array([bool(row.get("outlined", True)) for row in rows])
    points = {point["sensitivity_wish"]: point["threshold"] for point in run.metrics["weights"]["operating_points"]}
    return Hospital(
        logit=np.where(outlined, logit(probability), np.nan),
        malignant=np.array([row["label"] == 1 for row in rows]),
        group=[str(row["group"]) for row in rows],
        points=points,
    )
