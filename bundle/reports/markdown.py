# SPDX-License-Identifier: Apache-2.0
"""How values stand on a Markdown page: the filters of its templates; and the block of a page that is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Score = Mapping[str, float | None] | None
_PUBLISHED = {"Dataset_BUSI_with_GT": "BUSI", "BUSBRA": "BUS-BRA"}


def number(value: Score | float, digits: int = 3, scale: float = 1, unit: str = "") -> str:
    """Return "estimate [low, high]" of an interval, or one number; "–" where it is not defined."""
    if value is None:
        return "–"
    if not isinstance(value, Mapping):
        return f"{value * scale:.{digits}f}{unit}"
    estimate, low, high = value["estimate"], value["low"], value["high"]
    text = number(estimate, digits, scale, unit)
    if estimate is None or low is None or high is None:
        return text
    return f"{text} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def span(values: Sequence[float], digits: int = 3, scale: float = 1) -> str:
    """Return "mean (lowest–highest)"."""
    low, mean, high = (f"{value * scale:.{digits}f}" for value in (min(values), sum(values) / len(values), max(values)))
    return f"{mean} ({low}–{high})"


def spread(scores: Sequence[Score], digits: int = 3, scale: float = 1) -> str:
    """Return one run's "estimate [low, high]", or "mean (lowest–highest)" of several; "–" if one of them lacks it."""
    if len(scores) == 1:
        return number(scores[0] or None, digits, scale)
    estimates = [score["estimate"] for score in scores if score]
    known = [value for value in estimates if value is not None]
    return span(known, digits, scale) if len(known) == len(scores) else "–"


def cell(value: Any) -> str:
    """Return text as one line that neither ends a table cell nor opens an HTML tag."""
    if value is None or value == "":
        return "not recorded"
    return " ".join(str(value).split()).replace("|", r"\|").replace("<", "&lt;")


def dataset(folder: str) -> str:
    """Return what a dataset's authors call it, by the folder that they publish; of any other folder its own name."""
    return _PUBLISHED.get(folder, folder)


def code(value: Any) -> str:
    """Return text as a code span of one line."""
    return f"`{' '.join(str(value).replace('`', '').split())}`" if value else "not recorded"


def size(value: Sequence[int] | None) -> str:
    """Return "128×96"."""
    return "×".join(str(length) for length in value) if value else "not recorded"


def network(card: Mapping[str, Any]) -> str:
    """Name a network by its card: the filters of a U-Net or SegNet; any other by its name and what it began with."""
    if card.get("architecture", "UNet") in ("UNet", "SegNet"):
        return widths(card.get("filters"))
    width = f" ×{card['width']:g}" if card.get("width", 1) != 1 else ""
    return f"{card['architecture']}{width}, from {'ImageNet' if card.get('pretrained') else 'random'} weights"


def widths(value: Sequence[int] | None) -> str:
    """Return the filters of a network's levels: "16-32-64-128"."""
    return "-".join(str(width) for width in value) if value else "not recorded"


def fill_block(page: str, block: tuple[str, str], content: str) -> str:
    """Return a page with what stands between the two marks of a block replaced; the marks stay."""
    before, _, rest = page.partition(block[0])
    _, _, after = rest.partition(block[1])
    return f"{before}{block[0]}\n{content}\n{block[1]}{after}"
