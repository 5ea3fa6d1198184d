# SPDX-License-Identifier: Apache-2.0
"""STU's layout: `Test_Image_1.png` beside `mask_1.png`; no classes, no patients.

Zhuang Z. et al., An RDAU-NET model for lesion segmentation in breast ultrasound images, PLoS ONE 14 (2019) e0221535.
The set is for segmentation alone. Some masks are of another size than their image and have grey edges.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from bundle.data.cases import UNCLASSED, Listed
from bundle.data.named_files import Files, find_file
from bundle.errors import InputError

_IMAGE = re.compile(r"(?:test[ _-]?)?image[ _-]?(?P<number>\d+)", re.IGNORECASE)
_MASK = re.compile(r"mask[ _-]?(?P<number>\d+)", re.IGNORECASE)


def is_stu_layout(folder: Path) -> bool:
    """Whether the folder, or one in it, holds files named `Test_Image_…`."""
    folders = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    return any(find_file(place, r"test_image_.*") is not None for place in folders)


def list_stu(folder: Path) -> tuple[list[Listed], list[InputError]]:
    """List the images of STU, sorted, each as `UNCLASSED`, and the masks and images that lack each other."""
    images: dict[tuple[str, int], str] = {}
    masks: dict[tuple[str, int], str] = {}
    problems: list[InputError] = []
    for path in Files(folder).paths:
        stem, place = PurePosixPath(path).stem, PurePosixPath(path).parent.as_posix()
        for pattern, found in ((_IMAGE, images), (_MASK, masks)):
            match = pattern.fullmatch(stem)
            if match and found.setdefault((place, int(match["number"])), path) != path:
                reason = f"has the same number as {found[place, int(match['number'])]}"
                problems.append(InputError(folder / path, reason, "remove one of them"))
    listed = [Listed(path, (masks[key],), UNCLASSED) for key, path in images.items() if key in masks]
    for here, there, what in ((images, masks, "mask"), (masks, images, "image")):
        for key, path in here.items():
            if key not in there:
                problems.append(InputError(folder / path, f"has no {what} of its number", f"add the {what}"))
    return sorted(listed, key=lambda item: item.image), problems
