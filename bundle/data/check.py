# SPDX-License-Identifier: Apache-2.0
"""Find a dataset's layout and read every file of it once, so that training meets no bad one."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.data.cases import LABELS, LESION_LABELS, Case, CaseList, Listed, listing_checksum
from bundle.data.layouts import LAYOUTS, Layout
from bundle.data.manifest import list_manifest
from bundle.data.named_files import find_file
from bundle.data.patients import FROM_HEADER, hashed_patient, join_spellings, new_salt
from bundle.data.roots import dataset_folder
from bundle.data.walk import count_others, require_text_name, tell_passed_over
from bundle.errors import InputError, NotAnImageError, UserError
from bundle.readers import read_image, read_mask, split_frame
from bundle.readers.masks import fit_mask
from bundle.transforms.calipers import calipers_at

MANIFEST = "manifest.csv"
THREADS = min(8, os.cpu_count() or 1)
"""Pillow decodes without the interpreter lock; more threads than this wait for the disk."""

LEFT_OUT = "left out by choice:"
"""How the reason begins for which a usable image was left out; all other reasons are defects."""

_SHOWN_PROBLEMS = 20


def list_dataset(dataset: Path, layout: str | None = None) -> tuple[str, list[Listed], list[InputError]]:
    """List a dataset's files without opening them: the source (see `CaseList`), the cases, the problems.

    A file is taken as a CSV manifest; a folder with `manifest.csv` by that; else by the first layout that fits.

    Args:
        dataset: a folder or a CSV manifest.
        layout: "manifest" or one of `LAYOUTS`, to be taken without asking whether it fits.

    Raises:
        UserError: the layout is none of these, or its table or one of its folders cannot be read.
    """
    if not dataset.exists():
        raise InputError(dataset, "no such dataset", "check the path")
    try:
        source, listed, problems = _list(dataset, layout)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise InputError(error.filename or dataset, reason, "check its permissions") from error
    return source, join_spellings(listed), problems


def _list(dataset: Path, layout: str | None) -> tuple[str, list[Listed], list[InputError]]:
    from bundle.data.phantom import is_synthetic

    folder = dataset_folder(dataset)
    manifest = find_file(folder, re.escape(MANIFEST)) if dataset.is_dir() else dataset
    if layout is None:
        fitting = (name for name, known in LAYOUTS.items() if known.detect(folder))
        layout = "manifest" if manifest is not None else next(fitting, None)
    if layout == "manifest":
        listed, problems = list_manifest(manifest or folder / MANIFEST)
    elif layout in LAYOUTS:
        listed, problems = LAYOUTS[layout].list_cases(folder)
    else:
        names = sorted(path.name for path in folder.iterdir())
        reason = (
            f"holds neither {MANIFEST} nor a folder {', '.join(LABELS)}; it holds {', '.join(names[:5]) or 'nothing'}"
        )
        mend = "give the folder that holds the class folders, or a CSV manifest, or another layout of docs/datasets.md"
        raise InputError(dataset, reason, mend)
    return "phantom" if layout in ("busi", "manifest") and is_synthetic(folder) else layout, listed, problems


def check_dataset(
    dataset: Path,
    *,
    skip_bad: bool = False,
    leave_out: Collection[str] = (),
    layout: str | None = None,
    salt: Callable[[], bytes] = new_salt,
) -> CaseList:
    """Read every image and mask of a dataset; a progress bar goes to stderr where that is a terminal.

    Args:
        dataset: a folder or a CSV manifest.
        skip_bad: leave bad cases out and list them as `skipped`, instead of raising.
        leave_out: flags; images with one of them are left out and listed likewise, and are not called bad.
        layout: as `list_dataset` takes it.
        salt: gives the key that patient ids from headers are hashed with; asked only where there are such.

    Returns:
        The good cases, sorted by image and not grouped yet.

    Raises:
        UserError: no layout is known, no case is good, or, without skip_bad, a list of all bad files.
    """
    from bundle.data.phantom import is_synthetic

    source, listed, problems = list_dataset(dataset, layout)
    folder, rules = dataset_folder(dataset), LAYOUTS.get(source)
    # A manifest names what it wants; of a layout all is meant, so what is not taken up is told.
    others = _count_others(folder, listed, problems) if rules else Counter[str]()
    # One key for all: two images of one patient must come out alike.
    key = salt() if any(item.patient == FROM_HEADER for item in listed) else b""
    cases, left_out = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        checks = pool.map(lambda item: check_case(folder, item, rules, key), listed)
        bar = tqdm(checks, total=len(listed), desc="Reading images", unit="image", disable=None)
        for item, outcome in zip(listed, bar, strict=True):
            unwanted = [flag for flag in getattr(outcome, "flags", item.flags) if flag in leave_out]
            if unwanted:
                left_out.append(InputError(folder / item.image, f"{LEFT_OUT} {unwanted[0]}", "ask for it to keep it"))
            elif isinstance(outcome, Case):
                cases.append(outcome)
            elif isinstance(outcome, NotAnImageError) and rules:
                others[outcome.kind] += 1
            else:
                problems.append(outcome)
    tell_passed_over(folder, others)
    if problems and not skip_bad:
        raise UserError(_tell(dataset, problems))
    if not cases:
        tail = f": {problems[0]}" if problems else ""
        raise UserError(f"{dataset}: no usable image among {len(listed)}{tail}")
    name = folder.resolve().name
    skipped = tuple(
        {"path": _inside(problem.path, folder), "reason": problem.reason, "mend": problem.mend}
        for problem in (*problems, *left_out)
    )
    return CaseList(name, source, is_synthetic(folder), listing_checksum(listed), tuple(cases), skipped)


def check_case(folder: Path, item: Listed, rules: Layout | None, key: bytes) -> Case | InputError:
    """Read one case; its first problem is returned, not raised, since all of a dataset's are told together."""
    path, flags = folder / item.image, list(item.flags)
    try:
        for name in (item.image, *item.masks):
            require_text_name(folder / name)
        image = read_image(path)
        pixels = image.pixels
        patient = hashed_patient(path, key) if item.patient == FROM_HEADER else item.patient
        mask = np.zeros(pixels.shape, dtype=bool)
        for name in item.masks:
            part = read_mask(folder / name, path)
            if rules and rules.contradicts and (reason := rules.contradicts(folder / name, item.label)):
                return InputError(folder / name, reason, "correct the mask or the table")
            if part.shape != mask.shape and rules and rules.fits_masks:
                part = fit_mask(folder / name, part, pixels.shape)
                flags.append("mask-resized")
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
    if item.details.get("stated_size", _size(pixels)) != _size(pixels):
        flags.append("size-differs")
    if image.unusable is not None:
        flags.append("blank")
    if rules and rules.seeks_marks and is_lesion and calipers_at(pixels, mask, 1):
        flags.append("marks")
    return Case(
        *(item.image, item.masks, item.label, patient),
        *(pixels.shape, array_sha256(pixels.astype("<f4")), array_sha256(mask)),
        flags=tuple(dict.fromkeys(flags)),
        details=item.details,
    )


def _count_others(folder: Path, listed: Sequence[Listed], problems: Sequence[InputError]) -> Counter[str]:
    taken = [name for item in listed for name in (split_frame(item.image)[0], *item.masks)]
    told = [Path(problem.path) for problem in problems]
    return count_others(folder, [*taken, *told])


def array_sha256(array: np.ndarray) -> str:
    """The sha256 of an array's shape and values, as a case keeps it of its pixels (float32) and its mask (bool)."""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def _size(array: np.ndarray) -> str:
    return "×".join(map(str, array.shape))


def _inside(path: str, folder: Path) -> str:
    """The path relative to the dataset folder, so that cases.json names no folder of one machine."""
    inside = Path(path)
    return inside.relative_to(folder).as_posix() if inside.is_relative_to(folder) else inside.name


def _tell(dataset: Path, problems: Sequence[InputError]) -> str:
    lines = [f"{dataset}: {len(problems)} bad files; mend them or leave them out with --skip-bad"]
    lines += [f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  … and {len(problems) - _SHOWN_PROBLEMS} more")
    return "\n".join(lines)
