# SPDX-License-Identifier: Apache-2.0
"""The reports of both evaluations: each one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from bundle.errors import InputError
from bundle.files import write_atomically

WORST = 10  # cases in each list of the worst: enough to look at, few enough to print
TEMPLATES = Path(__file__).parent / "templates"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_report(
    output_dir: str | os.PathLike[str],
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    figures: Sequence[tuple[str, str | os.PathLike[str]]],
    provenance: Mapping[str, Any],
    synthetic: bool,
) -> Path:
    """Write `report.html`: scores with intervals, pictures, worst cases, where the numbers come from.

    Args:
        output_dir: folder of the report, made if missing.
        metrics: what `bundle.evaluation.segmentation.summarise` returns; `threshold`, if there, is shown.
        rows: one per image: `image`, `class`, `group` and the fields of `CaseScores`.
        figures: (title, PNG file), embedded in this order.
        provenance: what the numbers come from (command, versions, seed, dataset checksum, sha256 of the weights …);
            each key is shown, a nested mapping as one line per entry.
        synthetic: put a banner on the page: the data are synthetic.

    Returns:
        The report's path.

    Raises:
        InputError: a figure is not a readable PNG, or the report cannot be written.
    """
    lesions = [row for row in rows if row["dice"] is not None]
    page = render_html(
        "segmentation.html",
        metrics=metrics,
        worst=sorted(lesions, key=lambda row: (row["dice"], str(row["image"])))[:WORST],
        figures=[(title, embed_png(path)) for title, path in figures],
        provenance={key: _lines(value) for key, value in provenance.items()},
        synthetic=synthetic,
    )
    report = Path(output_dir) / "report.html"
    write_atomically(report, page)
    return report


def write_classification_report(
    output_dir: str | os.PathLike[str],
    metrics: Mapping[str, Any],
    wrong: Sequence[tuple[Mapping[str, Any], np.ndarray]],
    figures: Sequence[tuple[str, str | os.PathLike[str]]],
) -> Path:
    """Write `report.html`: scores with intervals beside their baseline, operating points, pictures, the worst cases.

    Args:
        output_dir: folder of the report, made if missing.
        metrics: what `bundle.evaluation.classification.summarise_classification` returns, its first operating point at
            probability 0.5, with `synthetic`, `masks`, `part` and `provenance`.
        wrong: the cases on the wrong side of probability 0.5: each one's row and its crop, (h, w) uint8.
        figures: (title, PNG file), embedded in this order.

    Returns:
        The report's path.

    Raises:
        InputError: a figure is not a readable PNG, or the report cannot be written.
    """
    certain = sorted(wrong, key=lambda case: (-abs(case[0]["probability"] - 0.5), str(case[0]["image"])))
    lists = {
        title: [(row, _embed_pixels(crop)) for row, crop in certain if row["label"] == label][:WORST]
        for title, label in (("Malignant, called benign", 1), ("Benign, called malignant", 0))
    }
    page = render_html(
        "classification.html",
        metrics=metrics,
        lists=lists,
        most=WORST,
        figures=[(title, embed_png(path)) for title, path in figures],
        provenance={key: _lines(value) for key, value in metrics["provenance"].items()},
        synthetic=metrics["synthetic"],
    )
    report = Path(output_dir) / "report.html"
    write_atomically(report, page)
    return report


def render_html(template: str, **values: Any) -> str:
    """Fill a page of the ``templates`` folder, escaping every value: names of files and commands come from outside."""
    return _environment().get_template(template).render(values)


def stream_html(template: str, **values: Any) -> Iterator[str]:
    """Fill a page as `render_html` does, piece by piece: a list in it may be read while the page is written."""
    stream = _environment().get_template(template).stream(values)
    stream.enable_buffering(100)
    yield from stream


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": format_percent, "decimal": format_decimal, "pixels": _pixels}
    return environment


def embed_png(path: str | os.PathLike[str]) -> str:
    """Return a PNG file as a data URI."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(path, f"figure cannot be read ({error.strerror})", "draw it again") from error
    if not content.startswith(_PNG_SIGNATURE):
        raise InputError(path, "figure is not a PNG file", "draw it again")
    return _embed(content)


def _embed_pixels(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return _embed(buffer.getvalue())


def _embed(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _lines(value: Any) -> list[str]:
    """Return a provenance value as lines of text."""
    if isinstance(value, Mapping):
        return [f"{key}: {part}" for key, part in value.items()]
    return ["not recorded" if value is None else str(value)]


def _format(value: Mapping[str, float | None] | float | None, scale: float, digits: int, unit: str) -> str:
    """Return "estimate unit (low – high)" of an interval, or one number; "–" where it is not defined."""
    if value is None:
        return "–"
    if not isinstance(value, Mapping):
        return f"{value * scale:.{digits}f}{unit}"
    estimate, low, high = (value[key] for key in ("estimate", "low", "high"))
    text = _format(estimate, scale, digits, unit)
    if low is None or high is None:
        return text
    return f"{text} ({low * scale:.{digits}f} – {high * scale:.{digits}f})"


def format_percent(value: Mapping[str, float | None] | float | None) -> str:
    return _format(value, 100, 1, " %")


def format_decimal(value: Mapping[str, float | None] | float | None) -> str:
    return _format(value, 1, 3, "")


def _pixels(value: Mapping[str, float | None] | float | None) -> str:
    return _format(value, 1, 1, " px")
