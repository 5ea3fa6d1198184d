# SPDX-License-Identifier: Apache-2.0
"""Split cases by class without tearing a group, the same on every machine; oversample the training part."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from bundle.data.cases import Case
from bundle.errors import UserError

PARTS = ("training", "validation", "test")
UNLABELLED = "unlabelled"
"""The part whose masks a run must not look at: images for consistency training."""

FOLD_VALIDATION = 0.1
"""The share of a fold's training cases that early stopping watches."""

BY_IMAGE = " by image"
"""Ends the name of a split that lets near duplicates cross, as most published ones do: to compare with those alone."""

LEAVE_OUT = "leave out "
"""Begins the name of a split that tests one of several datasets, whole, and trains on the others."""

Item = TypeVar("Item")


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
    folds = _distribute(parts["test"], [1 / fold[1]] * fold[1], seed)
    unseen = folds.pop(fold[0])
    rest = sorted((case for part in folds for case in part), key=lambda case: case.image)
    return {**parts, "test": unseen, UNLABELLED: rest}


def split_checksum(split: Mapping[str, Any]) -> str:
    """The sha256 of which image stands in which part, wherever the dataset's folder lies.

    Args:
        split: records with "image", a path relative to the dataset, under the names of the parts.
    """
    content = {
        name: sorted(record["image"] for record in split.get(name, []))
        for name in (f"{part}{kind}" for part in PARTS for kind in ("", "_normal"))
    }
    # Only where there is such a part: the checksums of other splits stay what they were.
    content |= {UNLABELLED: sorted(record["image"] for record in split[UNLABELLED])} if UNLABELLED in split else {}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def split_cases(cases: Sequence[Case], ratio: Sequence[float], seed: int) -> dict[str, list[Case]]:
    """Split cases into training, validation and test, each class in the given ratio and no group in two parts.

    Each part of each class misses its share by less than the largest group, unless groups hold several classes.
    """
    return dict(zip(PARTS, _distribute(cases, ratio, seed), strict=True))


