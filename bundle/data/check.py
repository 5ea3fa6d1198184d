# SPDX-License-Identifier: Apache-2.0
"""Find a dataset's layout and read every file of it once, so that training meets no bad one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.data.busi import is_busi_layout, list_busi
from bundle.data.cases import LABELS, LESION_LABELS, Case, CaseList, Listed, listing_checksum
from bundle.data.manifest import list_manifest
from bundle.data.patients import FROM_HEADER, hashed_patient, new_salt
from bundle.errors import InputError, UserError
from bundle.readers import read_image, read_mask

MANIFEST = "manifest.csv"
THREADS = min(8, os.cpu_count() or 1)
"""Pillow decodes without the interpreter lock; more threads than this wait for the disk."""

_SHOWN_PROBLEMS = 20


def dataset_folder(dataset: Path) -> Path:
    """The folder that a dataset's relative paths start from: itself, or that of its manifest."""
    return dataset if dataset.is_dir() else dataset.parent


def list_dataset(dataset: Path) -> tuple[str, list[Listed], list[InputError]]:
    """List a dataset's files without opening them: the source ("busi", "manifest", "phantom"), the cases, the problems.

    A file is taken as a CSV manifest; a folder with `manifest.csv` by that; else its subfolders are the classes.

    Raises:
        UserError: the layout is none of these, or the manifest cannot be read.
    """
    from bundle.data.phantom import is_synthetic

    if not dataset.exists():
        raise InputError(dataset, "no such dataset", "check the path")
    folder = dataset_folder(dataset)
    manifest = folder / MANIFEST if dataset.is_dir() else dataset
    if manifest.is_file():
        source, (listed, problems) = "manifest", list_manifest(manifest)
    elif is_busi_layout(folder):
        source, (listed, problems) = "busi", list_busi(folder)
    else:
        names = sorted(path.name for path in folder.iterdir())
        reason = (
            f"holds neither {MANIFEST} nor a folder {', '.join(LABELS)}; it holds {', '.join(names[:5]) or 'nothing'}"
        )
        raise InputError(dataset, reason, "give the folder that holds the class folders, or a CSV manifest")
    return "phantom" if is_synthetic(folder) else source, listed, problems


def check_dataset(dataset: Path, *, skip_bad: bool = False, salt: Callable[[], bytes] = new_salt) -> CaseList:
    """Read every image and mask of a dataset; a progress bar goes to stderr where that is a terminal.

    Args:
        dataset: a folder or a CSV manifest.
        skip_bad: leave bad cases out and list them as `skipped`, instead of raising.
        salt: gives the key that patient ids from headers are hashed with; asked only where there are such.

    Returns:
        The good cases, sorted by image and not grouped yet.

    Raises:
        UserError: no layout is known, no case is good, or, without skip_bad, a list of all bad files.
    """
    source, listed, problems = list_dataset(dataset)
    folder = dataset_folder(dataset)
    # One key for all: two images of one patient must come out alike.
    key = salt() if any(item.patient == FROM_HEADER for item in listed) else b""
    cases = []
    with ThreadPoolExecutor(THREADS) as pool:
        checks = pool.map(lambda item: _check(folder, item, key), listed)
        for outcome in tqdm(checks, total=len(listed), desc="Reading images", unit="image", disable=None):
            if isinstance(outcome, Case):
                cases.append(outcome)
            else:
                problems.append(outcome)
    if problems and not skip_bad:
        raise UserError(_tell(dataset, problems))
    if not cases:
        tail = f": {problems[0]}" if problems else ""
        raise UserError(f"{dataset}: no usable image among {len(listed)}{tail}")
    name = folder.resolve().name
    skipped = tuple(
        {"path": _inside(problem.path, folder), "reason": problem.reason, "mend": problem.mend} for problem in problems
    )
    return CaseList(name, source, source == "phantom", listing_checksum(listed), tuple(cases), skipped)


def _check(folder: Path, item: Listed, key: bytes) -> Case | InputError:
    """Read one case; its first problem is returned, not raised, since all of a dataset's are told together."""
    path = folder / item.image
    try:
        image = read_image(path)
        pixels = image.pixels
        patient = hashed_patient(path, key) if item.patient == FROM_HEADER else item.patient
        mask = np.zeros(pixels.shape, dtype=bool)
        for name in item.masks:
            part = read_mask(folder / name, path)
            if part.shape != mask.shape:
                reason = f"the mask is {_size(part)}, its image {_size(mask)} pixels (height×width)"
                return InputError(folder / name, reason, "export the mask at the image's size")
            mask |= part
    except InputError as error:
        return error
    is_lesion = item.label in LESION_LABELS
    if is_lesion and not item.masks:
        return InputError(path, f"a {item.label} image without a mask", "add its mask or leave it out")
    if is_lesion and not mask.any():
        return InputError(folder / item.masks[0], f"the mask of a {item.label} image is empty", "draw the lesion")
    if is_lesion and not image.cut(mask).any():
        return InputError(folder / item.masks[0], "marks nothing inside the tissue region of its image", "correct it")
    if not is_lesion and mask.any():
        reason = f"the mask of a {item.label} image marks {int(mask.sum())} pixels"
        return InputError(folder / item.masks[0], reason, "empty the mask or correct the class")
    return Case(item.image, item.masks, item.label, patient, pixels.shape, _sha256(pixels.astype("<f4")), _sha256(mask))


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def _size(array: np.ndarray) -> str:
    return "×".join(map(str, array.shape))


def _inside(path: str, folder: Path) -> str:
    """The path relative to the dataset folder, so that cases.json names no folder of one machine."""
    return Path(path).relative_to(folder).as_posix()


def _tell(dataset: Path, problems: Sequence[InputError]) -> str:
    lines = [f"{dataset}: {len(problems)} bad files; mend them or leave them out with --skip-bad"]
    lines += [f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  … and {len(problems) - _SHOWN_PROBLEMS} more")
    return "\n".join(lines)
