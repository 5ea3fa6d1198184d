# SPDX-License-Identifier: Apache-2.0
"""Claims about the counts of classes."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from bundle.data.cases import CASES, Case, CaseList, write_cases
from bundle.data.class_counts import count_table, plot_counts
from bundle.data.datalists import DATALIST, build_datalist
from bundle.files import write_json

COUNTS = {"benign": 10, "malignant": 5, "normal": 5}


def _case_list(counts: dict[str, int]) -> CaseList:
    """Single cases of each class, the first of which shows Doppler and is in a group with a second."""
    cases = [
        Case(f"{label}{number}.png", (), label, group=f"{label}{max(1, number)}", flags=() if number else ("doppler",))
        for label, count in counts.items()
        for number in range(count)
    ]
    return CaseList("set", "busi", False, "", tuple(cases), ({"path": "z.png", "reason": "is empty", "mend": ""},))


def _told(folder: Path, counts: dict[str, int]) -> list[str]:
    case_list = _case_list(counts)
    write_cases(folder / CASES, case_list)
    write_json(folder / DATALIST, build_datalist(case_list, "60:20:20", 0))
    return count_table(folder).splitlines()


def test_the_table_counts_each_class_in_each_part(tmp_path: Path) -> None:
    lines = _told(tmp_path, COUNTS)
    assert lines[0].split() == ["training", "validation", "test", "all"]
    assert [line.split() for line in lines[1:4]] == [
        ["benign", "6", "2", "2", "10"],
        ["malignant", "3", "1", "1", "5"],
        ["normal", "3", "1", "1", "5"],
    ]
    assert lines[4:] == [
        "6 images stand in 3 groups of near duplicates or of one patient.",
        "Flagged images, which --leave-out can leave out: doppler 3.",
        "1 images were left out; cases.json says why, under 'skipped'.",
    ]


def test_lesions_of_unknown_class_have_a_row_where_there_are_any(tmp_path: Path) -> None:
    assert _told(tmp_path, {**COUNTS, "unclassified": 5})[4].split()[0::4] == ["unclassified", "5"]


def test_the_picture_has_room_for_every_class() -> None:
    for counts in (COUNTS, {**COUNTS, "unclassified": 5}):
        with Image.open(io.BytesIO(plot_counts(build_datalist(_case_list(counts), "60:20:20", 0)))) as picture:
            assert (picture.format, picture.size) == ("PNG", (700, 400))
