# SPDX-License-Identifier: Apache-2.0
"""Tables in pages that are written by hand, each between two marks, as a recorded run says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.reports.markdown import fill_block, number
from bundle.reports.scaling import read_record, render_scaling

_GREY = ("variants",)
_MARKS = ("normals", "crops", "lesions")
_EXTERNAL = ("transfer", "calibration", "classification")


def render_blocks(docs: str | os.PathLike[str]) -> dict[str, str]:
    """Return the pages with their tables, by the page's path from the docs folder.

    A page is left out where it or one of its records is not there.

    Raises:
        InputError: a record lacks what the page shows.
    """
    pages: dict[str, str] = {}
    for page, mark, stems, keys, table in (
        ("inputs.md", "grey", ("grey",), _GREY, _grey_table),
        ("datasets.md", "marks", ("marks",), _MARKS, _marks_table),
        ("datasets.md", "marks-normals", ("marks_normals",), _MARKS, _marks_table),
        ("recalibration.md", "site", ("external_busbra_cards", "external_busbra_site"), _EXTERNAL, _site_table),
    ):
        files = [Path(docs) / "results" / f"{stem}.json" for stem in stems]
        if (Path(docs) / page).is_file() and all(file.is_file() for file in files):
            text = (Path(docs) / page).read_text(encoding="utf-8")
            records = [read_record(file, keys) for file in files]
            pages[page] = fill_block(text, (f"<!-- {mark} -->", f"<!-- /{mark} -->"), table(*records))
    return pages | render_scaling(docs)


def _grey_table(record: Mapping[str, Any]) -> str:
    lines = [
        f"| {record['images']} images stored as | largest change of P(malignant) | mean | decisions at 0.5 that "
        "changed | least Dice between the outlines |",
        "|---|---|---|---|---|",
    ]
    for name, told in record["variants"].items():
        largest, mean, dice = (number(told[key]) for key in ("difference_max", "difference_mean", "dice_min"))
        lines.append(f"| {name} | {largest} | {mean} | {told['flips']} | {dice} |")
    return "\n".join(lines)


def _marks_table(record: Mapping[str, Any]) -> str:
    lines = ["| asked of | images | score |", "|---|---|---|"]
    for title, part in (("normal images", "normals"), ("tissue beside a lesion", "crops")):
        told = record[part]
        before, after, made = (number(told[key], 1, 100, " %") for key in ("before", "after", "made"))
        score = f"told of a lesion as it is {before}, with calipers {after}, only with them {made}"
        lines.append(f"| {title} | {told['images']} | {score} |")
    told = record["lesions"]
    score = f"Dice between both outlines {number(told['dice'])}, from 0.95 on in {number(told['same'], 1, 100, ' %')}"
    lines.append(f"| lesions, calipers moved | {told['images']} | {score} |")
    return "\n".join(lines)


def _site_table(cards: Mapping[str, Any], site: Mapping[str, Any]) -> str:
    data = site["dataset"]
    lines = [
        f"| {data['images']} images of {data['groups']} patients | with the cards | with this file |",
        "|---|---|---|",
    ]
    both = (cards, site)
    for place, point in enumerate(site["transfer"]):
        for score in ("sensitivity", "specificity"):
            told = [record["transfer"][place]["reached"]["per_image"][score] for record in both]
            lines.append(_row(f"{score} at the point meant for {point['sensitivity_wish']:.2f}", told))
    for title, part, score in (
        ("calibration slope (1 is perfect)", "calibration", "slope"),
        ("expected calibration error", "calibration", "ece"),
        ("AUROC", "classification", "auroc"),
    ):
        lines.append(_row(title, [record[part]["per_image"][score] for record in both]))
    return "\n".join(lines)


def _row(title: str, scores: Sequence[Mapping[str, Any]]) -> str:
    return f"| {title} | {' | '.join(map(number, scores))} |"
