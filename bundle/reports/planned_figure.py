# SPDX-License-Identifier: Apache-2.0
"""A figure of the generated pages, drawn again only where its numbers have changed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

_SOURCE = "source_sha256"


@dataclass(frozen=True)
class PlannedFigure:
    """What a figure shows, and what draws it; the PNG file carries the checksum of what it shows."""

    shown: Any
    draw: Callable[[], Figure]

    def is_drawn(self, picture: Path) -> bool:
        """Whether a PNG file shows these numbers."""
        if not picture.is_file():
            return False
        with Image.open(picture) as image:
            return bool(image.info.get(_SOURCE) == self._checksum())

    def encode(self) -> bytes:
        """Draw the PNG file."""
        buffer = io.BytesIO()
        FigureCanvasAgg(self.draw()).print_png(buffer, metadata={_SOURCE: self._checksum()})
        return buffer.getvalue()

    def _checksum(self) -> str:
        return hashlib.sha256(repr(self.shown).encode()).hexdigest()
