# SPDX-License-Identifier: Apache-2.0
"""A folder of images without labels: which files are there, which can be read, which have a probability map."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from bundle.data.cases import CLIP_SUFFIXES, IMAGE_SUFFIXES
from bundle.data.names import MAPS_RECORD, output_name
from bundle.data.roots import Dataset, find_roots
from bundle.data.walk import choose_images, files_below, require_text_name, tell_passed_over
from bundle.errors import InputError, NotAnImageError, UserError
from bundle.files import read_json
from bundle.networks.autocast import as_flag
from bundle.networks.weights import none_below
from bundle.readers import count_frames, read_image, split_frame
from bundle.transforms.masks import read_probability

SOME_CASES_FAILED = 3
"""Exit code of a run that did all it could, but not all that it was asked."""


@dataclass(frozen=True)
class ImageFolder:
    """The images below a folder: paths that can be read, and why each of the others can not.

    ``maps`` are the paths of their probability maps, one per readable image, and ``presence`` the probabilities of a
    lesion that were recorded with them, None where there is none; both are empty before `pair_with_maps`.
    ``unusable`` grows while a run finds that readable images show nothing.
    """

    readable: tuple[str, ...]
    skipped: tuple[InputError, ...]
    maps: tuple[str, ...] = ()
    unusable: list[InputError] = field(default_factory=list)
    presence: tuple[float | None, ...] = ()

    def note_unusable(self, path: str, reason: str) -> None:
        """Take note that a readable image shows nothing that could be looked at."""
        self.unusable.append(InputError(path, f"unusable: {reason}", "export it again, or leave it out"))

    def exit_if_incomplete(self) -> None:
        """Leave the process with exit code 3 when files were skipped or show nothing, naming each.

        A cine is passed over where its frames are blank, and counts where all of them are.
        """
        blank = [bad for bad in self.unusable if not self._has_other_frames(str(bad.path))]
        if self.skipped or blank:
            for bad in self.skipped:
                print(f"skipped: {bad}", file=sys.stderr)
            for bad in blank:
                print(bad, file=sys.stderr)
            done, total = len(self.readable) - len(blank), len(self.readable) + len(self.skipped)
            if not done:
                raise UserError("no image could be used; see the lines above")
            print(f"{done} of {total} images are done; the others could not be used (listed above)", file=sys.stderr)
            raise SystemExit(SOME_CASES_FAILED)

    def _has_other_frames(self, path: str) -> bool:
        file, frame = split_frame(path)
        blank = {str(bad.path) for bad in self.unusable}
        return frame is not None and any(
            split_frame(other)[0] == file and other not in blank for other in self.readable
        )


def list_images(
    dataset_dir: Dataset,
    output_dir: str | os.PathLike[str] | None = None,
    each_frame: bool | str = False,
) -> ImageFolder:
    """Find the images below a folder, or several, and check each, so that one bad file does not end a run halfway.

    Known by their suffix, or, without one, by the preamble of DICOM. Links to folders are followed. What is no image
    and was not meant to be one, see `bundle.data.walk.choose_images` and `NotAnImageError`, is counted in one line of
    the log. Pictures are decoded; of DICOM and NIfTI one frame is, however many the file holds.

    Args:
        dataset_dir: the folder, or those of several datasets.
        output_dir: where the results will be written; None where nothing is.
        each_frame: take each frame of a file of several as an image of its own, named `cine.dcm[0]`, `cine.dcm[1]` …;
            otherwise such a file is left out, with the reason.

    Raises:
        UserError: the folder is missing, holds no image that can be read, or the results would be written into it.
    """
    folders = list(find_roots(dataset_dir).datasets.values())
    found = [_list_folder(folder, output_dir, each_frame) for folder in folders]
    skipped = tuple(bad for part in found for bad in part.skipped)
    return ImageFolder(tuple(image for part in found for image in part.readable), skipped)


def _list_folder(folder: Path, output_dir: str | os.PathLike[str] | None, each_frame: bool | str) -> ImageFolder:
    images, passed = find_images(folder, output_dir)
    if as_flag("each_frame", each_frame):
        images = [name for path in images for name in _name_frames(path)]
    results = _try_all(_try_image, images)
    readable = tuple(str(path) for path, error in zip(images, results, strict=True) if error is None)
    skipped = tuple(error for error in results if error is not None and not isinstance(error, NotAnImageError))
    passed.update(error.kind for error in results if isinstance(error, NotAnImageError))
    tell_passed_over(folder, passed)
    if not readable:
        suffixes = ", ".join((*IMAGE_SUFFIXES, *CLIP_SUFFIXES))
        raise UserError(f"{folder}: no readable image ({suffixes}) in it; name another folder{_first(skipped)}")
    return ImageFolder(readable, skipped)


def find_images(folder: Path, output_dir: str | os.PathLike[str] | None = None) -> tuple[list[Path], Counter[str]]:
    """List the files below a folder that `list_images` would try, sorted, and count the others by kind; none is read.

    Raises:
        UserError: the folder is missing, or the results would be written into it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a folder of images as dataset_dir")
    if output_dir is not None:
        _refuse_inside(folder, output_dir, "give an output folder outside it")
    try:
        return choose_images(files_below(folder))
    except OSError as error:
        raise InputError(folder, f"cannot be read ({error.strerror})", "check its permissions") from error


