# SPDX-License-Identifier: Apache-2.0
"""BUSI's layout: a folder per class, `benign (4).png` beside `benign (4)_mask.png` and `benign (4)_mask_1.png`.

Al-Dhabyani W., Gomaa M., Khaled H., Fahmy A., Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from bundle.data.cases import IMAGE_SUFFIXES, LABELS, Listed
from bundle.errors import InputError

_MASK_STEM = re.compile(r"(?P<image>.+)_mask(_\d+)?", re.DOTALL)


def is_busi_layout(folder: Path) -> bool:
    """Whether the folder has a subfolder that is named after a class."""
    return any((folder / label).is_dir() for label in LABELS)


def list_busi(folder: Path) -> tuple[list[Listed], list[InputError]]:
    """List the images of a BUSI-like folder with their masks, sorted by image, and what is wrong with the names.

    A normal image may lack a mask. Hidden files and files of other types are passed over.
    """
    listed: list[Listed] = []
    problems: list[InputError] = []
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = _image_files(subfolder)
        if subfolder.name in LABELS:
            _list_class(subfolder.name, files, listed, problems)
        elif files:
            reason = f"holds {len(files)} images, but '{subfolder.name}' is no class"
            problems.append(InputError(subfolder, reason, f"name it {', '.join(LABELS)} or move it elsewhere"))
    return sorted(listed, key=lambda item: item.image), problems


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _list_class(label: str, files: list[Path], listed: list[Listed], problems: list[InputError]) -> None:
    images: dict[str, Path] = {}
    masks: defaultdict[str, list[str]] = defaultdict(list)
    orphans: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        match = _MASK_STEM.fullmatch(path.stem)
        if match:
            masks[match["image"]].append(f"{label}/{path.name}")
            orphans[match["image"]].append(path)
        elif path.stem in images:
            reason = f"has the same name as {images[path.stem].name}, so their masks cannot be told apart"
            problems.append(InputError(path, reason, "rename or remove one"))
        else:
            images[path.stem] = path
    for stem, path in images.items():
        listed.append(Listed(f"{label}/{path.name}", tuple(masks[stem]), label))
        orphans.pop(stem, None)
    for stem, paths in orphans.items():
        for path in paths:
            problems.append(InputError(path, f"a mask without its image '{stem}'", "add the image or remove the mask"))
