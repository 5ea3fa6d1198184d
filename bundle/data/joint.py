# SPDX-License-Identifier: Apache-2.0
"""Several datasets as one: each is checked by its own layout, then their cases stand in one list."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from bundle.data.cases import Case, CaseList, Listed, checksum, listing_checksum
from bundle.data.check import check_dataset, list_dataset
from bundle.data.patients import new_salt
from bundle.data.roots import JOINED, Roots


def check_datasets(
    roots: Roots,
    *,
    skip_bad: bool = False,
    leave_out: Collection[str] = (),
    salt: Callable[[], bytes] = new_salt,
) -> CaseList:
    """Check one dataset or several, see `check_dataset`; paths and patients of several begin with the dataset's name.

    Patients of one id in two datasets are two patients: what shows the same frame is found by its pixels.

    Raises:
        UserError: as `check_dataset`.
    """
    lists = {
        name: check_dataset(path, skip_bad=skip_bad, leave_out=leave_out, salt=salt)
        for name, path in roots.datasets.items()
    }
    if "" in lists:
        return lists[""]
    cases = [_within(name, case) for name, found in lists.items() for case in found.cases]
    return CaseList(
        name=roots.name,
        source=JOINED.join(found.source for found in lists.values()),
        synthetic=any(found.synthetic for found in lists.values()),
        listing_sha256=checksum((name, found.listing_sha256) for name, found in lists.items()),
        cases=tuple(sorted(cases, key=lambda case: case.image)),
        skipped=tuple(
            {**bad, "path": f"{name}/{bad['path']}"} for name, found in lists.items() for bad in found.skipped
        ),
        datasets={name: found.dataset_sha256 for name, found in lists.items()},
    )


def list_datasets(roots: Roots) -> tuple[int, str]:
    """How many files one dataset or several list now, and the checksum of the list, as `CaseList` keeps it."""
    found: dict[str, list[Listed]] = {name: list_dataset(path)[1] for name, path in roots.datasets.items()}
    sums = {name: listing_checksum(listed) for name, listed in found.items()}
    total = sum(map(len, found.values()))
    return total, sums[""] if "" in sums else checksum(sums.items())


def _within(name: str, case: Case) -> Case:
    patient = None if case.patient is None else f"{name}/{case.patient}"
    masks = tuple(f"{name}/{mask}" for mask in case.masks)
    return replace(case, image=f"{name}/{case.image}", masks=masks, patient=patient, dataset=name)
