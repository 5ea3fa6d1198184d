# SPDX-License-Identifier: Apache-2.0
"""BUSI's layout: a folder per class, `benign (4).png` beside `benign (4)_mask.png` and `benign (4)_mask_1.png`.

Al-Dhabyani W., Gomaa M., Khaled H., Fahmy A., Dataset of breast ultrasound images, Data in Brief 28 (2020) 104863.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from bundle.data.cases import IMAGE_SUFFIXES, LABELS, Listed
from bundle.data.walk import bare_name, choose_images, files_below, is_named_file
from bundle.errors import InputError

_MASK_STEM = re.compile(r"(?P<image>.+)_mask(_?\d+)?", re.DOTALL | re.IGNORECASE)
_MASK_LIKE = re.compile(r".*(?<![a-z])mask(?![a-z])", re.DOTALL | re.IGNORECASE)


def is_busi_layout(folder: Path) -> bool:
    """Whether the folder has a subfolder that is named after a class, in any case."""
    return any(path.name.lower() in LABELS and path.is_dir() for path in folder.iterdir())


def list_busi(folder: Path) -> tuple[list[Listed], list[InputError]]:
    """List the images of a BUSI-like folder with their masks, sorted by image, and what is wrong with the names.

    A normal image may lack a mask. Names of folders and masks count in any case. Hidden files and files of other types
    are passed over. Told are a file that is called a mask in another way than the layout's, and a folder of a class
    whose images all lie in folders below it.
    """
    listed: list[Listed] = []
    problems: list[InputError] = []
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = _image_files(subfolder)
        if subfolder.name.lower() in LABELS:
            _list_class(subfolder.name, files, listed, problems)
            deeper = [] if files else [p for p in choose_images(files_below(subfolder))[0] if p.parent != subfolder]
            if deeper:  # what lies beside, and is listed by others, are clips
                reason = f"holds no image itself, and {len(deeper)} in folders below it"
                problems.append(InputError(subfolder, reason, "move them into it, or describe them by a manifest.csv"))
        elif files:
            reason = f"holds {len(files)} images, but '{subfolder.name}' is no class"
            problems.append(InputError(subfolder, reason, f"name it {', '.join(LABELS)} or move it elsewhere"))
    return sorted(listed, key=lambda item: item.image), problems


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(IMAGE_SUFFIXES) and not path.name.startswith(".") and is_named_file(path)
    )


def _list_class(folder: str, files: list[Path], listed: list[Listed], problems: list[InputError]) -> None:
    images: dict[str, Path] = {}
    masks: defaultdict[str, list[str]] = defaultdict(list)
    orphans: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        stem = bare_name(path).name
        match = _MASK_STEM.fullmatch(stem)
        if match:
            masks[match["image"].lower()].append(f"{folder}/{path.name}")
            orphans[match["image"].lower()].append(path)
        elif _MASK_LIKE.match(stem):
            mend = "name it '<image>_mask' or '<image>_mask_1', or, if it is none, without 'mask'"
            problems.append(InputError(path, "is called a mask in another way than this layout's", mend))
        elif stem.lower() in images:
            reason = f"has the same name as {images[stem.lower()].name}, so their masks cannot be told apart"
            problems.append(InputError(path, reason, "rename or remove one"))
        else:
            images[stem.lower()] = path
    for stem, path in images.items():
        listed.append(Listed(f"{folder}/{path.name}", tuple(masks[stem]), folder.lower()))
        orphans.pop(stem, None)
    for stem, paths in orphans.items():
        for path in paths:
            problems.append(InputError(path, f"a mask without its image '{stem}'", "add the image or remove the mask"))
