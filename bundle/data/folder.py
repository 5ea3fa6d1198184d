# SPDX-License-Identifier: Apache-2.0
"""A folder of images without labels: which files are there, and which of them can be read."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bundle.data.cases import IMAGE_SUFFIXES
from bundle.errors import InputError, UserError
from bundle.readers import read_image

SOME_CASES_FAILED = 3
"""Exit code of a run that did all it could, but not all that it was asked."""


@dataclass(frozen=True)
class ImageFolder:
    """The images below a folder: paths that can be read, and why each of the others can not."""

    readable: tuple[str, ...]
    skipped: tuple[InputError, ...]

    def exit_if_incomplete(self) -> None:
        """Leave the process with exit code 3 when files were skipped, naming each."""
        if self.skipped:
            for bad in self.skipped:
                print(f"skipped: {bad}", file=sys.stderr)
            done, total = len(self.readable), len(self.readable) + len(self.skipped)
            print(f"{done} of {total} images are done; the others were skipped (listed above)", file=sys.stderr)
            raise SystemExit(SOME_CASES_FAILED)


def list_images(dataset_dir: str | os.PathLike[str]) -> ImageFolder:
    """Find the images below a folder and try to read each, so that one bad file does not end a run halfway.

    Masks that lie beside their image (``x.png``, ``x_mask.png``, ``x_mask_1.png``) are left out.

    Raises:
        UserError: the folder is missing, or holds no image that can be read.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a folder of images as dataset_dir")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    names = {path.with_suffix("") for path in paths}
    images = [path for path in paths if not _is_mask_of_another(path, names)]
    results = list(tqdm(_try_all(images), total=len(images), desc="checking", unit="image", disable=len(images) < 50))
    readable = tuple(str(path) for path, error in zip(images, results, strict=True) if error is None)
    skipped = tuple(error for error in results if error is not None)
    if not readable:
        listed = "".join(f"\n  {bad}" for bad in skipped[:5])
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise UserError(f"{folder}: no readable image ({suffixes}) in it; name another folder{listed}")
    return ImageFolder(readable, skipped)


def _is_mask_of_another(path: Path, names: set[Path]) -> bool:
    match = re.fullmatch(r"(.+)_mask(_\d+)?", path.stem)
    return match is not None and path.with_name(match[1]) in names


def _try_all(images: list[Path]) -> Iterator[InputError | None]:
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(_try_one, images)


def _try_one(path: Path) -> InputError | None:
    try:
        read_image(path)
    except InputError as error:
        return error
    return None
