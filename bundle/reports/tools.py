# SPDX-License-Identifier: Apache-2.0
"""The table of docs/outputs.md: what the tools of the field make of our objects, from a recorded run of their tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.files import read_json
from bundle.reports.markdown import fill_block

RECORD = "tools"
"""Of docs/results/, written by `make tools`."""

PAGE = "outputs.md"
BLOCK = ("<!-- tools -->", "<!-- /tools -->")
_MEND = "run make tools again"


def render_tools(docs: str | os.PathLike[str]) -> dict[str, str]:
    """Return docs/outputs.md with its table as the record says, by the page's path from the docs folder.

    Nothing where there is no such page or no such record.

    Raises:
        InputError: the record lacks what the page shows.
    """
    page, file = Path(docs) / PAGE, Path(docs) / "results" / f"{RECORD}.json"
    if not page.is_file() or not file.is_file():
        return {}
    record = read_json(file, _MEND)
    if not record.get("rows") or "run" not in record:
        raise InputError(file, "lacks rows or run", _MEND)
    return {PAGE: fill_block(page.read_text(encoding="utf-8"), BLOCK, _table(record))}


def _table(record: Mapping[str, Any]) -> str:
    lines = ["| object | tool | version | what it does |", "|---|---|---|---|"]
    lines += [
        f"| {' | '.join(_cell(row[key]) for key in ('object', 'tool', 'version', 'does'))} |"
        for row in _ordered(record)
    ]
    run = record["run"]
    return "\n".join([*lines, "", f"Seen by the tests on {run['time'][:10]}, at commit {str(run['commit'])[:10]}."])


def _ordered(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """By object, in the order of their first rows, then by tool."""
    rows: list[dict[str, str]] = record["rows"]
    objects = list(dict.fromkeys(row["object"] for row in rows))
    return sorted(rows, key=lambda row: (objects.index(row["object"]), row["tool"].lower().lstrip("@")))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")
