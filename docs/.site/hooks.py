# SPDX-License-Identifier: Apache-2.0
"""MkDocs' hooks: the repository's README is the site's front page, docs/README.md is its model card.

On the repository's own pages both files bear the name README.md, and pages link to files outside docs/. Here such a
file is copied into the site, and the name of a folder, which has no page, stays as text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
FRONT, CARD = "index.md", "model_card.md"
COPIED = "repository"  # folder of the site with the files outside docs/ that pages link to
PAGES = {"SECURITY.md": "security_policy.md", "CHANGELOG.md": "changelog.md"}  # outside docs/, and pages of the site
SOURCES = {FRONT: "README.md", CARD: "docs/README.md", **{page: file for file, page in PAGES.items()}}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages whose files lie elsewhere, and the files outside docs/ that some page links to."""
    card = files.get_file_from_path("README.md")
    if card is not None:
        files.remove(card)
    for page, source in SOURCES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page in files.documentation_pages():
        for found in LINK.finditer(page.content_string):
            file = _resolve(page.src_uri, found["target"])
            if file is None or not (ROOT / file).is_file() or files.get_file_from_path(_on_site(file)):
                continue
            files.append(File.generated(config, _on_site(file), abs_src_path=str(ROOT / file)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page at what they mean on the site."""

    def replace(found: re.Match[str]) -> str:
        file = _resolve(page.file.src_uri, found["target"])
        if file is None:
            return found[0]
        if (ROOT / file).is_dir():
            return found["text"]
        text = _title(file) if found["text"] == found["target"] else found["text"]
        target = posixpath.relpath(_on_site(file), posixpath.dirname(page.file.src_uri) or ".")
        return f"{found['image']}[{text}]({target}{found['anchor'] or ''})"

    return LINK.sub(replace, markdown)


def _resolve(page: str, target: str) -> str | None:
    """The repository's path of what a page of the site links to; None for nothing that exists."""
    source = SOURCES.get(page, f"docs/{page}")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return file if not file.startswith("..") and (ROOT / file).exists() else None


def _title(file: str) -> str:
    """The heading of a page, which says more on a site than the file's name; the name of another file."""
    heading = re.search(r"^# (.+)$", (ROOT / file).read_text(encoding="utf-8"), re.M) if file.endswith(".md") else None
    return heading[1] if heading else posixpath.basename(file)


def _on_site(file: str) -> str:
    """The site's path of a file of the repository."""
    named = {source: page for page, source in SOURCES.items()}
    if file in named:
        return named[file]
    return file.removeprefix("docs/") if file.startswith("docs/") else f"{COPIED}/{file}"
