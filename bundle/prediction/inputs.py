# SPDX-License-Identifier: Apache-2.0
"""What a batch is given: files, folders and lists of paths, and which frames of a cine are looked at."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.data.folder import find_images
from bundle.data.manifest import with_frame
from bundle.data.names import output_name
from bundle.data.tables import as_text, fold, read_csv
from bundle.data.walk import passed_over_line
from bundle.errors import InputError, UserError
from bundle.readers import split_frame

MAX_FRAMES = 20
"""Frames of a cine that are looked at unless told otherwise, evenly spread over it."""

LIST_COLUMNS = ("image", "path")
"""Of a table that lists files: the first of these that it has."""
FRAME_COLUMN = "frame"


@dataclass(frozen=True)
class Input:
    """A file to predict.

    Args:
        path: as it was named; ``cine.dcm[3]`` for one frame.
        folder: that its name in the results is relative to.
        named: it was named itself, not only a folder that it lies in.
    """

    path: Path
    folder: Path
    named: bool = False


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a file of several are looked at; at most one of the three is set.

    Args:
        frame: this one, from 0.
        every: every n-th, from the first.
        all: all.
    """

    frame: int | None = None
    every: int | None = None
    all: bool = False

    def choose(self, path: Path, frames: int) -> Sequence[int | None]:
        """Return the frames of a file, None for a file of one image.

        Raises:
            InputError: the file has no such frame.
        """
        _, named = split_frame(path)
        if frames == 1 or named is not None:
            return [named]
        if self.frame is not None:
            if not 0 <= self.frame < frames:
                raise InputError(path, f"has no frame {self.frame}", f"it holds {frames}, counted from 0")
            return [self.frame]
        return range(0, frames, 1 if self.all else self.every or math.ceil(frames / MAX_FRAMES))


def list_inputs(
    given: Iterable[Path], listed: Sequence[Path] = (), output: Path | None = None
) -> tuple[list[Input], Counter[str]]:
    """List the files that are named, and those below the folders that are named, without opening images.

    Below a folder these are images, DICOM and NIfTI files and clips, see `bundle.data.walk.choose_images`. A file that
    is named twice is taken once.

    Args:
        given: files, named in the results without their folder; and folders, whose files are named below them.
        listed: files and folders, all named below the deepest folder that they have in common.
        output: folder of the results; None where nothing is written.

    Returns:
        the files, and how many others the folders hold, by kind.

    Raises:
        UserError: a folder holds no image or will hold the results, or two files would be written under one name.
    """
    found: dict[Path, Input] = {}
    passed: Counter[str] = Counter()
    common = Path(os.path.commonpath([os.path.abspath(path.parent) for path in listed])) if listed else None
    for path, folder in [
        *((path, None) for path in given),
        *((Path(os.path.abspath(path)), common) for path in listed),
    ]:
        files, is_folder = [path], path.is_dir()
        if is_folder:
            files, others = find_images(path, output)
            passed.update(others)
            if not files:
                line = passed_over_line(others)
                raise UserError(f"{path}: no readable image in it{line and f' ({line})'}; name another folder")
        for file in files:
            input_ = Input(file, folder or (path if is_folder else path.parent), named=not is_folder)
            found.setdefault(Path(os.path.abspath(file)), input_)
    names: dict[Path, Path] = {}
    for input_ in found.values():
        name = output_name(input_.path, input_.folder)
        if output is not None and name in names:
            raise UserError(f"{names[name]} and {input_.path} would both be written as {name}; give them in two runs")
        names[name] = input_.path
    return list(found.values()), passed


def read_list(path: Path) -> list[Path]:
    """Read a list of paths: ``.csv``, ``.tsv`` or ``.parquet`` with a column `LIST_COLUMNS`, else text, one a line.

    A column ``frame`` names one frame of a file. Names of columns, delimiters and encodings are as in
    `bundle.data.tables.read_csv`. Empty lines and values are passed over.

    Raises:
        UserError: it cannot be read, lacks the column, or names no file; or pyarrow is missing.
    """
    mend = f"give a file of paths, one a line, or a table with a column {' or '.join(LIST_COLUMNS)}"
    read = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}.get(path.suffix.lower(), _read_lines)
    try:
        paths = [Path(with_frame(str(path), name, frame)) for name, frame in read(path) if name]
    except InputError as error:
        raise UserError(f"{path}: cannot be read as a list ({error.reason}); {mend}") from None
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: cannot be read as a list ({reason}); {mend}") from None
    if not paths:
        raise UserError(f"{path}: names no file; {mend}")
    return paths


def _read_lines(path: Path) -> list[tuple[str, str]]:
    return [(line.strip(), "") for line in as_text(path.read_bytes()).splitlines()]


def _read_csv(path: Path) -> list[tuple[str, str]]:
    table = read_csv(path)
    column, *_ = map(fold, _list_columns(table.columns))
    return [(row[column], row.get(FRAME_COLUMN, "")) for _, row in table.rows]


def _read_parquet(path: Path) -> list[tuple[str, str]]:
    from bundle.outputs.parquet import load_pyarrow  # an extra

    parquet = load_pyarrow().parquet
    wanted = _list_columns(parquet.ParquetDataset(path).schema.names)
    table = parquet.read_table(path, columns=wanted)
    values, *frames = (table[name].to_pylist() for name in wanted)
    if not all(value is None or isinstance(value, str) for value in values):
        raise ValueError(f"its column {wanted[0]} holds no text")
    numbers = frames[0] if frames else [None] * len(values)
    return [
        # A number that is not equal to itself is NaN, which stands for an empty cell.
        ((value or "").strip(), "" if number is None or number != number else str(number))
        for value, number in zip(values, numbers, strict=True)
    ]


def _list_columns(names: Sequence[str]) -> list[str]:
    """The column of paths, and that of frames where there is one."""
    found = {wanted: [name for name in names if fold(name) == wanted] for wanted in (*LIST_COLUMNS, FRAME_COLUMN)}
    paths = next((found[wanted] for wanted in LIST_COLUMNS if found[wanted]), None)
    if paths is None:
        raise ValueError(f"its columns are {', '.join(names) or 'none'}")
    for several in (paths, found[FRAME_COLUMN]):
        if len(several) > 1:
            raise ValueError(f"it has {len(several)} columns for {fold(several[0])}")
    return [*paths, *found[FRAME_COLUMN]]
