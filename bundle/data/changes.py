# SPDX-License-Identifier: Apache-2.0
"""Whether a dataset still holds what was prepared: size and times tell at a glance, pixels where these differ."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bundle.data.cases import CASES, Case, CaseList, Listed, read_cases
from bundle.data.check import LEFT_OUT, THREADS, check_case, list_dataset
from bundle.data.joint import list_datasets
from bundle.data.layouts import LAYOUTS
from bundle.data.patients import FROM_HEADER, patient_salt
from bundle.data.roots import Dataset, Roots, dataset_folder, find_roots
from bundle.errors import InputError
from bundle.files import read_json, write_json
from bundle.readers import split_frame

SEEN = "seen.json"
"""Beside the prepared cases: where the dataset lay and how its files looked. Of one machine; made anew if gone."""

_SHOWN = 3
Looks = dict[str, list[list[int]]]


def look_at(folder: Path, listed: Iterable[Listed]) -> Looks:
    """Size, time of change and time of the change of status of each image's files; nothing is opened."""
    return {item.image: [_look(folder / name) for name in _files_of(item)] for item in listed}


def note_looks(prepared: Path, folder: Path, looks: Looks, prefix: str = "") -> None:
    """Keep how a dataset's files look, for `require_current`; a folder that cannot be written is left as it is."""
    content: dict[str, Any] = {}
    with contextlib.suppress(InputError):
        content = read_json(prepared / SEEN)
    with contextlib.suppress(InputError):
        write_json(prepared / SEEN, {**content, prefix: {"place": _place(folder), "files": looks}})


def require_current(dataset_dir: Dataset | Roots, prepared_dir: str | os.PathLike[str]) -> None:
    """Check that a dataset still is what a prepared folder was made from: its files, their content, their patients.

    Raises:
        UserError: it is not; or nothing was prepared there.
    """
    roots, prepared = find_roots(dataset_dir), Path(prepared_dir)
    mend = f"name another folder, or delete {prepared} to have it made anew"
    case_list = read_cases(prepared / CASES)
    listed, listing_sha256 = list_datasets(roots)
    if listing_sha256 != case_list.listing_sha256:
        known = len(case_list.cases) + len(case_list.skipped)
        reason = f"was made from another list of files than {roots.name} has now ({known} then, {listed} images now)"
        raise InputError(prepared / CASES, reason, mend)
    for name, dataset in roots.datasets.items():
        _require_unchanged(dataset, prepared, case_list, f"{name}/" if name else "")


def _require_unchanged(dataset: Path, prepared: Path, case_list: CaseList, prefix: str = "") -> None:
    """Compare a dataset with the cases that were prepared from it.

    Files that look as they did, in the folder where they were, are not opened; the pixels of the others are compared.

    Args:
        dataset: its folder or manifest.
        prepared: the folder of its cases.
        case_list: what is there.
        prefix: what the names of its cases begin with, where they are of several datasets.

    Raises:
        InputError: an image, a mask or a patient is another than it was.
    """
    source, listed, _ = list_dataset(dataset)
    folder = dataset_folder(dataset)
    looks, seen = look_at(folder, listed), _read_seen(prepared, prefix)
    before = seen.get("files", {}) if seen.get("place") == _place(folder) else {}
    suspects = [item for item in listed if before.get(item.image) != looks[item.image]]
    if not suspects:
        return
    known = {case.image.removeprefix(prefix): case for case in case_list.cases if case.image.startswith(prefix)}
    chosen = {bad["path"].removeprefix(prefix) for bad in case_list.skipped if bad["reason"].startswith(LEFT_OUT)}
    key = patient_salt(prepared) if any(item.patient == FROM_HEADER for item in suspects) else b""
    rules = LAYOUTS.get(source)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda item: check_case(folder, item, rules, key), suspects)
        bar = tqdm(found, total=len(suspects), desc="Comparing images", unit="image", disable=None)
        changes = [
            (item.image, change)
            for item, outcome in zip(suspects, bar, strict=True)
            if item.image not in chosen and (change := _change(known.get(item.image), outcome, prefix))
        ]
    if changes:
        raise InputError(dataset, *_tell(changes, prepared))
    note_looks(prepared, folder, looks, prefix)


def _change(known: Case | None, found: Case | InputError, prefix: str) -> str | None:
    """What is another than it was, if anything is."""
    if known is None:
        return "was left out as bad and can be used now" if isinstance(found, Case) else None
    if isinstance(found, InputError):
        return found.reason
    patient = known.patient.removeprefix(prefix) if known.patient else known.patient
    for what, then, now in (
        ("pixels", known.sha256, found.sha256),
        ("mask", known.mask_sha256, found.mask_sha256),
        ("patient", patient, found.patient),
    ):
        if then != now:
            return f"has another {what}" if what != "pixels" else "has other pixels"
    return None


def _tell(changes: list[tuple[str, str]], prepared: Path) -> tuple[str, str]:
    when = ""
    with contextlib.suppress(OSError):
        when = f" ({datetime.fromtimestamp(min(p.stat().st_mtime for p in prepared.glob('*.json'))):%Y-%m-%d %H:%M})"
    shown = "; ".join(f"{image} {change}" for image, change in changes[:_SHOWN])
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    reason = (
        f"the data changed since {prepared} was made from it{when}, or it is another folder of the same name: "
        f"{shown}{more}"
    )
    mend = (
        f"delete {prepared} to have it made anew, and train into another --output_dir; or name another --prepared_dir "
        "and --output_dir"
    )
    return reason, mend


def _files_of(item: Listed) -> tuple[str, ...]:
    return (split_frame(item.image)[0], *item.masks)


def _look(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    # The time of the status also changes where a tool puts the other time back, as `cp -p` does.
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _place(folder: Path) -> str:
    """Where a folder lies, without telling it: folders can name people."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _read_seen(prepared: Path, prefix: str) -> Mapping[str, Any]:
    try:
        content = read_json(prepared / SEEN).get(prefix, {})
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}
