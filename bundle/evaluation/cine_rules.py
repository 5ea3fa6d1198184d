# SPDX-License-Identifier: Apache-2.0
"""Which rule makes the best probability of a cine out of those of its frames: compared by proper scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.evaluation.cine import AGGREGATES, LEAST, Look, follow
from bundle.evaluation.classification import area_under_roc, calibration_error
from bundle.evaluation.drift import calibration_line
from bundle.evaluation.intervals import DRAWS, bootstrap_by_group, bootstrap_ratio_by_group


def score_rules(cines: Sequence[tuple[bool, Sequence[Look]]], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Compare the rules by how well the probabilities that they give to cines are calibrated.

    Args:
        cines: whether the lesion is malignant, and what was found in its frames; those without an outline do not count.
        draws: of the bootstrap over cines.
        seed: of the bootstrap.

    Returns:
        "cines", "malignant", and "rules": by name, of the outlines of the answering track (``followed``) and of all
        outlines (``all outlines``): ``log_loss``, ``brier``, ``ece``, ``auroc`` with intervals, and the ``slope`` of
        the calibration line.
    """
    shown = [(malignant, looks) for malignant, looks in cines if any(look.probability is not None for look in looks)]
    labels = np.array([malignant for malignant, _ in shown], dtype=bool)
    names = [str(number) for number in range(len(labels))]
    rules: dict[str, Any] = {}
    for name, join in AGGREGATES.items():
        every = [join([look.probability for look in looks if look.probability is not None]) for _, looks in shown]
        track = [follow(looks, name).probability for _, looks in shown]
        rules[name] = {
            "followed": score_aggregate(labels, np.array(track, dtype=float), names, draws, seed),
            "all outlines": score_aggregate(labels, np.array(every, dtype=float), names, draws, seed),
        }
    return {"cines": len(shown), "malignant": int(labels.sum()), "rules": rules}


def score_aggregate(
    labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Score the probabilities of wholes, such as cines or patients.

    Args:
        labels: (N,) bool.
        probabilities: (N,) float in [0, 1].
        groups: (N,) by which the bootstrap draws.
        draws, seed: of the bootstrap.

    Returns:
        ``log_loss``, ``brier``, ``ece``, ``auroc`` with intervals, and the ``slope`` of the calibration line.
    """
    kept = np.clip(probabilities, LEAST, 1 - LEAST)
    means = {"log_loss": -np.log(np.where(labels, kept, 1 - kept)), "brier": (probabilities - labels) ** 2}
    told: dict[str, Any] = {
        key: bootstrap_ratio_by_group(values, groups, draws=draws, seed=seed).as_dict() for key, values in means.items()
    }
    for key, statistic in (("ece", calibration_error), ("auroc", area_under_roc)):

        def of_cases(cases: np.ndarray, statistic: Any = statistic) -> float:
            return float(statistic(labels[cases], probabilities[cases]))

        told[key] = bootstrap_by_group(of_cases, groups, draws=draws, seed=seed, reflected=key == "ece").as_dict()
    return {**told, "slope": calibration_line(labels, probabilities)[1]}
