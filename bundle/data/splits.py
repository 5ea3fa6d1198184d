# SPDX-License-Identifier: Apache-2.0
"""Split cases by class without tearing a group, the same on every machine; oversample the training part."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from bundle.data.cases import Case
from bundle.data.dealing import deal_groups, shuffled
from bundle.data.split_names import LEAVE_OUT, is_by_image, parse_left_out, parse_one_dataset, parse_ratio, parse_split
from bundle.errors import UserError

PARTS = ("training", "validation", "test")
UNLABELLED = "unlabelled"
"""The part whose masks a run must not look at: images for consistency training."""

FOLD_VALIDATION = 0.1
"""The share of a fold's training cases that early stopping watches."""

Item = TypeVar("Item")


def split_by_name(cases: Sequence[Case], split: str, seed: int) -> dict[str, list[Case]]:
    """Split cases as a text says: "15:5:80" (`split_cases`), "fold 0 of 5" (`k_fold`), "own fold 0 of 5" (`own_fold`).

    "15:5:80, fold 0 of 2" is 15:5:80 of whose test part only the first of two folds is tested; the rest of it is the
    part `UNLABELLED`. So k trainings use all of its images, but none is tested by a network that saw it.

    "65:5:30 by image" deals out single images, whatever their groups: each case of the result is a group of its own.

    "leave out BUSBRA" tests that one of several datasets and trains on the others, see `leave_out_dataset`;
    "leave out BUSBRA, inner fold 0 of 2" is a fold of these others alone, so that they get masks from networks that saw
    neither them nor the dataset that is left out.

    "BUSI 15:5:80" splits that one of several datasets; the others help to train, see `split_one_dataset`.

    Raises:
        UserError: the text is of no such form, there are fewer groups than folds, or no such folds or dataset.
    """
    ratio, fold, own = parse_split(split)
    left_out = parse_left_out(split)
    if left_out is not None:
        name, inner = left_out
        if inner is None:
            return leave_out_dataset(cases, name, seed)
        outside = leave_out_dataset(cases, name, seed)
        return k_fold([*outside["training"], *outside["validation"]], inner[1], seed)[inner[0]]
    one = parse_one_dataset(split)
    if one is not None:
        return split_one_dataset(cases, one[0], parse_ratio(one[1]), seed)
    if is_by_image(split):
        cases = [replace(case, group=case.image) for case in cases]
    if ratio is None:
        assert fold is not None
        return own_fold(cases, *fold, seed) if own else k_fold(cases, fold[1], seed)[fold[0]]
    parts = split_cases(cases, ratio, seed)
    if fold is None:
        return parts
    groups = len({case.group for case in parts["test"]})
    if fold[1] > groups:
        raise UserError(f"split '{split}': the test part has {groups} groups of near duplicates, fewer than folds")
    folds = deal_groups(parts["test"], [1 / fold[1]] * fold[1], seed)
    unseen = folds.pop(fold[0])
    rest = sorted((case for part in folds for case in part), key=lambda case: case.image)
    return {**parts, "test": unseen, UNLABELLED: rest}


def split_cases(cases: Sequence[Case], ratio: Sequence[float], seed: int) -> dict[str, list[Case]]:
    """Split cases into training, validation and test, each class in the given ratio and no group in two parts.

    Each part of each class misses its share by less than the largest group, unless groups hold several classes.
    """
    return dict(zip(PARTS, deal_groups(cases, ratio, seed), strict=True))


