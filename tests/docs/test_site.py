# SPDX-License-Identifier: Apache-2.0
"""Claims about the site that `make docs` builds: every link leads somewhere, and no other server is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


class _Links(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if "src" in given:
            self.loaded.add(given["src"])
        if "href" in given:
            (self.links if tag == "a" else self.loaded).add(given["href"])


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, _Links]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {page: _Links(page) for page in folder.glob("*.html") if page.name != "404.html"}


def test_every_page_of_the_repository_is_on_the_site(site: dict[Path, _Links], root: Path) -> None:
    names = {page.stem for page in site}
    assert {page.stem for page in (root / "docs").glob("*.md")} - {"README"} < names
    assert {"index", "model_card", "security_policy", "changelog"} < names
    front = next(page for page in site if page.name == "index.html").read_text(encoding="utf-8")
    assert "What you get:" in front


def test_every_link_leads_to_a_file_and_to_an_anchor_that_are_there(site: dict[Path, _Links]) -> None:
    lost = []
    for page, found in site.items():
        for link in sorted(found.links | found.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = site[target].anchors if target in site else {""}
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors | {"__skip"}):
                lost.append(f"{page.name}: {link}")
    assert lost == []
    # A file outside docs/ that a page links to came along.
    assert (next(iter(site)).parent / "repository" / "CITATION.cff").is_file()


def test_no_page_loads_anything_from_another_server(site: dict[Path, _Links]) -> None:
    for page, found in site.items():
        assert [link for link in found.loaded if urlsplit(link).netloc] == [], page.name
