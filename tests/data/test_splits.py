# SPDX-License-Identifier: Apache-2.0
"""Claims about splits."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.data.datalists import check_no_group_crosses
from bundle.data.split_names import parse_ratio
from bundle.data.splits import PARTS, UNLABELLED, k_fold, oversample, split_by_name, split_cases
from bundle.errors import UserError
from tests.data.grouped import LABELS, cases_of, mixed_groups, ratios, seeds


@settings(max_examples=150, deadline=None)
@given(mixed_groups, ratios, seeds)
def test_no_group_crosses_and_every_case_is_placed_once(groups: list[list[str]], ratio: tuple, seed: int) -> None:
    cases = cases_of(groups)
    split = split_cases(cases, ratio, seed)
    assert list(split) == list(PARTS)
    assert sorted(case.image for part in split.values() for case in part) == [case.image for case in cases]
    check_no_group_crosses({part: [vars(case) for case in members] for part, members in split.items()})


@settings(max_examples=60, deadline=None)
@given(mixed_groups, st.integers(2, 6), seeds)
def test_each_case_is_tested_in_one_fold(groups: list[list[str]], k: int, seed: int) -> None:
    cases = cases_of(groups)
    if k > len(groups):
        with pytest.raises(UserError, match="folds"):
            k_fold(cases, k, seed)
        return
    folds = k_fold(cases, k, seed)
    assert sorted(case.image for fold in folds for case in fold["test"]) == [case.image for case in cases]
    for fold in folds:
        assert sum(map(len, fold.values())) == len(cases)
        check_no_group_crosses({part: [vars(case) for case in members] for part, members in fold.items()})


def test_folds_are_of_about_one_size_and_validation_is_a_tenth() -> None:
    for fold in k_fold(cases_of([["benign"]] * 60 + [["malignant"]] * 40), 5, 0):
        assert [len(fold[part]) for part in PARTS] == [72, 8, 20]


@settings(max_examples=60, deadline=None)
@given(mixed_groups, st.integers(2, 5), seeds)
def test_own_fold_tests_what_the_dataset_says_and_no_group_crosses(
    groups: list[list[str]], folds: int, seed: int
) -> None:
    # The dataset deals single cases out, so that its folds tear groups.
    cases = [
        replace(case, details={"fold": str(number % folds + 1)}) for number, case in enumerate(cases_of(groups * folds))
    ]
    split = split_by_name(cases, f"own fold 0 of {folds}", seed)
    assert split["test"] == [case for case in cases if case.details["fold"] == "1"]
    groups_of = {part: {case.group for case in split[part]} for part in PARTS}
    assert not groups_of["test"] & (groups_of["training"] | groups_of["validation"])
    assert not groups_of["training"] & groups_of["validation"]


def test_own_folds_that_are_not_there_are_told() -> None:
    cases = cases_of([["benign"], ["malignant"]])
    with pytest.raises(UserError, match=r"of the dataset's own 0000_0\.png has none; give 'fold 1 of 5'"):
        split_by_name(cases, "own fold 1 of 5", 0)
    dealt = [replace(case, details={"fold": case.group}) for case in cases]
    with pytest.raises(UserError, match="it has 2"):
        split_by_name(dealt, "own fold 1 of 5", 0)


@given(st.lists(st.sampled_from(LABELS), max_size=40), seeds)
def test_oversampling_balances_and_keeps_every_record(labels: list[str], seed: int) -> None:
    records = [{"image": str(place), "class": label} for place, label in enumerate(labels)]
    result = oversample(records, seed)
    assert result[: len(records)] == records
    counts = Counter(record["class"] for record in result)
    assert len(set(counts.values())) <= 1
    for label in counts:
        times = Counter(record["image"] for record in result if record["class"] == label).values()
        assert max(times) - min(times) <= 1
    assert result == oversample(records, seed)


@settings(max_examples=40, deadline=None)
@given(mixed_groups.filter(lambda groups: len(groups) > 12), seeds)
def test_unlabelled_cases_are_the_test_part_of_the_other_folds(groups: list[list[str]], seed: int) -> None:
    cases = cases_of(groups)
    plain = split_by_name(cases, "15:5:80", seed)
    folds = [split_by_name(cases, f"15:5:80, fold {fold} of 2", seed) for fold in range(2)]
    for fold, other in (folds, folds[::-1]):
        assert (fold["training"], fold["validation"]) == (plain["training"], plain["validation"])
        assert fold[UNLABELLED] == other["test"]
        check_no_group_crosses({part: [vars(case) for case in members] for part, members in fold.items()})
    assert sorted(case.image for fold in folds for case in fold["test"]) == [case.image for case in plain["test"]]


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 120), seeds)
def test_a_split_by_image_tears_groups_and_says_so(count: int, seed: int) -> None:
    cases = cases_of([["benign", "benign", "malignant", "malignant"]] * (count // 4))
    parts = split_by_name(cases, "65:5:30 by image", seed)
    assert [len(parts[part]) / len(cases) for part in ("training", "test")] == pytest.approx([0.65, 0.3], abs=0.05)
    torn = {case.image: case.group for case in cases}
    sides = [{torn[case.image] for case in members} for members in parts.values()]
    assert sides[0] & sides[2]
    assert all(case.group == case.image for members in parts.values() for case in members)


@pytest.mark.parametrize("text", ["by image", "fold 0 of 5 by image", "15:5:80, fold 0 of 2 by image"])
def test_only_a_ratio_can_be_by_image(text: str) -> None:
    with pytest.raises(UserError, match="by image"):
        split_by_name(cases_of([["benign"]] * 9), text, 0)


@pytest.mark.parametrize("ratio", ["15:5:80", "60:10:30", "50:25:25"])
def test_a_small_cohort_is_split_whenever_a_split_exists(ratio: str) -> None:
    for seed in range(200):
        sizes = random.Random(seed)
        cases = cases_of([[label] * sizes.randint(2, 6) for label in ("benign", "malignant") for _ in range(10)])
        split = split_cases(cases, parse_ratio(ratio), seed)
        check_no_group_crosses({part: [vars(case) for case in members] for part, members in split.items()})
        for part, members in split.items():
            assert {case.label for case in members} == {"benign", "malignant"}, (seed, part)
        for fold in k_fold(cases, 5, seed):
            assert all({case.label for case in members} == {"benign", "malignant"} for members in fold.values())
