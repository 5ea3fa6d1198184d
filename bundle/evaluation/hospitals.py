# SPDX-License-Identifier: Apache-2.0
"""Temperature, operating points and prediction sets that are meant for a hospital nobody has seen yet.

On validation images of the training's own hospitals a classifier looks better than it is elsewhere. So each hospital is
left out once; the scores of a network that never saw it say by how much probabilities are too extreme in a new place,
and which thresholds would have been needed there. Each hospital counts as one, whatever its number of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from bundle.errors import UserError
from bundle.evaluation.classification import calibration_error, fit_temperature
from bundle.evaluation.conformal import COVERAGE, fit_conformal
from bundle.evaluation.intervals import DRAWS, LEVEL, METHOD, REFLECTED, bootstrap_by_group, bootstrap_ratio_by_group
from bundle.evaluation.recalibration import choose_reachable_point


@dataclass(frozen=True)
class Hospital:
    """A hospital's lesions, scored by networks that were trained without it; (N,) each.

    Args:
        logit: of malignancy, calibrated where the networks were trained; NaN where nothing is outlined.
        malignant: bool.
        group: of near duplicates or one patient.
        points: by a sensitivity, the threshold that was chosen for it on validation images of the training.
    """

    logit: np.ndarray
    malignant: np.ndarray
    group: Sequence[str]
    points: Mapping[float, float]

    def probability(self, factor: float) -> np.ndarray:
        """P(malignant), logits divided by the factor; 0 where nothing is outlined."""
        return np.where(np.isfinite(self.logit), expit(np.nan_to_num(self.logit) / factor), 0.0)

    def factor(self) -> float:
        """The temperature that this hospital alone would ask for."""
        shown = np.isfinite(self.logit)
        return fit_temperature(self.logit[shown], self.malignant[shown])


def fit_across(
    hospitals: Mapping[str, Hospital], wishes: Sequence[float], draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Fit what a new hospital is answered with, and say what each left-out one reached.

    The factor is the geometric mean of the hospitals' own. A threshold is the lowest that any hospital needs, over all
    its lesions: the wish is reached in each. Limits of prediction sets likewise keep their promise in each.

    Args:
        hospitals: two or more, by name.
        wishes: sensitivities.
        draws, seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `factor` for the temperature; `operating_points`, each with `sensitivity` and
        `specificity`, the lowest of any hospital; `conformal`; `intervals`; and `hospitals`: for each its counts, the
        calibration error and the sensitivity and specificity at each point, `from_validation` of its own networks, and
        `from_others`: with factor and thresholds fitted on the other hospitals alone, so what a new one can expect.

    Raises:
        UserError: there is one hospital only, or one lacks outlined lesions of a class.
    """
    if len(hospitals) < 2:
        raise UserError("one hospital only; leave out each of two or more in turn")
    for name, hospital in hospitals.items():
        if len(np.unique(hospital.malignant[np.isfinite(hospital.logit)])) < 2:
            raise UserError(f"{name}: has no outlined lesion of one of the classes, so nothing can be fitted on it")
    factor, points = _fit(list(hospitals.values()), wishes)
    lowest = []
    for wish, threshold in points.items():
        reached = [_rates(hospital, hospital.probability(factor), threshold) for hospital in hospitals.values()]
        sensitivity, specificity = (float(min(pair[place] for pair in reached)) for place in (0, 1))
        lowest.append(
            {
                **{"sensitivity_wish": wish, "threshold": threshold},
                **{"sensitivity": sensitivity, "specificity": specificity},
            }
        )
    return {
        "factor": factor,
        "operating_points": lowest,
        "conformal": _fit_sets(list(hospitals.values()), factor),
        "intervals": {"method": METHOD, "ece": REFLECTED, "level": LEVEL, "draws": draws, "seed": seed},
        "hospitals": {
            name: _tell(hospital, [other for key, other in hospitals.items() if key != name], wishes, draws, seed)
            for name, hospital in hospitals.items()
        },
    }


def _fit(hospitals: Sequence[Hospital], wishes: Sequence[float]) -> tuple[float, dict[float, float]]:
    factor = float(np.exp(np.mean([np.log(hospital.factor()) for hospital in hospitals])))
    points = {}
    for wish in wishes:
        needed = [
            choose_reachable_point(hospital.probability(factor), hospital.malignant, wish) for hospital in hospitals
        ]
        points[float(wish)] = min(point["threshold"] for point in needed)
    return factor, points


def _fit_sets(hospitals: Sequence[Hospital], factor: float) -> dict[str, float]:
    limits = []
    for hospital in hospitals:
        shown = np.isfinite(hospital.logit)
        limits.append(fit_conformal(hospital.probability(factor)[shown], hospital.malignant[shown]))
    return {"coverage": COVERAGE, **{name: min(own[name] for own in limits) for name in ("benign", "malignant")}}


def _tell(
    hospital: Hospital, others: Sequence[Hospital], wishes: Sequence[float], draws: int, seed: int
) -> dict[str, Any]:
    factor, points = _fit(others, wishes)
    return {
        "images": len(hospital.malignant),
        "malignant": int(hospital.malignant.sum()),
        "not_outlined": int((~np.isfinite(hospital.logit)).sum()),
        "own_factor": hospital.factor(),
        "from_validation": _score(hospital, 1.0, hospital.points, draws, seed),
        "from_others": _score(hospital, factor, points, draws, seed),
    }


def _score(hospital: Hospital, factor: float, points: Mapping[float, float], draws: int, seed: int) -> dict[str, Any]:
    probability, truth, groups = hospital.probability(factor), hospital.malignant, hospital.group

    def share(top: np.ndarray, bottom: np.ndarray) -> dict[str, float | None]:
        return bootstrap_ratio_by_group(top, groups, bottom, draws=draws, seed=seed).as_dict()

    error = bootstrap_by_group(
        lambda cases: calibration_error(truth[cases], probability[cases]),
        groups,
        draws=draws,
        seed=seed,
        reflected=True,
    )
    return {
        "factor": factor,
        "ece": error.as_dict(),
        "operating_points": [
            {
                **{"sensitivity_wish": wish, "threshold": threshold},
                "sensitivity": share(truth & (probability >= threshold), truth),
                "specificity": share(~truth & (probability < threshold), ~truth),
            }
            for wish, threshold in points.items()
        ],
    }


def _rates(hospital: Hospital, probability: np.ndarray, threshold: float) -> tuple[float, float]:
    truth = hospital.malignant
    return float((probability[truth] >= threshold).mean()), float((probability[~truth] < threshold).mean())