def k_fold(cases: Sequence[Case], k: int, seed: int) -> list[dict[str, list[Case]]]:
    """Split cases k times, so that each case is tested once; `FOLD_VALIDATION` of the others is the validation part.

    Raises:
        UserError: k is below 2 or above the number of groups.
    """
    groups = len({case.group for case in cases})
    if not 2 <= k <= groups:
        raise UserError(f"folds: {k} is not between 2 and {groups}, the number of groups of near duplicates")
    tests = deal_groups(cases, [1 / k] * k, seed)
    folds = []
    for test in tests:
        tested = {case.image for case in test}
        rest = [case for case in cases if case.image not in tested]
        training, validation = deal_groups(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
        folds.append(dict(zip(PARTS, (training, validation, test), strict=True)))
    return folds


def own_fold(cases: Sequence[Case], fold: int, folds: int, seed: int) -> dict[str, list[Case]]:
    """Split cases by the folds that the dataset comes with: one is tested, `FOLD_VALIDATION` of the rest validates.

    A case outside the tested fold whose group stands in it as well is in no part: the test is kept as published.

    Args:
        cases: with `details["fold"]`.
        fold: counted from 0, in the order of the folds' names.
        folds: how many the dataset has.
        seed: of the validation part.

    Raises:
        UserError: a case has no fold, or their number is another.
    """
    lacking = [case.image for case in cases if not case.details.get("fold")]
    names = sorted({case.details.get("fold", "") for case in cases}, key=lambda name: (len(name), name))
    if lacking or len(names) != folds:
        found = f"{lacking[0]} has none" if lacking else f"it has {len(names)}"
        raise UserError(
            f"own folds: {folds} asked for, but of the dataset's own {found}; give 'fold {fold} of {folds}'"
        )
    test = [case for case in cases if case.details["fold"] == names[fold]]
    tested = {case.group for case in test}
    rest = [case for case in cases if case.details["fold"] != names[fold] and case.group not in tested]
    training, validation = deal_groups(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
    return dict(zip(PARTS, (training, validation, sorted(test, key=lambda case: case.image)), strict=True))


def leave_out_dataset(cases: Sequence[Case], name: str, seed: int) -> dict[str, list[Case]]:
    """Test one of several datasets, whole, as another hospital; `FOLD_VALIDATION` of the others is the validation part.

    A case of the others whose group stands in the tested dataset as well is in no part.

    Raises:
        UserError: there is no such dataset beside others.
    """
    test = _of_dataset(cases, name, f"{LEAVE_OUT}{name}")
    tested = {case.group for case in test}
    rest = [case for case in cases if case.dataset != name and case.group not in tested]
    training, validation = deal_groups(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
    return dict(zip(PARTS, (training, validation, sorted(test, key=lambda case: case.image)), strict=True))


def split_one_dataset(cases: Sequence[Case], name: str, ratio: Sequence[float], seed: int) -> dict[str, list[Case]]:
    """Split one of several datasets as `split_cases` does; `FOLD_VALIDATION` of the others validates, the rest trains.

    So the few labels of one hospital and all those of others are learned from, and that one hospital alone is tested. A
    case of the others whose group stands in the named dataset as well is in no part.

    Raises:
        UserError: there is no such dataset beside others.
    """
    own = _of_dataset(cases, name, name)
    groups = {case.group for case in own}
    rest = [case for case in cases if case.dataset != name and case.group not in groups]
    training, validation = deal_groups(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
    parts = split_cases(own, ratio, seed)
    joined = {"training": [*parts["training"], *training], "validation": [*parts["validation"], *validation]}
    return {part: sorted(joined.get(part, parts[part]), key=lambda case: case.image) for part in PARTS}


def oversample(records: Sequence[Item], seed: int, key: str = "class") -> list[Item]:
    """Repeat records of the smaller classes until each class has as many as the largest; for the training part alone.

    Whole rounds are repeated first, so that no record stands more than once oftener than another of its class.
    """
    classes: defaultdict[str, list[Item]] = defaultdict(list)
    for record in records:
        classes[record[key]].append(record)  # type: ignore[index]
    most = max(map(len, classes.values()), default=0)
    rng = random.Random(seed)
    result = list(records)
    for label in sorted(classes):
        members = classes[label]
        rounds, rest = divmod(most - len(members), len(members))
        result += members * rounds + shuffled(members, rng)[:rest]
    return result


def _of_dataset(cases: Sequence[Case], name: str, split: str) -> list[Case]:
    names = sorted({case.dataset for case in cases})
    if name not in names or len(names) < 2:
        found = ", ".join(filter(None, names)) or "one alone"
        raise UserError(f"split '{split}': give one of several datasets by its folder's name; here: {found}")
    return [case for case in cases if case.dataset == name]
