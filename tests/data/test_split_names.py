# SPDX-License-Identifier: Apache-2.0
"""Claims about the names of splits."""

from __future__ import annotations

import pytest

from bundle.data.split_names import is_by_image, parse_left_out, parse_one_dataset, parse_ratio, parse_split
from bundle.errors import UserError


@pytest.mark.parametrize(
    "text", ["", "15:5", "15:5:80:1", "a:b:c", "0:5:80", "15:0:85", "15:-5:80", "nan:1:1", "inf:1:1"]
)
def test_bad_ratio_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="15:5:80"):
        parse_ratio(text)


def test_ratio_is_scaled_to_one() -> None:
    assert parse_ratio("15:5:80") == pytest.approx((0.15, 0.05, 0.8))
    assert parse_ratio("3:1:0") == pytest.approx((0.75, 0.25, 0))


HALF = (0.25, 0.25, 0.5)


@pytest.mark.parametrize(
    ("name", "ratio", "fold", "own"),
    [
        ("1:1:2", HALF, None, False),
        ("1:1:2 by image", HALF, None, False),
        ("1:1:2, fold 0 of 2", HALF, (0, 2), False),
        ("fold 3 of 5", None, (3, 5), False),
        ("own fold 3 of 5", None, (3, 5), True),
        ("leave out BUS, B", None, None, False),
        ("leave out BUSBRA, inner fold 1 of 2", None, None, False),
        ("Dataset_BUSI 1:1:2", HALF, None, False),
    ],
)
def test_a_name_tells_the_ratio_and_the_fold(name: str, ratio: tuple | None, fold: tuple | None, own: bool) -> None:
    assert parse_split(name) == (ratio, fold, own)


def test_a_name_tells_what_else_is_special() -> None:
    names = ("1:1:2 by image", "leave out BUS, B", "leave out BUSBRA, inner fold 1 of 2", "Dataset BUSI 1:1:2")
    assert [is_by_image(name) for name in names] == [True, False, False, False]
    assert [parse_left_out(name) for name in names] == [None, ("BUS, B", None), ("BUSBRA", (1, 2)), None]
    assert [parse_one_dataset(name) for name in names] == [None, None, None, ("Dataset BUSI", "1:1:2")]


@pytest.mark.parametrize("name", ["fold 5 of 5", "fold 0 of 1", "1:1:2, fold 2 of 2", "leave out B, inner fold 2 of 2"])
def test_a_fold_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="are numbered from 0"):
        parse_split(name)
