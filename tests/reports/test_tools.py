# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundle.errors import InputError
from bundle.files import write_json
from bundle.reports.tools import render_tools

RUN = {"time": "2026-11-28T12:00:00Z", "commit": "0123456789abcdef"}
PAGE = "before\n<!-- tools -->\nold\n<!-- /tools -->\nafter\n"


def _docs(folder: Path, **record: Any) -> Path:
    (folder / "outputs.md").write_text(PAGE)
    write_json(folder / "results" / "tools.json", {"run": RUN, **record})
    return folder


def _row(kind: str, tool: str, does: str = "reads it") -> dict[str, str]:
    return {"object": kind, "tool": tool, "version": "1.0", "does": does}


def test_the_table_holds_every_row_by_object_and_tool(tmp_path: Path) -> None:
    rows = [_row("SEG", "highdicom"), _row("SR", "dsr2html"), _row("SEG", "dcmqi", "a | b <i>")]
    text = render_tools(_docs(tmp_path, rows=rows))["outputs.md"]
    lines = [line for line in text.splitlines() if line.startswith("| S")]
    assert lines == [
        r"| SEG | dcmqi | 1.0 | a \| b &lt;i> |",
        "| SEG | highdicom | 1.0 | reads it |",
        "| SR | dsr2html | 1.0 | reads it |",
    ]
    assert text.startswith("before\n<!-- tools -->\n")
    assert text.endswith("at commit 0123456789.\n<!-- /tools -->\nafter\n")
    assert "old" not in text


def test_a_page_that_is_up_to_date_stays_as_it_is(tmp_path: Path) -> None:
    docs = _docs(tmp_path, rows=[_row("SEG", "dcmqi")])
    once = render_tools(docs)["outputs.md"]
    (docs / "outputs.md").write_text(once)
    assert render_tools(docs) == {"outputs.md": once}


def test_a_record_without_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make tools"):
        render_tools(_docs(tmp_path, rows=[]))
    (tmp_path / "results" / "tools.json").unlink()
    assert render_tools(tmp_path) == {}
