# SPDX-License-Identifier: Apache-2.0
"""Names of results by their input: what lies where, for those who write maps and those who read them."""

from __future__ import annotations

from pathlib import Path

from bundle.readers import split_frame

MAPS_RECORD = "segmenter.json"
"""Beside the maps: which segmenter made them, of which pixels."""


def output_name(image: Path, dataset_dir: Path, frame: int | None = None) -> Path:
    """Name the PNG of an image: its path below the dataset folder; another suffix than .png stays in the name.

    Args:
        image: the file, or `cine.dcm[3]` for one of its frames.
        dataset_dir: the folder that names are relative to.
        frame: of a file of several; `cine.dcm.frame3.png` then.
    """
    file, named = split_frame(image)
    frame = named if frame is None else frame
    relative = Path(file).relative_to(dataset_dir)
    if frame is not None:
        return relative.with_name(f"{relative.name}.frame{frame}.png")
    return relative if relative.suffix.lower() == ".png" else relative.with_name(relative.name + ".png")
