# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/scaling.md, by the records of scripts/benchmark.py: speeds, this build beside a former one, what
was aimed at, where the time goes and what each option costs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.files import read_json
from bundle.reports.aims import tabulate_aims
from bundle.reports.markdown import cell, fill_block, number, size

PAGE = "scaling.md"
_TRAINING = ("settings", "bare_images_per_second", "loop_images_per_second", "ratio")
_DICTIONARY = ("settings", "runs", "ratio")
_NNUNET = ("settings", "runs", "ratios")
_PRICES = ("settings", "runs")
_PROFILE = ("settings", "runs")
_BUILDS = ("builds", "prediction", "duplicates")
"""Records of two builds in turns."""


def render_scaling(docs: str | os.PathLike[str]) -> dict[str, str]:
    """Return docs/scaling.md with its tables, by the page's path from the docs folder; nothing where there is no page.

    A table stands there as it was where none of its records is there.

    Raises:
        InputError: a record lacks what the page shows.
    """
    page, results = Path(docs) / PAGE, Path(docs) / "results"
    if not page.is_file():
        return {}
    text = page.read_text(encoding="utf-8")
    prices, profile = results / "benchmark_prices.json", results / "benchmark_profile.json"
    for mark, table in (
        ("speeds", _speeds(results)),
        ("builds", _builds(results)),
        ("aims", tabulate_aims(results)),
        ("prices", _prices(read_record(prices, _PRICES)) if prices.is_file() else ""),
        ("profile", _profile(read_record(profile, _PROFILE)) if profile.is_file() else ""),
    ):
        if table:
            text = fill_block(text, (f"<!-- {mark} -->", f"<!-- /{mark} -->"), table)
    return {PAGE: text}


def read_record(file: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a record that has certain keys.

    Raises:
        InputError: it is no readable JSON, or lacks one.
    """
    record = read_json(file, "record it again")
    if missing := [key for key in keys if key not in record]:
        raise InputError(file, f"lacks {', '.join(missing)}", "record it again")
    return record


def _speeds(results: Path) -> str:
    rows = []
    for file in sorted(results.glob("benchmark_training*.json")):
        record = read_record(file, _TRAINING)
        both = (record["loop_images_per_second"], record["bare_images_per_second"])
        rows.append(_row("training loop beside its bare network, images/s", file, record, both, record["ratio"]))
    for file in sorted(results.glob("benchmark_dictionary*.json")):
        record = read_record(file, _DICTIONARY)
        both = tuple(run["images_per_second"] for run in record["runs"])
        what = f"training loop beside MONAI's dictionary transforms, {record['settings']['workers']} workers, images/s"
        rows.append(_row(what, file, record, both, record["ratio"]))
    for file in sorted(results.glob("benchmark_nnunet*.json")):
        record = read_record(file, _NNUNET)
        for what, key in (
            ("training step beside nnU-Net's, CPU s per image", "step_cpu_seconds_per_image"),
            ("prediction beside nnU-Net's, CPU s per image", "cpu_seconds_per_image"),
        ):
            both = tuple(run[key] for run in record["runs"])
            rows.append(_row(what, file, record, both, record["ratios"][key], digits=3))
    if not rows:
        return ""
    return "\n".join(["| what | ours is | ours | the other | ratio |", "|---|---|---|---|---|", *rows])


def _row(
    what: str, file: Path, record: Mapping[str, Any], both: tuple[float, ...], ratio: float, digits: int = 1
) -> str:
    settings = record["settings"]
    ours = settings.get("ours", settings)  # nnU-Net's record has its plan beside
    about = (
        f"{number(ours['parameters'], 2, 1e-6)} M parameters, batch {ours['batch_size']} of "
        f"{size(ours['spatial_size'])}, {ours['precision']}"
    )
    if "plan" in settings:
        plan = settings["plan"]
        about += (
            f"; nnU-Net {number(plan['parameters'], 1, 1e-6)} M, batch {plan['batch_size']} of "
            f"{size(plan['patch_size'])}"
        )
    told = " | ".join(number(value, digits) for value in both)
    return f"| [{what}](runs.md#{file.stem}) | {cell(about)} | {told} | {number(ratio, 2)} |"


def _builds(results: Path) -> str:
    rows = []
    for file in (results / f"benchmark_{name}.json" for name in _BUILDS):
        if not file.is_file():
            continue
        record = read_record(file, ("runs", "rounds"))
        searches = [
            record["rounds"][run["name"]][build][0].get("search", ())
            for run in record["runs"]
            for build in ("former", "current")
        ]
        if not any(searches):
            rows += [
                (file, f"{run['about']}, s", run["former_seconds"], run["current_seconds"], 2) for run in record["runs"]
            ]
            continue
        for former, current in zip(*searches, strict=True):
            about = f"near duplicates among {former['images']} images"
            memory = (former["peak_memory_gib"], current["peak_memory_gib"])
            rows.append((file, f"{about}, peak memory, GiB", *memory, 2))
            per_image = (1000 * search["cpu_seconds"] / search["images"] for search in (former, current))
            rows.append((file, f"{about}, CPU ms per image", *per_image, 0))
    if not rows:
        return ""
    lines = ["| what | former build | this one | ratio |", "|---|---|---|---|"]
    for file, what, former, current, digits in rows:
        told = f"{number(former, digits)} | {number(current, digits)} | {number(current / former, 2)}"
        lines.append(f"| [{cell(what)}](runs.md#{file.stem}) | {told} |")
    return "\n".join(lines)


def _prices(record: Mapping[str, Any]) -> str:
    settings = record["settings"]
    lines = [
        f"| {settings['images']} images in {settings['groups']} groups | images/s | × | Dice of lesions | "
        "difference | AUROC | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in record["runs"]:
        told = []
        for score in ("dice", "auroc"):
            difference = run["differences"].get(score)
            told += [number(run[score]), "" if difference is None else number(difference, 4)]
        speed = f"{number(run['images_per_second'], 1)} | {number(run['ratio'], 2)}"
        name = f"`{run['name']}`" if run["name"].startswith("--") else run["name"]
        lines.append(f"| {name} | {speed} | {' | '.join(told)} |")
    return "\n".join(lines)


def _profile(record: Mapping[str, Any]) -> str:
    lines = ["| what | where | ms per image | share |", "|---|---|---|---|"]
    for run in record["runs"]:
        for place in run["places"]:
            told = f"{number(place['ms_per_image'], 2)} | {number(place['share'], 1, 100)} % |"
            lines.append(f"| {cell(run['about'])} | {cell(place['where'])} | {told}")
    return "\n".join(lines)
