# SPDX-License-Identifier: Apache-2.0
"""The names of splits, as `--split` takes them: what their words mean, see `bundle.data.splits.split_by_name`."""

from __future__ import annotations

import re

from bundle.errors import UserError

BY_IMAGE = " by image"
"""Ends the name of a split that lets near duplicates cross, as most published ones do: to compare with those alone."""

LEAVE_OUT = "leave out "
"""Begins the name of a split that tests one of several datasets, whole, and trains on the others."""


def parse_split(text: str) -> tuple[tuple[float, ...] | None, tuple[int, int] | None, bool]:
    """The ratio and the fold in "15:5:80", "fold 0 of 5" or "15:5:80, fold 0 of 2", and whether the fold is an own one.

    What is not said is None; `is_by_image`, `parse_left_out` and `parse_one_dataset` tell the rest.

    Raises:
        UserError: the text is of none of these forms.
    """
    if parse_left_out(text) is not None:
        return None, None, False
    one = parse_one_dataset(text)
    if one is not None:
        return parse_ratio(one[1]), None, False
    if is_by_image(text):
        return parse_ratio(text.rstrip().removesuffix(BY_IMAGE)), None, False
    ratio, comma, fold = str(text).partition(",")
    if not comma:
        named = parse_fold(text)
        return (None, named, is_own_fold(text)) if named else (parse_ratio(text), None, False)
    if parse_fold(fold) is None or is_own_fold(fold):
        parse_ratio(text)  # says what may be given
    return parse_ratio(ratio), parse_fold(fold), False


def parse_ratio(text: str) -> tuple[float, float, float]:
    """The shares of training, validation and test in "15:5:80", scaled to a sum of 1. The test share may be 0.

    Raises:
        UserError: the text is not of this form.
    """
    try:
        training, validation, test = (float(number) for number in text.split(":"))
    except (ValueError, AttributeError):
        training = validation = test = 0.0
    total = training + validation + test
    if not (training > 0 and validation > 0 and test >= 0 and total < float("inf")):
        raise UserError(
            f"split '{text}': give training:validation:test as numbers, the first two above 0, such as 15:5:80, "
            "a fold, such as 'fold 0 of 5', both, such as '15:5:80, fold 0 of 2', a fold that the dataset comes with, "
            "such as 'own fold 0 of 5', or, to let near duplicates cross as published splits do, '65:5:30 by image'; "
            "of several datasets, to test one alone, 'leave out NAME', or 'NAME 15:5:80', the others whole in training"
        )
    return training / total, validation / total, test / total


def parse_fold(text: str) -> tuple[int, int] | None:
    """The fold and the number of folds in "fold 0 of 5" or "own fold 0 of 5"; None for a split written as a ratio.

    Raises:
        UserError: there is no such fold.
    """
    match = re.fullmatch(r"(?:own )?fold (\d+) of (\d+)", str(text).strip())
    if match is None:
        return None
    fold, folds = int(match[1]), int(match[2])
    if not (folds >= 2 and fold < folds):
        raise UserError(f"split '{text}': the folds of {folds} are numbered from 0; two or more folds are needed")
    return fold, folds


def is_own_fold(text: str) -> bool:
    """Whether a split is a fold that the dataset comes with, as "own fold 0 of 5"."""
    return parse_fold(text) is not None and str(text).strip().startswith("own")


def is_by_image(text: str) -> bool:
    """Whether a split lets near duplicates cross, as "65:5:30 by image"."""
    return str(text).rstrip().endswith(BY_IMAGE)


def parse_left_out(text: str) -> tuple[str, tuple[int, int] | None] | None:
    """The dataset in "leave out BUSBRA", and the fold in "leave out BUSBRA, inner fold 0 of 2"; None for other splits.

    Raises:
        UserError: there is no such fold.
    """
    match = re.fullmatch(rf"{LEAVE_OUT}(.+?)(?:, inner (fold .+))?", str(text).strip())
    return None if match is None else (match[1], parse_fold(match[2]) if match[2] else None)


def parse_one_dataset(text: str) -> tuple[str, str] | None:
    """The dataset and the ratio in "BUSI 15:5:80", a split of one of several datasets; None for other splits."""
    match = re.fullmatch(r"(.*[^\s,]) +([\d.]+:[\d.]+:[\d.]+)", str(text).strip())
    return None if match is None or match[1].startswith(LEAVE_OUT) else (match[1], match[2])
