# SPDX-License-Identifier: Apache-2.0
"""How the search for near duplicates grows with the images."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bundle.data.cases import Case
from bundle.data.duplicates import find_pairs
from bundle.data.phantom import make_phantom
from bundle.provenance import describe_run

ONE_COPY_IN = 100


def measure_duplicates(counts: Sequence[int]) -> dict[str, Any]:
    """Time the search for near duplicates among more and more phantoms, one in a hundred with a cropped copy.

    Args:
        counts: of images.

    Returns:
        ready for JSON: `runs` (per count `images`, `seconds`, `cpu_seconds` of all threads, `planted` copies, those
        `found`, `wrong` pairs, `peak_memory_gib` of the process so far), `provenance`.
    """
    runs = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name) / "phantom"
        make_phantom(folder, counts={"normal": max(counts)}, size_range=((150, 200), (180, 240)))
        originals = sorted((folder / "normal").glob("*).png"))
        planted = {}
        for number, path in enumerate(originals[::ONE_COPY_IN]):
            copy = path.with_name(f"copy{number}.png")
            with Image.open(path) as image:
                image.crop((4, 5, image.width - 7, image.height - 6)).save(copy)
            planted[copy.name] = path.name
        for count in sorted(counts):
            kept = {path.name for path in originals[: count - count // ONE_COPY_IN]}
            names = sorted(kept | {copy for copy, source in planted.items() if source in kept})
            cases = [Case(f"normal/{name}", (), "normal", sha256=name) for name in names]
            start, cpu_start = time.monotonic(), time.process_time()
            pairs = find_pairs(cases, folder)
            seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu_start
            told = [{names[pair.first], names[pair.second]} for pair in pairs]
            wanted = [{copy, source} for copy, source in planted.items() if copy in names]
            runs.append(
                {
                    "images": len(names),
                    "seconds": round(seconds, 1),
                    "cpu_seconds": round(cpu_seconds, 1),
                    "planted": len(wanted),
                    "found": sum(pair in told for pair in wanted),
                    "wrong": sum(pair not in wanted for pair in told),
                    "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                }
            )
    return {"runs": runs, "provenance": describe_run()}


def duplicates_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_duplicates`."""
    return [
        f"{run['images']:>7} images: {run['seconds']:.1f} s, {1000 * run['seconds'] / run['images']:.0f} ms each; "
        f"{run['found']} of {run['planted']} planted copies found, {run['wrong']} wrong pairs; "
        f"{run['peak_memory_gib']} GiB"
        for run in result["runs"]
    ]
