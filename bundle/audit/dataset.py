# SPDX-License-Identifier: Apache-2.0
"""Audit a dataset: what in it would make a score look better, or worse, than the model is.

Near duplicates, groups that stand in two classes, contours of one frame that disagree, marks drawn into the tissue,
sizes out of the common run. Every finding is shown as a picture, because a person has to judge it.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from bundle.data.alignment import compare, read_details, read_scene
from bundle.data.cases import Case
from bundle.data.check import THREADS, check_dataset
from bundle.data.duplicates import Pair, find_pairs, group_cases
from bundle.data.groups import find_conflicts, group_table
from bundle.data.roots import dataset_folder
from bundle.files import make_folder, sha256_of, write_atomically, write_json
from bundle.finding import OVERLAY_RGB
from bundle.provenance import describe_run
from bundle.readers import read_image
from bundle.reports.html import render_html
from bundle.transforms.calipers import calipers_at, find_calipers
from bundle.transforms.masks import merge_masks

CONTOURS_AGREE = 0.8
"""Dice from which two contours of one frame tell the same; readers of one image reach about this."""

_FENCE = 3.0
_THUMBNAIL, _QUALITY = 150, 70


def audit_dataset(dataset: str | os.PathLike[str], output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Audit a dataset and write ``groups.csv``, ``audit.json`` and ``audit.html``; bad files are listed, not fatal.

    Args:
        dataset: a folder or a CSV manifest, as `bundle.data.prepare` takes it.
        output_dir: made if need be; files of an earlier audit are replaced.

    Returns:
        what ``audit.json`` holds.

    Raises:
        UserError: the dataset's layout is unknown or it has no readable image.
    """
    start, dataset, output = time.monotonic(), Path(dataset), Path(output_dir)
    make_folder(output)
    folder = dataset_folder(dataset)
    checked = check_dataset(dataset, skip_bad=True)
    pairs = find_pairs(checked.cases, folder)
    groups = group_cases(checked.cases, pairs)
    cases = [replace(case, group=groups[case.image]) for case in checked.cases]
    contours = _compare_contours(cases, pairs, folder)
    with ThreadPoolExecutor(THREADS) as pool:
        looked = pool.map(lambda case: _look(case, folder), cases)
        seen = list(tqdm(looked, total=len(cases), desc="Looking for marks", unit="image", disable=None))
    members: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        members[case.group].append(case)
    repeated = {name: group for name, group in members.items() if len(group) > 1}
    audit: dict[str, Any] = {
        "name": checked.name,
        "source": checked.source,
        "synthetic": checked.synthetic,
        "dataset_sha256": checked.dataset_sha256,
        "images": len(cases),
        "classes": {label: sum(case.label == label for case in cases) for label in sorted({c.label for c in cases})},
        "groups": len(members),
        "repeated_groups": len(repeated),
        "repeated_images": sum(map(len, repeated.values())),
        "pairs": [_name_pair(cases, pair) for pair in pairs],
        "label_conflicts": {
            name: {case.image: case.label for case in members[name]} for name in sorted(find_conflicts(cases))
        },
        "contours": contours,
        "contours_that_disagree": sum(entry["dice"] < CONTOURS_AGREE for entry in contours),
        "equal_files": _equal({case.image: sha256_of(folder / case.image) for case in cases}),
        "equal_pixels": _equal({case.image: case.sha256 for case in cases}),
        "coloured": {case.image: warning for case, (warning, _) in zip(cases, seen, strict=True) if warning},
        "calipers": {case.image: marks for case, (_, marks) in zip(cases, seen, strict=True) if marks},
        "outlier_sizes": _find_outliers(cases),
        "skipped": list(checked.skipped),
    }
    audit |= {"seconds": round(time.monotonic() - start, 1), "provenance": describe_run()}
    write_atomically(output / "groups.csv", group_table(cases, pairs))
    write_json(output / "audit.json", audit)
    write_atomically(output / "audit.html", _render(audit, cases, repeated, folder))
    return audit


def _look(case: Case, folder: Path) -> tuple[str, int]:
    """The reader's warning of an image, and how many caliper marks stand in or at its lesion."""
    image = read_image(folder / case.image)
    if case.masks and (mask := _read_mask(case, folder)).any():
        return "; ".join(image.warnings), len(calipers_at(image.pixels, mask))
    marks = find_calipers(image.pixels)
    return "; ".join(image.warnings), len(marks) if len(marks) > 1 else 0  # one alone is mostly a letter


def _read_mask(case: Case, folder: Path) -> np.ndarray:
    return merge_masks([folder / path for path in case.masks], folder / case.image, case.size)