def k_fold(cases: Sequence[Case], k: int, seed: int) -> list[dict[str, list[Case]]]:
    """Split cases k times, so that each case is tested once; `FOLD_VALIDATION` of the others is the validation part.

    Raises:
        UserError: k is below 2 or above the number of groups.
    """
    groups = len({case.group for case in cases})
    if not 2 <= k <= groups:
        raise UserError(f"folds: {k} is not between 2 and {groups}, the number of groups of near duplicates")
    tests = _distribute(cases, [1 / k] * k, seed)
    folds = []
    for test in tests:
        tested = {case.image for case in test}
        rest = [case for case in cases if case.image not in tested]
        training, validation = _distribute(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
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
    training, validation = _distribute(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
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
    training, validation = _distribute(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
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
    training, validation = _distribute(rest, (1 - FOLD_VALIDATION, FOLD_VALIDATION), seed)
    parts = split_cases(own, ratio, seed)
    joined = {"training": [*parts["training"], *training], "validation": [*parts["validation"], *validation]}
    return {part: sorted(joined.get(part, parts[part]), key=lambda case: case.image) for part in PARTS}


def check_no_group_crosses(split: Mapping[str, Any]) -> None:
    """Check that no group and no image of a datalist stands in two parts; `training_normal` counts as training.

    Args:
        split: records with "image" and "group" under the names of the parts; other keys are passed over.

    Raises:
        UserError: one does; the message names the group and its files.
    """
    seen: dict[str, tuple[str, str]] = {}
    for part in (*PARTS, UNLABELLED):
        for record in [*split.get(part, []), *split.get(f"{part}_normal", [])]:
            image, group = record["image"], record["group"]
            for key, what in ((f"group {group}", f"group {group}"), (f"image {image}", "the same image")):
                other_part, other_image = seen.setdefault(key, (part, image))
                if other_part != part:
                    raise UserError(
                        f"{what} stands in two parts: '{other_image}' in {other_part}, '{image}' in {part}; "
                        "make the split anew with scripts/prepare_data.py"
                    )


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
        result += members * rounds + _shuffled(members, rng)[:rest]
    return result


def _of_dataset(cases: Sequence[Case], name: str, split: str) -> list[Case]:
    names = sorted({case.dataset for case in cases})
    if name not in names or len(names) < 2:
        found = ", ".join(filter(None, names)) or "one alone"
        raise UserError(f"split '{split}': give one of several datasets by its folder's name; here: {found}")
    return [case for case in cases if case.dataset == name]


def _distribute(cases: Sequence[Case], shares: Sequence[float], seed: int) -> list[list[Case]]:
    """Deal whole groups out to parts, large ones first, each to a part drawn by how much it still lacks."""
    groups: defaultdict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.image):
        groups[case.group].append(case)
    counts = Counter(map(_stratum, cases))
    lacking = [Counter[str]() for _ in shares]
    for label in sorted(counts):
        for part, wanted in enumerate(_whole_shares(counts[label], shares)):
            lacking[part][label] = wanted
    rng = random.Random(seed)
    parts: list[list[Case]] = [[] for _ in shares]
    # The sort is stable: groups of one size stay in the drawn order.
    for name in sorted(_shuffled(sorted(groups), rng), key=lambda name: -len(groups[name])):
        members = groups[name]
        need = Counter(map(_stratum, members))
        part = _draw_part(need, lacking, rng)
        lacking[part].subtract(need)
        parts[part] += members
    _serve(parts, shares)
    return [sorted(part, key=lambda case: case.image) for part in parts]


def _stratum(case: Case) -> str:
    """What each part shall have its share of: the class, of several datasets of each."""
    return f"{case.dataset}/{case.label}" if case.dataset else case.label


def _serve(parts: Sequence[list[Case]], shares: Sequence[float]) -> None:
    """Give a group of each class to every part that was dealt none, where the class has groups enough.

    Of few patients with several images each, all groups can be larger than what a small part lacks. The smallest group
    that the other part can spare is taken, so large cohorts stay as they were dealt.
    """
    for label in sorted({_stratum(case) for part in parts for case in part}):
        for index, part in enumerate(parts):
            if shares[index] > 0 and all(_stratum(case) != label for case in part):
                spared = _spare(parts, label)
                if spared:
                    donor, name = spared
                    part += [case for case in parts[donor] if case.group == name]
                    parts[donor][:] = [case for case in parts[donor] if case.group != name]


def _spare(parts: Sequence[list[Case]], label: str) -> tuple[int, str] | None:
    """The part, and the smallest group with a class in it, without which the part still has all its classes."""
    found: list[tuple[tuple[int, int], int, str]] = []
    for index, part in enumerate(parts):
        classes: defaultdict[str, set[str]] = defaultdict(set)
        holders: defaultdict[str, set[str]] = defaultdict(set)
        for case in part:
            classes[case.group].add(_stratum(case))
            holders[_stratum(case)].add(case.group)
        for name in dict.fromkeys(case.group for case in part):  # in the drawn order
            if label in classes[name] and all(len(holders[each]) > 1 for each in classes[name]):
                size = sum(case.group == name for case in part)
                found.append(((size, -len(holders[label])), index, name))
    if not found:
        return None
    _, donor, name = min(found, key=lambda entry: entry[0])
    return donor, name


def _draw_part(need: Counter[str], lacking: Sequence[Counter[str]], rng: random.Random) -> int:
    """A part that lacks all of a group, drawn by what it lacks of these classes; else the one that suits best."""
    weights = [
        sum(part[label] for label in need) if all(part[label] >= count for label, count in need.items()) else 0
        for part in lacking
    ]
    # random() is the one method of random.Random whose numbers Python promises to keep.
    threshold = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        threshold -= weight
        if threshold < 0:
            return index
    # The least growth of the squared deviation from the wish.
    return max(range(len(lacking)), key=lambda i: sum(count * lacking[i][label] for label, count in need.items()))


def _whole_shares(count: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in the ratio of the shares that sum to count (largest remainder); none is 0 if that can be."""
    wanted = [int(count * share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: wanted[i] - count * shares[i])
    for index in by_remainder[: count - sum(wanted)]:
        wanted[index] += 1
    for index, share in enumerate(shares):
        largest = max(range(len(shares)), key=lambda i: wanted[i])
        if share > 0 and wanted[index] == 0 and wanted[largest] > 1:
            wanted[index] += 1
            wanted[largest] -= 1
    return wanted


def _shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    keys = [rng.random() for _ in items]
    return [items[i] for i in sorted(range(len(items)), key=lambda i: keys[i])]
