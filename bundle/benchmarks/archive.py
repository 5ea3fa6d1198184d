# SPDX-License-Identifier: Apache-2.0
"""What predicting many images costs, and how it grows: seconds, CPU seconds, memory and bytes of scripts/predict.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.data.phantom import SIZE_RANGE, make_phantom
from bundle.errors import UserError
from bundle.provenance import describe_run

PREDICT = Path(__file__).resolve().parents[2] / "scripts" / "predict.py"


def measure_archive(
    counts: Sequence[int], models: Path, outputs: Sequence[str], size_range: Any = SIZE_RANGE
) -> dict[str, Any]:
    """Time the local engine on more and more synthetic images, each count in a process of its own.

    Args:
        counts: of images.
        models: folder of the weights.
        outputs: of ``scripts/predict.py --write``.
        size_range: of the images, see `make_phantom`.

    Returns:
        ready for JSON: `outputs`; `runs`, per count `images`, `seconds`, `cpu_seconds` of all threads,
        `peak_memory_gib`, `files` and `bytes` written; `growth`, None for a single count: `seconds`, `cpu_seconds`,
        `peak_memory_bytes`, `files` and `bytes` per further image, from the smallest to the largest count, and
        `start_seconds`, what is left of the smallest; `provenance`.

    Raises:
        UserError: a run failed; it holds its last line.
    """
    runs = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        make_phantom(folder / "phantom", counts={"malignant": max(counts)}, size_range=size_range)
        images = sorted((folder / "phantom" / "malignant").glob("*).png"))
        for count in sorted(set(counts)):
            listed = folder / f"{count}.txt"
            listed.write_text("\n".join(map(str, images[:count])), encoding="utf-8")
            runs.append({"images": count, **_measure(listed, folder / f"out{count}", models, outputs)})
    growth = _growth(runs[0], runs[-1]) if len(runs) > 1 else None
    return {"outputs": list(outputs), "runs": runs, "growth": growth, "provenance": describe_run()}


def archive_lines(result: dict[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_archive`."""
    lines = [
        f"{run['images']:>7} images: {run['seconds']:.1f} s, {run['cpu_seconds']:.1f} CPU s, "
        f"{run['peak_memory_gib']:.2f} GiB, {run['files']} files of {run['bytes'] / 2**20:.1f} MiB"
        for run in result["runs"]
    ]
    if growth := result["growth"]:
        lines.append(
            f"per further 1,000 images: {1000 * growth['seconds']:.0f} s, {1000 * growth['cpu_seconds']:.0f} CPU s, "
            f"{1000 * growth['peak_memory_bytes'] / 2**20:.1f} MiB of memory, {1000 * growth['files']:.0f} files of "
            f"{1000 * growth['bytes'] / 2**20:.0f} MiB; the start takes {growth['start_seconds']:.1f} s"
        )
    return lines


def _measure(listed: Path, output: Path, models: Path, outputs: Sequence[str]) -> dict[str, Any]:
    words = ["--list", str(listed), "--output", str(output), "--models", str(models), "--write", *outputs]
    log = listed.with_suffix(".log")
    start = time.monotonic()
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(PREDICT), *words], stdout=subprocess.DEVNULL, stderr=file, stdin=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)  # of this child alone: RUSAGE_CHILDREN adds up and keeps the peak
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
        raise UserError(f"scripts/predict.py ended with exit code {process.returncode}: {last}")
    files = [path.stat().st_size for path in output.rglob("*") if path.is_file()]
    return {
        **{"seconds": round(seconds, 2), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2)},
        **{"peak_memory_gib": round(usage.ru_maxrss / 2**20, 3), "files": len(files), "bytes": sum(files)},
    }


def _growth(first: dict[str, Any], last: dict[str, Any]) -> dict[str, float]:
    further = last["images"] - first["images"]
    slopes = {name: (last[name] - first[name]) / further for name in ("seconds", "cpu_seconds", "files", "bytes")}
    memory = (last["peak_memory_gib"] - first["peak_memory_gib"]) * 2**30 / further
    start = first["seconds"] - first["images"] * slopes["seconds"]
    return {**slopes, "peak_memory_bytes": memory, "start_seconds": start}
