# SPDX-License-Identifier: Apache-2.0
"""Write the pages that show what docs/results/ holds: results, evidence, the model card, the README's first screen."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Write the pages; with --check write nothing and return 1 if one differs. Returns 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is not up to date")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the pages; default: docs")
    options = parser.parse_args(argv)

    from bundle.files import write_atomically
    from bundle.reports.blocks import render_blocks
    from bundle.reports.cines import render_cines
    from bundle.reports.examinations import render_examinations
    from bundle.reports.pages import (
        plan_figures,
        render_pages,
    )  # after the arguments: it loads torch, which takes seconds
    from bundle.reports.tools import render_tools

    outdated = []
    pages = render_pages(options.docs / "results", ROOT)
    for render in (render_tools, render_cines, render_examinations, render_blocks):
        pages |= render(options.docs)
    for name, text in pages.items():
        page = options.docs / name
        if page.is_file() and page.read_text(encoding="utf-8") == text:
            continue
        outdated.append(page)
        if not options.check:
            write_atomically(page, text)
    for name, figure in plan_figures(options.docs / "results").items():
        picture = options.docs / "images" / name
        if figure.is_drawn(picture):
            continue
        outdated.append(picture)
        if not options.check:
            write_atomically(picture, figure.encode())
    for page in outdated:
        print(f"{page}: is not what its JSON says; run scripts/write_docs.py" if options.check else f"Written: {page}")
    return int(options.check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