def _compare_contours(cases: Sequence[Case], pairs: Sequence[Pair], folder: Path) -> list[dict[str, Any]]:
    """The Dice of the contours of each pair that shows the same frame, one laid over the other; the worst first."""
    wanted = [
        pair
        for pair in pairs
        if pair.evidence.startswith(("same frame", "equal pixels"))
        and cases[pair.first].masks
        and cases[pair.second].masks
    ]

    def judge(pair: Pair) -> dict[str, Any] | None:
        scenes, masks = [], []
        for case in (cases[pair.first], cases[pair.second]):
            scenes.append(read_details(read_scene(read_image(folder / case.image).pixels)))
            size = scenes[-1].tissue.shape[::-1]
            mask = _read_mask(case, folder).astype(np.uint8)
            masks.append(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
        matrix = compare(scenes[0], scenes[1]).texture_matrix
        if matrix is None:
            return None
        size, flags = masks[0].shape[::-1], cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        moved = cv2.warpAffine(masks[1], matrix, size, flags=flags)
        shared = cv2.warpAffine(np.ones_like(masks[1]), matrix, size, flags=flags) > 0
        first, second = masks[0][shared] > 0, moved[shared] > 0
        total = int(first.sum() + second.sum())
        if not total:
            return None
        return {**_name_pair(cases, pair), "dice": float(2 * (first & second).sum() / total)}

    with ThreadPoolExecutor(THREADS) as pool:
        judged = list(tqdm(pool.map(judge, wanted), total=len(wanted), desc="Comparing contours", disable=None))
    return sorted((entry for entry in judged if entry), key=lambda entry: entry["dice"])


def _name_pair(cases: Sequence[Case], pair: Pair) -> dict[str, Any]:
    return {"first": cases[pair.first].image, "second": cases[pair.second].image, "evidence": pair.evidence}


def _equal(checksums: Mapping[str, str]) -> list[list[str]]:
    """The images that have the same checksum, where there are several."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for image, checksum in checksums.items():
        found[checksum].append(image)
    return [images for images in found.values() if len(images) > 1]


def _find_outliers(cases: Sequence[Case]) -> dict[str, list[int]]:
    """Images whose height, width or ratio of both leaves Tukey's outer fences, on a logarithmic scale."""
    sizes = np.log([case.size for case in cases])
    measures = np.column_stack([sizes, sizes[:, 0] - sizes[:, 1]])
    low, high = np.quantile(measures, [0.25, 0.75], axis=0)
    reach = _FENCE * np.maximum(high - low, 0.01)  # where all are of one size, a pixel more or less is none
    outside = ((measures < low - reach) | (measures > high + reach)).any(axis=1)
    return {cases[index].image: list(cases[index].size) for index in np.flatnonzero(outside).tolist()}


def _render(
    audit: Mapping[str, Any], cases: Sequence[Case], repeated: Mapping[str, Sequence[Case]], folder: Path
) -> str:
    """The page; each image that it shows is drawn once, small, with its contour."""
    by_name = {case.image: case for case in cases}
    evidence: defaultdict[str, list[str]] = defaultdict(list)
    for pair in audit["pairs"]:
        group = by_name[pair["first"]].group
        evidence[group].append(f"{pair['first']} – {pair['second']}: {pair['evidence']}")
    shown = {case.image for group in repeated.values() for case in group}
    shown |= {name for key in ("coloured", "calipers", "outlier_sizes") for name in audit[key]}
    with ThreadPoolExecutor(THREADS) as pool:
        names = sorted(shown)
        drawn = pool.map(lambda name: _draw_thumbnail(by_name[name], folder), names)
        pictures = dict(zip(names, tqdm(drawn, total=len(names), desc="Drawing", disable=None), strict=True))
    conflicts = audit["label_conflicts"]
    order = sorted(repeated, key=lambda name: (name not in conflicts, -len(repeated[name]), name))
    return render_html(
        "audit.html",
        audit=audit,
        groups=[(name, repeated[name], evidence[name], name in conflicts) for name in order],
        pictures=pictures,
        agree=CONTOURS_AGREE,
        synthetic=audit["synthetic"],
    )


def _draw_thumbnail(case: Case, folder: Path) -> str:
    """The image as a small JPEG in a data URI, with its lesion's contour."""
    pixels = np.rint(read_image(folder / case.image).pixels).astype(np.uint8)
    scale = _THUMBNAIL / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    picture = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    if case.masks:
        mask = cv2.resize(_read_mask(case, folder).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, OVERLAY_RGB, 1)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
