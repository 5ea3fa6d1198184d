# SPDX-License-Identifier: Apache-2.0
"""Deal whole groups of cases out to the parts of a split, each class in its share, the same on every machine."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TypeVar

from bundle.data.cases import Case

Item = TypeVar("Item")


def deal_groups(cases: Sequence[Case], shares: Sequence[float], seed: int) -> list[list[Case]]:
    """Deal whole groups out to parts, large ones first, each to a part drawn by how much it still lacks.

    Each part of each class misses its share by less than the largest group, unless groups hold several classes.

    Args:
        cases: with their groups; of several datasets, each class of each is dealt on its own.
        shares: of the parts, with a sum of 1.
        seed: any integer; the order of the cases changes nothing.

    Returns:
        The cases of each part, sorted by image.
    """
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
    for name in sorted(shuffled(sorted(groups), rng), key=lambda name: -len(groups[name])):
        members = groups[name]
        need = Counter(map(_stratum, members))
        part = _draw_part(need, lacking, rng)
        lacking[part].subtract(need)
        parts[part] += members
    _serve(parts, shares)
    return [sorted(part, key=lambda case: case.image) for part in parts]


def shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """The items in a drawn order, by `rng.random` alone, whose numbers Python promises to keep."""
    keys = [rng.random() for _ in items]
    return [items[i] for i in sorted(range(len(items)), key=lambda i: keys[i])]


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
