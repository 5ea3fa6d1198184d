# SPDX-License-Identifier: Apache-2.0
"""Groups of near duplicates: their table, written and read, and those that stand in several classes."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bundle.data.cases import UNCLASSED, Case, CaseList
from bundle.data.check import LEFT_OUT
from bundle.data.duplicates import Pair
from bundle.data.tables import read_csv
from bundle.errors import InputError


def group_table(cases: Sequence[Case], pairs: Sequence[Pair]) -> bytes:
    """The content of groups.csv: each image with its group and the first reason why it stands in it."""
    evidence: dict[int, str] = {}
    for pair in pairs:
        evidence.setdefault(pair.first, f"{pair.evidence}: {cases[pair.second].image}")
        evidence.setdefault(pair.second, f"{pair.evidence}: {cases[pair.first].image}")
    table = io.StringIO(newline="")
    writer = csv.writer(table)  # ends rows with "\r\n": with "\n", Python before 3.13 leaves a "\r" in a name unquoted
    writer.writerow(["image", "group", "class", "evidence"])
    for index, case in sorted(enumerate(cases), key=lambda entry: (entry[1].group, entry[1].image)):
        writer.writerow([case.image, case.group, case.label, evidence.get(index, "")])
    return table.getvalue().encode()


def read_group_table(file: Path, cases: Sequence[Case]) -> list[Pair]:
    """The pairs that a groups.csv tells of, in place of a search; its names of groups and its classes do not count.

    Args:
        file: what `group_table` wrote, here or on another machine, perhaps corrected by hand; "evidence" may lack.
        cases: each must be named; what the table names besides is passed over.

    Raises:
        InputError: it is no such table, names an image twice, or has no row or no group for a case.
    """
    table = read_csv(file)
    table.require("image", "group", mend="give a groups.csv of scripts/prepare_data.py")
    rows: dict[str, dict[str, str]] = {}
    for line, row in table.rows:
        if row["image"] in rows:
            raise InputError(f"{file} line {line}", f"'{row['image']}' is listed twice", "keep one row for it")
        rows[row["image"]] = row
    missing = [case.image for case in cases if not rows.get(case.image, {}).get("group")]
    if missing:
        others = f" and {len(missing) - 1} others" if missing[1:] else ""
        mend = "prepare the folders under the names that they had when the table was written, or group anew without it"
        raise InputError(file, f"gives no group for {missing[0]}{others}", mend)
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for index, case in enumerate(cases):
        groups[rows[case.image]["group"]][case.image] = index
    told, rest = [], []
    for members in groups.values():
        first, *later = members.values()
        rest += [Pair(first, index, f"same group in {file.name}") for index in later]
        for image, index in members.items():
            reason, _, other = rows[image].get("evidence", "").partition(": ")
            if other in members:
                told.append(Pair(index, members[other], reason))
    return told + rest


def find_conflicts(cases: Sequence[Case]) -> set[str]:
    """The groups that stand in several classes: one frame or patient with two diagnoses."""
    labels: dict[str, str] = {}
    known = [case for case in cases if case.label != UNCLASSED]
    return {case.group for case in known if labels.setdefault(case.group, case.label) != case.label}


def drop_conflicts(case_list: CaseList) -> CaseList:
    """Leave out the cases whose group stands in several classes, and list them as such."""
    conflicts = find_conflicts(case_list.cases)
    dropped = tuple(
        {
            "path": case.image,
            "reason": f"{LEFT_OUT} its group {case.group} stands in several classes",
            "mend": "correct the labels, or keep it with --conflicts keep",
        }
        for case in case_list.cases
        if case.group in conflicts
    )
    kept = tuple(case for case in case_list.cases if case.group not in conflicts)
    return replace(case_list, cases=kept, skipped=(*case_list.skipped, *dropped))
