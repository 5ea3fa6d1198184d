# SPDX-License-Identifier: Apache-2.0
"""Which images of a dataset the weights of a folder never saw, so that what is measured on them is honest."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data.cases import DIGITS, Case, CaseList
from bundle.data.check import LEFT_OUT, check_dataset
from bundle.data.training_sets import SAME_PIXELS, read_training_sets, refuse_training_set
from bundle.errors import UserError
from bundle.networks.weights import read_card
from bundle.prediction.predictor import weights_in


@dataclass(frozen=True)
class Unseen:
    """The images of a dataset that may be scored.

    Args:
        cards: of the segmenter and the classifier, by these names.
        checked: the whole dataset, its bad images skipped.
        trained: checksum of each dataset the weights were trained on -> first digits of its images' checksums.
        cases: to score; at least one.
        left_out: the others, each with its path and the reason.
    """

    cards: dict[str, dict[str, Any]]
    checked: CaseList
    trained: dict[str, set[str]]
    cases: list[Case]
    left_out: list[dict[str, str]]


def find_unseen(
    dataset: Path,
    models: str | os.PathLike[str],
    small: bool = False,
    *,
    layout: str | None = None,
    leave_out: Collection[str] = (),
    trained_on: Sequence[str | os.PathLike[str]] = (),
    seen: Mapping[str, Collection[str]] | None = None,
) -> Unseen:
    """Check a dataset, and leave out what the weights saw and what is not wanted.

    Args:
        dataset: a folder or a CSV manifest.
        models, small: the weights, as `weights_in` takes them.
        layout: as `bundle.data.check.list_dataset` takes it; None to detect it.
        leave_out: flags of `bundle.data.cases.FLAGS`; images with one of them are left out.
        trained_on: prepared folders of what the weights were trained on, where `trained_on.json` beside them does not
            know; images with the same pixels, of whatever part, are left out.
        seen: what else was seen, as `choose_cases` takes it.

    Raises:
        UserError: the dataset is the one that the weights were trained on, or bears its name and nothing tells which
            images those were; or no image is left.
    """
    files = weights_in(models, small)
    cards = {name: read_card(file) for name, file in zip(("segmenter", "classifier"), files, strict=True)}
    checked = check_dataset(dataset, skip_bad=True, layout=layout)
    trained = read_training_sets(trained_on, files[0].parent, cards)
    refuse_training_set(checked, cards, dataset, trained)
    reasons = {SAME_PIXELS: set().union(*trained.values()), **(seen or {})}
    cases, left_out = choose_cases(checked.cases, leave_out, reasons)
    if not cases:
        reason = left_out[0]["reason"]
        raise UserError(f"{dataset}: no image is left to score; the first was left out because: {reason}")
    return Unseen(cards, checked, trained, cases, left_out)


def choose_cases(
    cases: Sequence[Case], leave_out: Collection[str], seen: Mapping[str, Collection[str]]
) -> tuple[list[Case], list[dict[str, str]]]:
    """Return the cases to score, and the others with the reason.

    Args:
        cases: of the dataset.
        leave_out: flags that are not wanted.
        seen: why an image is not unseen -> the first digits of the checksums of the pixels of those that are not.
    """
    kept, left_out = [], []
    for case in cases:
        reasons = [f"{LEFT_OUT} {flag}" for flag in case.flags if flag in leave_out]
        reasons += [reason for reason, pixels in seen.items() if case.sha256[:DIGITS] in pixels]
        if reasons:
            left_out.append({"path": case.image, "reason": reasons[0]})
        else:
            kept.append(case)
    return kept, left_out
