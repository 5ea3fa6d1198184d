# SPDX-License-Identifier: Apache-2.0
"""How many images of each class a prepared dataset has in each part: as text, and as a picture."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.data.cases import CASES, LABELS, UNCLASSED, read_cases
from bundle.data.datalists import DATALIST, MEND, Datalist
from bundle.data.splits import PARTS, oversample
from bundle.files import read_json


def count_table(prepared_dir: str | os.PathLike[str]) -> str:
    """A short text table of the images per class and part of a prepared dataset, and what was left out."""
    datalist, case_list = read_json(Path(prepared_dir) / DATALIST, MEND), read_cases(Path(prepared_dir) / CASES)
    counts = _count_classes(datalist)
    lines = ["".join(f"{text:>12}" for text in ("", *PARTS, "all"))]
    for label in _labels_in(counts):
        numbers = [counts[part][label] for part in PARTS]
        lines.append("".join(f"{text:>12}" for text in (label, *numbers, sum(numbers))))
    sizes = Counter(case.group for case in case_list.cases)
    repeated = [size for size in sizes.values() if size > 1]
    lines.append(f"{sum(repeated)} images stand in {len(repeated)} groups of near duplicates or of one patient.")
    flags = Counter(flag for case in case_list.cases for flag in case.flags)
    if flags:
        told = ", ".join(f"{flag} {count}" for flag, count in sorted(flags.items()))
        lines.append(f"Flagged images, which --leave-out can leave out: {told}.")
    if case_list.skipped:
        lines.append(f"{len(case_list.skipped)} images were left out; {CASES} says why, under 'skipped'.")
    return "\n".join(lines)


def plot_counts(datalist: Datalist) -> bytes:
    """class_counts.png: images per class and part; the lesions of the training part also after oversampling."""
    before = _count_classes(datalist)
    after = Counter(record["class"] for record in oversample(datalist["training"], datalist["seed"]))
    bars = [("training", before["training"]), ("training,\noversampled", after)]
    bars += [(part, before[part]) for part in PARTS[1:]]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for place, label in enumerate(_labels_in(before)):
        positions = [column + (place - 1) * 0.27 for column in range(len(bars))]
        drawn = axes.bar(positions, [counts[label] for _, counts in bars], width=0.25, label=label)
        axes.bar_label(drawn, fontsize=8)
    axes.set_xticks(range(len(bars)), [name for name, _ in bars])
    axes.set_ylabel("images")
    axes.set_title(f"{datalist['name']}{' (SYNTHETIC)' if datalist['synthetic'] else ''}: images per class and part")
    axes.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _count_classes(datalist: Datalist) -> dict[str, Counter[str]]:
    return {part: Counter(r["class"] for r in datalist[part] + datalist[f"{part}_normal"]) for part in PARTS}


def _labels_in(counts: Mapping[str, Counter[str]]) -> tuple[str, ...]:
    """The labels to show: the unclassified lesions only where there are any."""
    return (*LABELS, UNCLASSED) if any(count[UNCLASSED] for count in counts.values()) else LABELS
