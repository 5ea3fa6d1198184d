# SPDX-License-Identifier: Apache-2.0
"""The files below a folder as people have them: linked folders, rests of a Mac, masks beside images, names in bytes."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from bundle.data.cases import CLIP_SUFFIXES, IMAGE_SUFFIXES
from bundle.errors import InputError, printable
from bundle.readers import DICOM, kind_of

logger = logging.getLogger(__name__)

HIDDEN, MASK, DIRECTORY = "hidden (name begins with '.')", "masks beside their images", "DICOM directories"
OTHER_TYPE, UNLISTED = "of other types", "images that the layout does not name"

_SYSTEM_FOLDERS = ("__macosx", "@eadir")
"""What archives of a Mac and Synology's disks put among the files: their pictures are previews and rests."""

_MASK_STEM = re.compile(r"(?P<image>.+)_(mask(_?\d+)?|tumor\d*|other\d*)", re.IGNORECASE | re.DOTALL)
_NUMBERED = re.compile(r"(?P<kind>test_image|mask)[ _-]?(?P<number>\d+)", re.IGNORECASE)
_TABLE = re.compile(r"manifest\.csv|bus_data\.csv|5-fold-cv\.csv|info\.csv|breast-lesions-usg.*\.xlsx", re.IGNORECASE)
"""The tables that the known layouts read."""
_SHOWN_TYPES = 4


def files_below(folder: Path) -> list[Path]:
    """List the files below a folder, sorted; links to folders are followed, and each folder is taken once.

    A folder that is there and is also linked to keeps its own name, so a link to a folder above ends no run. A link to
    nothing counts as the file that it names: who reads it learns that it is missing.

    Raises:
        OSError: the folder itself cannot be read; one below it that cannot be is told in the log.
    """
    os.listdir(folder)
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        # All that is really there comes before what is only linked.
        for start in sorted(waiting):
            for place, folders, files in os.walk(start, onerror=_tell_unreadable):
                status = os.stat(place)
                key = (status.st_dev, status.st_ino)
                if key in seen:
                    folders.clear()
                    continue
                seen.add(key)
                here = Path(place)
                found += [here / name for name in files if is_named_file(here / name)]
                linked = [name for name in folders if (here / name).is_symlink()]
                links += [here / name for name in linked if not _is_system(name)]
                folders[:] = [name for name in folders if name not in linked and not _is_system(name)]
        waiting = links
    return sorted(found)


def is_named_file(path: Path) -> bool:
    """Whether a name stands for a file: one that is there, or one that a link points to in vain."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _tell_unreadable(error: OSError) -> None:
    logger.warning("%s: cannot be read (%s), and nothing in it is", printable(error.filename), error.strerror)


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def is_image_name(path: Path) -> bool:
    """Whether a file's name is that of an image: by its suffix, or, without one, by the preamble of DICOM inside."""
    if path.name.lower().endswith((*IMAGE_SUFFIXES, *CLIP_SUFFIXES)):
        return True
    return _has_no_suffix(path) and kind_of(path) == DICOM


def _has_no_suffix(path: Path) -> bool:
    """Whether what follows the last dot is no suffix: archives name files by UIDs, 1.2.840.113619.2.55."""
    return not path.suffix or path.suffix[1:].isdigit()


def bare_name(path: Path) -> Path:
    """The path without its image suffix: `a/x` of `a/x.png` and of `a/x.nii.gz`."""
    suffix = next((end for end in (*IMAGE_SUFFIXES, *CLIP_SUFFIXES) if path.name.lower().endswith(end)), "")
    return path.with_name(path.name[: len(path.name) - len(suffix)] or path.name)


def choose_images(paths: Iterable[Path]) -> tuple[list[Path], Counter[str]]:
    """Divide files into the images and a count of all others by kind.

    Masks that lie among the images of a known layout are no images: `x_mask.png` or `x_tumor.png` beside `x.png`,
    `mask_1.png` beside `Test_Image_1.png`, and what is in a folder `masks` beside a folder `images`.
    """
    passed: Counter[str] = Counter()
    images = []
    for path in paths:
        kind = _kind_of_other(path)
        if kind is None:
            images.append(path)
        else:
            passed[kind] += 1
    masks = _find_masks(images)
    if masks:
        passed[MASK] += len(masks)
    return [path for path in images if path not in masks], passed


def _kind_of_other(path: Path) -> str | None:
    """What a file is by its name, None for an image."""
    if path.name.startswith("."):
        return HIDDEN
    if path.name.upper() == "DICOMDIR":
        return DIRECTORY
    return None if is_image_name(path) else f"{OTHER_TYPE}{path.suffix.lower()}"


def _find_masks(images: Iterable[Path]) -> set[Path]:
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in images:
        by_folder[path.parent].append(path)
    pictures = {folder.parent for folder in by_folder if folder.name.lower() in ("images", "image")}
    masks: set[Path] = set()
    for folder, paths in by_folder.items():
        if folder.name.lower() in ("masks", "mask") and folder.parent in pictures:
            masks.update(paths)
            continue
        stems = {bare_name(path).name.lower() for path in paths}
        numbers = {int(match["number"]) for stem in stems if (match := _numbered(stem, "test_image"))}
        for path in paths:
            stem = bare_name(path).name.lower()
            beside, numbered = _MASK_STEM.fullmatch(stem), _numbered(stem, "mask")
            if (beside and beside["image"] in stems) or (numbered and int(numbered["number"]) in numbers):
                masks.add(path)
    return masks


def _numbered(stem: str, kind: str) -> re.Match[str] | None:
    match = _NUMBERED.fullmatch(stem)
    return match if match and match["kind"].lower() == kind else None


def tell_passed_over(folder: Path, counts: Mapping[str, int]) -> None:
    """Say in one line how many files of a folder were passed over, by kind; nothing where there are none."""
    line = passed_over_line(counts)
    if line:
        logger.warning("%s: %s", printable(folder), line)


def passed_over_line(counts: Mapping[str, int]) -> str:
    """The text of the line, such as "passed over 3 files (hidden: 2, of other types .txt: 1)"; "" for none."""
    total = sum(counts.values())
    if not total:
        return ""
    told = [f"{kind}: {count}" for kind, count in sorted(counts.items()) if count and not kind.startswith(OTHER_TYPE)]
    others = {kind.removeprefix(OTHER_TYPE): n for kind, n in sorted(counts.items()) if kind.startswith(OTHER_TYPE)}
    if others:
        shown = " ".join([*(kind or "without suffix" for kind in others)][:_SHOWN_TYPES])
        told.append(f"{OTHER_TYPE} {shown}{' …' * (len(others) > _SHOWN_TYPES)}: {sum(others.values())}")
    return f"passed over {total} file{'s' if total > 1 else ''} ({', '.join(told)})"


def require_text_name(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose name is no text: no report, table or standard output could hold it.

    Raises:
        InputError: the bytes of the name are no UTF-8.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(path, "its name is no UTF-8 text, as old ZIP files leave it", "rename it") from None


def count_others(folder: Path, taken: Iterable[str | Path]) -> Counter[str]:
    """Count, by kind, the files below a dataset's folder that its layout did not take up.

    Args:
        folder: of the dataset.
        taken: paths, relative to it, of the images and masks that it did, and of what was told as bad.
    """
    known = {printable(folder / path) for path in taken}
    rest = []
    for path in files_below(folder):
        # A folder can be told as bad as well.
        if not known.intersection((printable(path), printable(path.parent))) and not _TABLE.fullmatch(path.name):
            rest.append(path)
    images, passed = choose_images(rest)
    if images:
        passed[UNLISTED] += len(images)
    return passed
