# SPDX-License-Identifier: Apache-2.0
"""Scores of predicted lesion masks: per case at the image's own resolution, then summaries with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy.spatial import cKDTree

from bundle.errors import UserError
from bundle.evaluation.intervals import DRAWS, LEVEL, METHOD, bootstrap_ratio_by_group
from bundle.evaluation.presence import summarise_presence

MISSED_BELOW = 0.1  # a Dice under this means that the lesion was not found: the overlap is of no use to a reader
WELL_FROM = 0.5  # a Dice from here on means that most of the outline is right
STRETCHED = 256  # pixels per side of the image in which papers on this task give surface distances
THRESHOLDS = np.arange(5, 100, 5) / 100
SIZES = {"below 3 %": (0.0, 0.03), "3 to 10 %": (0.03, 0.1), "10 % and more": (0.1, 1.1)}
"""Of a lesion, as a share of its image: the name of each class of sizes, from and to."""
STRATA = ("device", "birads")
"""What a dataset may tell of an image that results are also given by."""


@dataclass(frozen=True)
class CaseScores:
    """Scores of one image; None marks what is not defined for it.

    Dice, IoU, HD95 and `missed` need a lesion in the ground truth, HD95 a predicted one as well. `false_positive` and
    `false_positive_area` are for images without a lesion. Areas are fractions of the image in [0, 1], `hd95` is in
    pixels of the image as it was stored, `hd95_at_256` in pixels of the image stretched to 256×256, as many papers
    give it, and tp, fp, fn, tn count pixels.
    """

    dice: float | None
    iou: float | None
    hd95: float | None
    hd95_at_256: float | None
    missed: bool | None
    pixel_accuracy: float
    background_accuracy: float
    tp: int
    fp: int
    fn: int
    tn: int
    predicted_area: float
    lesion_area: float
    false_positive: bool | None
    false_positive_area: float | None


def measure_case(probability: np.ndarray, lesion: np.ndarray, threshold: float = 0.5) -> CaseScores:
    """Compare one predicted probability map with its ground truth.

    Args:
        probability: (H, W) float in [0, 1]; a pixel that reaches the threshold is predicted as lesion.
        lesion: (H, W) bool ground truth at the same, native resolution.
        threshold: in (0, 1].

    Returns:
        The case's scores; `background_accuracy` is the pixel accuracy of predicting no lesion at all.

    Raises:
        UserError: the two differ in size, the probabilities leave [0, 1] or the lesion is not bool.
    """
    _check_pair(probability, lesion)
    predicted = probability >= threshold
    tp = int(np.count_nonzero(predicted & lesion))
    fp = int(np.count_nonzero(predicted)) - tp
    fn = int(np.count_nonzero(lesion)) - tp
    pixels = lesion.size
    tn = pixels - tp - fp - fn
    has_lesion = tp + fn > 0
    has_surfaces = has_lesion and tp + fp > 0
    spacings = [(1.0, 1.0), (STRETCHED / lesion.shape[0], STRETCHED / lesion.shape[1])]
    hd95, hd95_at_256 = _surface_distances(predicted, lesion, spacings) if has_surfaces else (None, None)
    dice = 2 * tp / (2 * tp + fp + fn) if has_lesion else None
    return CaseScores(
        dice=dice,
        iou=tp / (tp + fp + fn) if has_lesion else None,
        hd95=hd95,
        hd95_at_256=hd95_at_256,
        missed=None if dice is None else dice < MISSED_BELOW,
        pixel_accuracy=(tp + tn) / pixels,
        background_accuracy=(fp + tn) / pixels,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        predicted_area=(tp + fp) / pixels,
        lesion_area=(tp + fn) / pixels,
        false_positive=None if has_lesion else fp > 0,
        false_positive_area=None if has_lesion else fp / pixels,
    )


def gate(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of an image whose outline counts for nothing where the network tells that there is no lesion.

    Args:
        row: the fields of `CaseScores`; with `told_none` true these become the scores of an empty mask.
    """
    if not row.get("told_none"):
        return row
    lesion = row["dice"] is not None
    return {
        **row,
        **dict.fromkeys(("dice", "iou"), 0.0 if lesion else None),
        **{"hd95": None, "hd95_at_256": None, "missed": True if lesion else None},
        **{"pixel_accuracy": row["background_accuracy"], "predicted_area": 0.0},
        **{"tp": 0, "fp": 0, "fn": row["tp"] + row["fn"], "tn": row["fp"] + row["tn"]},
        **{"false_positive": None if lesion else False, "false_positive_area": None if lesion else 0.0},
    }


