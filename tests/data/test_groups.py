# SPDX-License-Identifier: Apache-2.0
"""Claims about groups of near duplicates: their table and their conflicts."""

from __future__ import annotations

import csv
import io

from bundle.data.cases import Case, CaseList
from bundle.data.duplicates import Pair
from bundle.data.groups import drop_conflicts, find_conflicts, group_table

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


def test_a_lesion_of_unknown_class_contradicts_no_other() -> None:
    assert find_conflicts(CASES) == {"g0002"}


def test_groups_in_several_classes_are_listed_as_left_out_beside_those_of_before() -> None:
    bad = {"path": "z.png", "reason": "is empty", "mend": "replace it"}
    left = drop_conflicts(CaseList("set", "busi", False, "", CASES, (bad,)))
    assert left.cases == (CASES[1], CASES[3])
    assert left.skipped[0] == bad
    assert [entry["path"] for entry in left.skipped[1:]] == ["a.png", "d.png"]
    assert all("its group g0002 stands in several classes" in entry["reason"] for entry in left.skipped[1:])
