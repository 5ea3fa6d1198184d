# SPDX-License-Identifier: Apache-2.0
"""Datalists: which image stands in which part; the segmenter's is built and loaded here, the classifier's elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.data.cases import LABELS, LESION_LABELS, UNCLASSED, Case, CaseList, relative_path
from bundle.data.roots import Dataset, Roots, find_roots
from bundle.data.splits import PARTS, UNLABELLED, split_by_name
from bundle.errors import InputError, UserError
from bundle.files import read_json
from bundle.readers import split_frame

DATALIST = "datalist_segmentation.json"
HEADER = ("name", "description", "synthetic", "source", "dataset_sha256", "split", "seed", "labels", "split_sha256")
LISTS = tuple(f"{part}{kind}" for kind in ("", "_normal") for part in PARTS)
MEND = "make it anew with scripts/prepare_data.py"

Datalist = dict[str, Any]


def build_datalist(case_list: CaseList, split: str, seed: int) -> Datalist:
    """The segmenter's datalist: paths as the cases have them, lesions and normal images of each part apart.

    Raises:
        UserError: as `split_by_name`.
    """
    parts = split_by_name(case_list.cases, split, seed)
    datalist: Datalist = {
        "name": case_list.name,
        "description": "Breast ultrasound lesion segmentation; paths are relative to the dataset folder.",
        "synthetic": case_list.synthetic,
        "source": case_list.source,
        "dataset_sha256": case_list.dataset_sha256,
        "split": split,
        "seed": seed,
        "labels": {"0": "background", "1": "lesion"},
    }
    for name in (*LISTS, UNLABELLED) if UNLABELLED in parts else LISTS:
        wanted = ("normal",) if name.endswith("_normal") else LESION_LABELS
        members = parts[name.removesuffix("_normal")]
        datalist[name] = [_record(case) for case in members if case.label in wanted]
    if case_list.datasets:
        datalist["datasets"] = case_list.datasets
    return {**datalist, "split_sha256": split_checksum(datalist)}


def load_datalist(datalist: str | os.PathLike[str], dataset_dir: Dataset | Roots) -> Datalist:
    """Read a datalist file with absolute paths in its records: "image" one path, "label" a list of mask paths.

    Raises:
        UserError: it is no datalist of this format, a group crosses its parts, or a file is not in dataset_dir.
    """
    file, roots = Path(datalist), find_roots(dataset_dir)
    content = read_json(file, MEND)
    try:
        missing = [key for key in (*HEADER, *LISTS) if key not in content]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        check_no_group_crosses(content)
        lists = (*LISTS, UNLABELLED) if UNLABELLED in content else LISTS
        for name in lists:
            content[name] = [_absolute(record, roots) for record in content[name]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(file, f"is no datalist of the bundle ({error or type(error).__name__})", MEND) from error
    for name in lists:
        for record in content[name]:
            for path in (record["image"], *record["label"]):
                if not os.path.isfile(split_frame(path)[0]):
                    raise InputError(path, f"is named in {file.name} but missing", "give the dataset's own folder")
    return content


def split_checksum(split: Mapping[str, Any]) -> str:
    """The sha256 of which image stands in which part, wherever the dataset's folder lies.

    Args:
        split: records with "image", a path relative to the dataset, under the names of the parts.
    """
    content = {
        name: sorted(record["image"] for record in split.get(name, []))
        for name in (f"{part}{kind}" for part in PARTS for kind in ("", "_normal"))
    }
    # Only where there is such a part: the checksums of other splits stay what they were.
    content |= {UNLABELLED: sorted(record["image"] for record in split[UNLABELLED])} if UNLABELLED in split else {}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_no_group_crosses(split: Mapping[str, Any]) -> None:
    """Check that no group and no image of a datalist stands in two parts; `training_normal` counts as training.

    Args:
        split: records with "image" and "group" under the names of the parts; other keys are passed over.

    Raises:
        UserError: one does; the message names the group and its files.
    """
    seen: dict[str, tuple[str, str]] = {}
    for part in (*PARTS, UNLABELLED):
        for record in [*split.get(part, []), *split.get(f"{part}_normal", [])]:
            image, group = record["image"], record["group"]
            for key, what in ((f"group {group}", f"group {group}"), (f"image {image}", "the same image")):
                other_part, other_image = seen.setdefault(key, (part, image))
                if other_part != part:
                    raise UserError(
                        f"{what} stands in two parts: '{other_image}' in {other_part}, '{image}' in {part}; "
                        "make the split anew with scripts/prepare_data.py"
                    )


def _record(case: Case) -> dict[str, Any]:
    record = {"image": case.image, "label": list(case.masks), "class": case.label, "group": case.group}
    told = {"dataset": case.dataset, "patient": case.patient, "details": case.details}
    return {**record, **{key: value for key, value in told.items() if value}}


def _absolute(record: Mapping[str, Any], roots: Roots) -> dict[str, Any]:
    if record["class"] not in (*LABELS, UNCLASSED) or not isinstance(record["label"], list):
        raise ValueError(f"record {record}")
    image, *masks = (str(roots.absolute(relative_path(path))) for path in (record["image"], *record["label"]))
    return {**record, "image": image, "label": masks}