def pair_with_maps(
    images: ImageFolder, dataset_dir: str | os.PathLike[str], maps_dir: str | os.PathLike[str]
) -> ImageFolder:
    """Keep the images whose probability map can be used; the others join the skipped ones, with the reason.

    Args:
        images: as `list_images` gives them.
        dataset_dir: the folder that it was given.
        maps_dir: folder of the maps, 8-bit grey PNGs named and sized like the images.

    Raises:
        UserError: the folder of maps is missing, lies among the images, or holds no usable map.
    """
    folder = Path(maps_dir)
    mend = "name the folder 'probabilities' that configs/inference.json wrote as maps_dir"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {mend}")
    _refuse_inside(Path(dataset_dir), folder, "move the maps out of it")
    names = [output_name(Path(image), Path(dataset_dir)) for image in images.readable]
    results = _try_all(lambda image, name: _try_map(image, folder, name), images.readable, names)
    pairs = zip(images.readable, names, results, strict=True)
    told, _ = read_presence(folder)
    good = [(image, str(folder / name), told.get(name.as_posix())) for image, name, error in pairs if error is None]
    bad = tuple(error for error in results if error is not None)
    if not good:
        raise UserError(f"{folder}: no usable map of an image in {dataset_dir}; {mend}{_first(bad)}")
    readable, maps, presence = zip(*good, strict=True)
    return ImageFolder(readable, (*images.skipped, *bad), maps, presence=presence)


def read_presence(maps_dir: str | os.PathLike[str]) -> tuple[dict[str, float], float]:
    """The probability of a lesion of each map of a folder, by its name, where the segmenter told it, and its limit.

    Raises:
        InputError: the record beside the maps cannot be read.
    """
    record = Path(maps_dir).resolve().parent / MAPS_RECORD
    content = read_json(record, "segment again") if record.exists() else {}
    return content.get("lesion_probability", {}), none_below(content)


def _refuse_inside(folder: Path, other: str | os.PathLike[str], mend: str) -> None:
    """Refuse results that lie among the images: a run would take them for images."""
    if Path(other).resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{other}: lies inside {folder}, whose images are read; {mend}")


def _try_all(test: Callable[..., InputError | None], *items: Sequence[object]) -> list[InputError | None]:
    total = len(items[0])
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(tqdm(pool.map(test, *items), total=total, desc="checking", unit="image", disable=total < 50))


def _try_image(path: Path) -> InputError | None:
    try:
        require_text_name(path)
        read_image(path)
    except InputError as error:
        return error
    return None


def _name_frames(path: Path) -> list[Path]:
    """One name per frame; the path itself of a file of one, and of a bad one, which is told of later."""
    try:
        require_text_name(path)
        frames = count_frames(path)
    except InputError:
        return [path]
    return [path] if frames == 1 else [path.with_name(f"{path.name}[{number}]") for number in range(frames)]


def _try_map(image: str, folder: Path, name: Path) -> InputError | None:
    """Errors name the image, which is what will lack a result, and the map below its folder only."""
    if not (folder / name).is_file():
        return InputError(image, f"its probability map {name} is missing", "segment it with configs/inference.json")
    try:
        shape = read_probability(folder / name).shape
        expected = read_image(image).pixels.shape  # maps are of the whole frame
    except InputError as error:
        return InputError(image, f"its probability map {name} can not be used ({error.reason})", error.mend)
    if shape != expected:
        reason = f"its probability map {name} has {shape[0]}×{shape[1]} pixels, the image {expected[0]}×{expected[1]}"
        return InputError(image, reason, "segment it again")
    return None


def _first(skipped: Sequence[InputError]) -> str:
    return "".join(f"\n  {bad}" for bad in skipped[:5])