def summarise(rows: Sequence[Mapping[str, Any]], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Average the cases' scores, with 95 % bootstrap intervals drawn by group.

    Args:
        rows: one per image: `image`, `class`, `group` and the fields of `CaseScores`, of the map alone; where the
            network has a presence head, also its `presence`, and `told_none`, whether that is below the limit.
        draws: number of bootstrap samples.
        seed: of the bootstrap.

    Every lesion counts everywhere: one that is told to be none has Dice 0. What the map alone scores stands beside, as
    `ungated`.

    Returns:
        A dict ready for JSON: `intervals` (how they were drawn), `lesions` (all images with a lesion), `classes` (the
        same per class), `sizes` (the same per size of the lesion, see `SIZES`) and `normals` (images without a lesion).
        Where rows tell a `dataset`, `datasets` holds lesions and normals of each; where they tell one of `STRATA`, that
        name holds the lesions of each value; where a network told of `presence`, see `summarise_presence`, and
        `ungated` holds lesions and normals by the map alone. Each is a {"estimate", "low", "high"}; HD95 is the mean
        over the cases that define it, and `hd95_undefined` counts the others.
    """
    lesions = [gate(row) for row in rows if row["dice"] is not None]
    classes = sorted({str(row["class"]) for row in lesions})
    sizes = {name: [row for row in lesions if low <= row["lesion_area"] < high] for name, (low, high) in SIZES.items()}
    return {
        "intervals": {"method": METHOD, "level": LEVEL, "draws": draws, "seed": seed},
        "lesions": _summarise_lesions(lesions, draws, seed),
        "classes": {
            name: _summarise_lesions([row for row in lesions if str(row["class"]) == name], draws, seed)
            for name in classes
        },
        "sizes": {name: _summarise_lesions(part, draws, seed) for name, part in sizes.items() if part},
        "normals": _summarise_normals([gate(row) for row in rows if row["dice"] is None], draws, seed),
        **_summarise_presence(rows, draws, seed),
        **{key: part for key in STRATA if (part := _summarise_strata(lesions, key, draws, seed))},
        **_summarise_datasets(rows, draws, seed),
    }


def summarise_doubt(
    rows: Sequence[Mapping[str, Any]], below: float, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Say how often an outline is told as doubtful where it is good, where it is bad, and where there is no lesion.

    Args:
        rows: one per image: `group`, `dice` and `outline_confidence`, which is None where nothing was outlined.
        below: the confidence below which an outline is doubtful, chosen on validation.
        draws: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        A dict ready for JSON: `below`, and for `well_outlined` (Dice of `WELL_FROM` or more), `badly_outlined` and
        `normals` the number of images and the share, with its interval, where the outline is doubtful or there is none.
    """
    told = [{**row, "doubtful": (row["outline_confidence"] or 0) < below} for row in rows]
    parts = {
        "well_outlined": [row for row in told if row["dice"] is not None and row["dice"] >= WELL_FROM],
        "badly_outlined": [row for row in told if row["dice"] is not None and row["dice"] < WELL_FROM],
        "normals": [row for row in told if row["dice"] is None],
    }
    shares = {name: {**_count(part), "doubtful": _mean(part, "doubtful", draws, seed)} for name, part in parts.items()}
    return {"below": below, **shares}


def choose_threshold(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return a threshold in 0.05, 0.10 … 0.95 by its mean Dice over validation cases.

    Of a few dozen cases the best threshold is largely chance. So it is the nearest to 0.5 of all that are no worse than
    the best by more than one standard error of the difference, case by case.

    Each image is read once, into two histograms over the thresholds, so `pairs` may be a generator.

    Args:
        pairs: (probability (H, W) float in [0, 1], lesion (H, W) bool). An image without a lesion counts as Dice 1
            where no pixel reaches the threshold, else as 0.

    Returns:
        The threshold.

    Raises:
        UserError: no pair holds a lesion, or a pair is malformed.
    """
    scores: list[np.ndarray] = []
    cases = 0
    for probability, lesion in pairs:
        _check_pair(probability, lesion)
        # Compare in the map's own precision, as `probability >= threshold` does: float32(0.35) is not 0.35.
        reached = np.searchsorted(THRESHOLDS.astype(probability.dtype), probability.ravel(), side="right")
        predicted = _count_reaching(reached)
        if not lesion.any():
            scores.append((predicted == 0).astype(float))
            continue
        overlap = _count_reaching(reached[lesion.ravel()])
        scores.append(2 * overlap / (predicted + np.count_nonzero(lesion)))
        cases += 1
    if cases == 0:
        raise UserError("no validation case has a lesion, so no threshold can be chosen; check the validation split")
    dice = np.array(scores)
    behind = dice[:, [dice.mean(axis=0).round(9).argmax()]] - dice
    error = behind.std(axis=0, ddof=1) / np.sqrt(len(dice)) if len(dice) > 1 else np.zeros(THRESHOLDS.size)
    good = THRESHOLDS[behind.mean(axis=0) <= error + 1e-12]
    return float(good[np.argmin(np.abs(good - 0.5))])


def _count_reaching(reached: np.ndarray) -> np.ndarray:
    """Return, for each threshold, how many pixels reach it; `reached` is each pixel's number of thresholds reached."""
    histogram = np.bincount(reached, minlength=THRESHOLDS.size + 1)
    return histogram[::-1].cumsum()[::-1][1:]


def _check_pair(probability: np.ndarray, lesion: np.ndarray) -> None:
    """Refuse a probability map and a mask that cannot be compared."""
    if lesion.ndim != 2 or probability.shape != lesion.shape or lesion.size == 0:
        raise UserError(
            f"prediction {probability.shape} and mask {lesion.shape} must be (H, W) of one size; "
            "resize the prediction to the image's own size"
        )
    if lesion.dtype != np.bool_ or not np.issubdtype(probability.dtype, np.floating):
        raise UserError(f"expected a float prediction and a bool mask, not {probability.dtype} and {lesion.dtype}")
    # Written so that NaN fails as well.
    if not (probability.min() >= 0 and probability.max() <= 1):
        raise UserError(
            f"probabilities must be in [0, 1], not {probability.min()} … {probability.max()}; apply the sigmoid first"
        )


def _surface_distances(
    predicted: np.ndarray, lesion: np.ndarray, spacings: Sequence[tuple[float, float]]
) -> list[float]:
    """Return the larger of the two directed 95th percentiles of surface distance, per (row, column) spacing of pixels.

    The numbers are those of MONAI's `compute_hausdorff_distance`: a surface is the pixels of a mask with a side in
    common with its outside, the image's border among it. Only these points are looked at, once for all spacings.
    """
    first, second = (np.argwhere(_edge(mask)) for mask in (predicted, lesion))
    found = []
    for spacing in spacings:
        points = [edge * np.asarray(spacing) for edge in (first, second)]
        directed = [cKDTree(points[1 - i]).query(points[i])[0] for i in (0, 1)]
        found.append(float(max(np.quantile(distances, 0.95) for distances in directed)))
    return found


def _edge(mask: np.ndarray) -> np.ndarray:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.view(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def _count(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {"cases": len(rows), "groups": len({str(row["group"]) for row in rows})}


def _mean(rows: Sequence[Mapping[str, Any]], key: str, draws: int, seed: int) -> dict[str, float | None]:
    """Return the mean of a score over the rows that define it, with its interval."""
    defined = [row for row in rows if row[key] is not None]
    groups = [str(row["group"]) for row in defined]
    return bootstrap_ratio_by_group([float(row[key]) for row in defined], groups, draws=draws, seed=seed).as_dict()


def _summarise_normals(rows: Sequence[Mapping[str, Any]], draws: int, seed: int) -> dict[str, Any]:
    """Return the scores of images without a lesion."""
    return {
        **_count(rows),
        "false_positive_rate": _mean(rows, "false_positive", draws, seed),
        "false_positive_area": _mean(rows, "false_positive_area", draws, seed),
    }


def _summarise_presence(rows: Sequence[Mapping[str, Any]], draws: int, seed: int) -> dict[str, Any]:
    if not rows or any(row.get("presence") is None for row in rows):
        return {}
    ungated = {
        "lesions": _summarise_lesions([row for row in rows if row["dice"] is not None], draws, seed),
        "normals": _summarise_normals([row for row in rows if row["dice"] is None], draws, seed),
    }
    return {"presence": summarise_presence(rows, draws, seed), "ungated": ungated}


def _summarise_datasets(rows: Sequence[Mapping[str, Any]], draws: int, seed: int) -> dict[str, Any]:
    """Return the scores of each dataset, where several were used together."""
    found: dict[str, Any] = {}
    for name in sorted({str(row["dataset"]) for row in rows if row.get("dataset")}):
        part = [row for row in rows if row.get("dataset") == name]
        found[name] = {
            "lesions": _summarise_lesions([gate(row) for row in part if row["dice"] is not None], draws, seed),
            "normals": _summarise_normals([gate(row) for row in part if row["dice"] is None], draws, seed),
            **_summarise_presence(part, draws, seed),
        }
    return {"datasets": found} if found else {}


def _summarise_strata(lesions: Sequence[Mapping[str, Any]], key: str, draws: int, seed: int) -> dict[str, Any]:
    """Return the scores of lesions by what a dataset tells of their images."""
    values = sorted({str(row[key]) for row in lesions if row.get(key)})
    return {
        value: _summarise_lesions([row for row in lesions if str(row.get(key)) == value], draws, seed)
        for value in values
    }


def _summarise_lesions(rows: Sequence[Mapping[str, Any]], draws: int, seed: int) -> dict[str, Any]:
    """Return the scores of images with a lesion."""
    pooled = bootstrap_ratio_by_group(
        [2 * row["tp"] for row in rows],
        [str(row["group"]) for row in rows],
        [2 * row["tp"] + row["fp"] + row["fn"] for row in rows],
        draws=draws,
        seed=seed,
    )
    return {
        **_count(rows),
        "dice": _mean(rows, "dice", draws, seed),
        "iou": _mean(rows, "iou", draws, seed),
        "hd95": _mean(rows, "hd95", draws, seed),
        "hd95_at_256": _mean(rows, "hd95_at_256", draws, seed),
        "hd95_undefined": sum(row["hd95"] is None for row in rows),
        "pixel_accuracy": _mean(rows, "pixel_accuracy", draws, seed),
        "background_accuracy": _mean(rows, "background_accuracy", draws, seed),
        "pooled_dice": pooled.as_dict(),
        "missed": _mean(rows, "missed", draws, seed),
    }
