# SPDX-License-Identifier: Apache-2.0
"""Where the tissue of an ultrasound frame lies, and how large its pixels are: DICOM PS3.3, C.8.5.5 and C.8.5.6.

A millimetre is only given where the header says it without contradiction. In doubt there is a warning and pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SPACING_RANGE_MM = (0.001, 5.0)
"""A pixel of a hand-held probe has 0.01 to 1 mm; what lies far outside is no calibration."""

_TWO_DIMENSIONAL, _TISSUE, _COLOUR_FLOW, _CENTIMETRES = 1, 1, 2, 3
_EDGES = ("RegionLocationMinY0", "RegionLocationMinX0", "RegionLocationMaxY1", "RegionLocationMaxX1")
_UNITS = ("PhysicalUnitsYDirection", "PhysicalUnitsXDirection")
_DELTAS = ("PhysicalDeltaY", "PhysicalDeltaX")
_NO_MM = "sizes are in pixels only"


@dataclass(frozen=True)
class Calibration:
    """Region (top, left, bottom, right), half-open, or None; (row, column) spacing in mm or None; warnings."""

    region: tuple[int, int, int, int] | None = None
    spacing_mm: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()


def read_calibration(header: Dataset, rows: int, columns: int) -> Calibration:
    """Read the region of 2-D tissue and its spacing.

    The bounds of a region are inclusive. Its last row or column may also equal the size of the frame, as Philips
    scanners write it; the region then ends at the edge. Regions of other formats (M-mode, spectra, bars) are passed
    over. Without any region, Pixel Spacing is taken with a warning, for the ultrasound classes do not define it.

    Args:
        header: of the file.
        rows, columns: of its frames.
    """
    items = list(header.get("SequenceOfUltrasoundRegions") or ())
    notes = []
    if any(_number(item, "RegionDataType") == _COLOUR_FLOW for item in items):
        notes.append("a colour flow (Doppler) region is outside the intended use")
    flat = [item for item in items if _number(item, "RegionSpatialFormat") == _TWO_DIMENSIONAL]
    tissue = {_describe(item): item for item in flat if _number(item, "RegionDataType") == _TISSUE}
    if not tissue:
        spacing = _pixel_spacing(header)
        if items:
            notes.append(f"none of its ultrasound regions is 2-D tissue: all of the frame is taken, {_NO_MM}")
            spacing = None
        elif spacing:
            notes.append("the spacing is taken from Pixel Spacing, which ultrasound does not define: check the sizes")
        return Calibration(None, spacing, tuple(notes))
    if len(tissue) > 1:
        notes.append(f"shows {len(tissue)} regions of 2-D tissue: all of the frame is taken, {_NO_MM}")
        return Calibration(None, None, tuple(notes))
    item = next(iter(tissue.values()))
    region = _bounds(item, rows, columns)
    if region is None:
        edges = ", ".join(str(item.get(edge)) for edge in _EDGES)
        notes.append(f"its tissue region ({edges}) lies outside {rows}×{columns}: all of the frame is taken, {_NO_MM}")
        return Calibration(None, None, tuple(notes))
    spacing, doubt = _spacing(item, header)
    if doubt:
        notes.append(f"{doubt}: {_NO_MM}")
    whole_frame = region == (0, 0, rows, columns)
    return Calibration(None if whole_frame else region, spacing, tuple(notes))


def _describe(item: Dataset) -> tuple[str, ...]:
    """Regions that agree in this are one region, written twice."""
    return tuple(str(item.get(key)) for key in (*_EDGES, *_UNITS, *_DELTAS))


def _bounds(item: Dataset, rows: int, columns: int) -> tuple[int, int, int, int] | None:
    edges = [edge for edge in (_number(item, key) for key in _EDGES) if edge is not None]
    if len(edges) < 4:
        return None
    top, left, last_row, last_column = map(int, edges)
    if not (0 <= top < last_row <= rows and 0 <= left < last_column <= columns):
        return None
    return top, left, min(last_row + 1, rows), min(last_column + 1, columns)


def _spacing(item: Dataset, header: Dataset) -> tuple[tuple[float, float] | None, str]:
    """The (row, column) spacing in mm, or None and why not."""
    units = [_number(item, key) for key in _UNITS]
    if units != [_CENTIMETRES, _CENTIMETRES]:
        return None, f"the units of its tissue region are {units[0]} and {units[1]}, not 3 (cm)"
    deltas = [_number(item, key) for key in _DELTAS]
    if any(delta is None or delta <= 0 for delta in deltas):
        return None, f"the physical deltas of its tissue region, {deltas[0]} and {deltas[1]}, are not both positive"
    row, column = (10.0 * delta for delta in deltas if delta is not None)
    if not (_plausible(row) and _plausible(column)):
        return None, f"pixels of {row:g} × {column:g} mm are not plausible"
    other = _pixel_spacing(header)
    if other and not all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(other, (row, column), strict=True)):
        return None, f"Pixel Spacing {other[0]:g} × {other[1]:g} mm contradicts its region's {row:g} × {column:g} mm"
    return (row, column), ""


def _pixel_spacing(header: Dataset) -> tuple[float, float] | None:
    values = header.get("PixelSpacing")
    try:
        row, column = (float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return (row, column) if _plausible(row) and _plausible(column) else None


def _plausible(step: float) -> bool:
    return SPACING_RANGE_MM[0] <= step <= SPACING_RANGE_MM[1]


def _number(item: Dataset, key: str) -> float | None:
    value: Any = item.get(key)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
