# SPDX-License-Identifier: Apache-2.0
"""Groups of near duplicates: their table, and those that stand in several classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from bundle.data.cases import UNCLASSED, Case, CaseList
from bundle.data.check import LEFT_OUT
from bundle.data.duplicates import Pair


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
