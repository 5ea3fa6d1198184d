# SPDX-License-Identifier: Apache-2.0
"""The report of a batch: one HTML page that needs no other file and no network, and the same page as PDF."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from bundle import __version__
from bundle.errors import UserError
from bundle.files import open_atomically, write_atomically
from bundle.finding import NOT_A_DEVICE
from bundle.outputs.png import encode_thumbnail
from bundle.outputs.records import HEAT, OUTLINE, Findings
from bundle.reports.html import TEMPLATES, stream_html

SHEET = 24
"""Frames on a contact sheet at most, evenly spread over those that were looked at; a side of `_SMALL` pixels each."""
_SMALL = 160

_CAPTIONS = {OUTLINE: "What was outlined", HEAT: "Grad-CAM, evidence for malignancy"}


def write_findings_report(
    findings: Findings,
    skipped: Sequence[dict[str, str]],
    cines: Sequence[dict[str, Any]],
    output_dir: Path,
    formats: Collection[str],
) -> list[Path]:
    """Write ``report.html`` and ``report.pdf``, as the formats say, atomically.

    Args:
        findings: read one at a time while the page is written.
        skipped: {"path", "reason", "mend"} of files without a finding.
        cines: per file of several frames, see `bundle.prediction.cines.CineSummary`.
        output_dir: where to.
        formats: ``html``, ``pdf`` or both; others are passed over.

    Returns:
        what was written.

    Raises:
        UserError: weasyprint is missing, or a file cannot be written.
    """
    written = []
    if "html" in formats:
        written.append(output_dir / "report.html")
        with open_atomically(written[-1]) as file:
            _write_page(file, findings, skipped, cines)
    if "pdf" in formats:
        page = io.BytesIO()
        _write_page(page, findings, skipped, cines)
        written.append(output_dir / "report.pdf")
        write_atomically(written[-1], _to_pdf(page.getvalue()))
    return written


def _write_page(
    file: Any, findings: Findings, skipped: Sequence[dict[str, str]], cines: Sequence[dict[str, Any]]
) -> None:
    first = next(iter(findings), None)
    synthetic = first is not None and any(warning.startswith("SYNTHETIC") for warning in first["warnings"])
    script = (TEMPLATES / "findings.js").read_text(encoding="utf-8")
    page = stream_html(
        "findings.html",
        findings=findings,
        pictures=lambda name: _pictures(findings, name),
        points={name: point["threshold"] for name, point in first["decisions"].items()} if first else {},
        calls=any(finding.get("call") for finding in findings),
        models=first["models"] if first else {},
        site=first.get("site") if first else None,
        synthetic=synthetic,
        skipped=skipped,
        cines=cines,
        sheet=lambda cine: _sheet(findings, cine),
        curve=lambda cine: _curve(cine, synthetic),
        numbers={name: number for number, name in enumerate(findings.names, 1)} if cines else {},
        notice=NOT_A_DEVICE,
        version=__version__,
        script=Markup(script),  # ours; its hash in the page's policy keeps any other from running
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    for piece in page:
        file.write(piece.encode("utf-8", "backslashreplace"))


def _pictures(findings: Findings, name: str) -> list[tuple[str, str]]:
    """The pictures of one image as (data URI, caption)."""
    files = {ending: findings.records.path(name, ending) for ending in _CAPTIONS}
    return [
        ("data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode(), _CAPTIONS[ending])
        for ending, file in files.items()
        if file.is_file()
    ]


def _sheet(findings: Findings, cine: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The contact sheet of a cine: (data URI, what its curve says of the frame) of the frames looked at."""
    looks = cine["curve"]
    step = max(1, math.ceil(len(looks) / SHEET))
    shown = []
    for look in looks[::step]:
        file = findings.records.path(look["image"], OUTLINE)
        if file.is_file():
            with Image.open(file, formats=("JPEG",)) as picture:
                small = encode_thumbnail(np.asarray(picture.convert("RGB")), _SMALL)
            shown.append(("data:image/jpeg;base64," + base64.b64encode(small).decode(), look))
    return shown


def _curve(cine: Mapping[str, Any], synthetic: bool) -> str:
    """The curve of a cine as a data URI."""
    from bundle.reports.figures import draw_cine  # matplotlib takes a second, and only cines need it

    picture = draw_cine(cine["curve"], cine["probability"], synthetic)
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def load_weasyprint() -> Any:
    """Import what makes a PDF.

    Raises:
        UserError: it, or the system's Pango that it draws text with, is missing.
    """
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"pdf needs weasyprint ({reason}); pip install -r requirements-pdf.txt") from None
    return weasyprint


def _to_pdf(page: bytes) -> bytes:
    weasyprint = load_weasyprint()
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it warns of each rule that only screens know
    fetcher = weasyprint.urls.URLFetcher(allowed_protocols=("data",))  # the page holds all that it shows
    return bytes(weasyprint.HTML(string=page.decode(), url_fetcher=fetcher).write_pdf())
