# SPDX-License-Identifier: Apache-2.0
"""Claims about groups of near duplicates: their table and their conflicts."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from bundle.data.cases import Case, CaseList
from bundle.data.duplicates import Pair, group_cases
from bundle.data.groups import drop_conflicts, find_conflicts, group_table, read_group_table
from bundle.errors import InputError

CASES = (
    Case("a.png", (), "benign", group="g0002"),
    Case('b\r,"c.png', (), "malignant", group="g0001"),
    Case("d.png", (), "malignant", group="g0002"),
    Case("e.png", (), "unclassified", group="g0001"),
)


def test_the_table_names_each_image_with_its_group_and_its_first_reason() -> None:
    pairs = [Pair(0, 2, "same frame"), Pair(0, 2, "same patient"), Pair(1, 3, "same patient")]
    rows = list(csv.reader(io.StringIO(group_table(CASES, pairs).decode(), newline="")))
    assert rows == [
        ["image", "group", "class", "evidence"],
        ['b\r,"c.png', "g0001", "malignant", "same patient: e.png"],
        ["e.png", "g0001", "unclassified", 'same patient: b\r,"c.png'],
        ["a.png", "g0002", "benign", "same frame: d.png"],
        ["d.png", "g0002", "malignant", "same frame: a.png"],
    ]


def test_a_table_read_again_gives_its_groups_and_reasons(tmp_path: Path) -> None:
    pairs = [Pair(0, 2, "same frame (correlation 0.9, 9 points)"), Pair(1, 3, "same patient")]
    written = group_table(CASES, pairs)
    (tmp_path / "groups.csv").write_bytes(written)
    read = read_group_table(tmp_path / "groups.csv", CASES)
    assert group_cases(CASES, read) == group_cases(CASES, pairs)
    assert group_table(CASES, read) == written


def test_of_a_table_by_hand_image_and_group_suffice_and_other_images_do_not_count(tmp_path: Path) -> None:
    rows = ["Group;Image", "x;a.png", 'y;"b\r,""c.png"', "x;d.png", "x;e.png", "y;gone.png"]
    (tmp_path / "own.csv").write_text("\n".join(rows), newline="")
    groups = group_cases(CASES, read_group_table(tmp_path / "own.csv", CASES))
    assert groups["a.png"] == groups["d.png"] == groups["e.png"] != groups['b\r,"c.png']
    assert len(set(groups.values())) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,group\na.png,1\nd.png,\n", 'gives no group for b\r,"c.png and 2 others'),
        ("image,group\na.png,1\nd.png,1\na.png,2\n", "line 4: 'a.png' is listed twice"),
        ("image,class\na.png,benign\n", "lacks the columns group"),
        ("", "lacks the columns image, group"),
    ],
)
def test_a_table_that_does_not_tell_of_every_image_once_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_group_table(tmp_path / "groups.csv", CASES)
    assert reason in str(caught.value)


def test_a_lesion_of_unknown_class_contradicts_no_other() -> None:
    assert find_conflicts(CASES) == {"g0002"}


def test_groups_in_several_classes_are_listed_as_left_out_beside_those_of_before() -> None:
    bad = {"path": "z.png", "reason": "is empty", "mend": "replace it"}
    left = drop_conflicts(CaseList("set", "busi", False, "", CASES, (bad,)))
    assert left.cases == (CASES[1], CASES[3])
    assert left.skipped[0] == bad
    assert [entry["path"] for entry in left.skipped[1:]] == ["a.png", "d.png"]
    assert all("its group g0002 stands in several classes" in entry["reason"] for entry in left.skipped[1:])
