# SPDX-License-Identifier: Apache-2.0
"""Look-up tables of a DICOM header (PS3.3 C.11.1 and C.11.2): read as they lie there, and applied.

Not by pydicom, which takes values modulo 256 where the entries have 8 bits, and knows neither entries of 8 bits that
lie two in a word nor modality tables of 10 to 14 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .pydicom2 import encoding_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_LONGEST = 1 << 16
_BITS = range(8, 17)


@dataclass(frozen=True)
class LookupTable:
    """One table.

    Args:
        first: value that the first entry stands for; lower ones get the first entry, higher than the last the last.
        bits: of an entry, 8 to 16.
        entries: (N,) uint16.
    """

    first: int
    bits: int
    entries: np.ndarray

    def apply(self, values: ArrayLike) -> np.ndarray:
        """Return the entries for values of any shape, as float64; values are rounded."""
        places = np.rint(np.asarray(values, dtype=np.float64)) - self.first
        return self.entries[np.clip(places, 0, len(self.entries) - 1).astype(np.int64)].astype(np.float64)


def read_lookup_table(header: Dataset, keyword: str) -> LookupTable | None:
    """Return the first table of a sequence of a header; None where the header has none.

    Args:
        header: of an image.
        keyword: ``ModalityLUTSequence`` or ``VOILUTSequence``.

    Raises:
        ValueError: its descriptor and its data do not fit each other.
    """
    if not header.get(keyword):
        return None
    table = header[keyword].value[0]
    try:
        length, first, bits = (int(number) for number in table.LUTDescriptor)
        length = length % _LONGEST or _LONGEST  # unsigned, whatever the descriptor was read as; 0 says 65,536
        entries = _entries_of(table.LUTData, length, bits, little=encoding_of(header)[1])
    except (AttributeError, TypeError, OverflowError):
        raise ValueError(f"its {keyword} is malformed") from None
    if bits not in _BITS or not -(_LONGEST // 2) <= first < _LONGEST or len(entries) != length:
        raise ValueError(f"its {keyword} is malformed")
    return LookupTable(first, bits, entries)


def _entries_of(data: Any, length: int, bits: int, little: bool) -> np.ndarray:
    """The entries, (length,) uint16 where there are as many: each in a word or, of 8 bits, also two in a word."""
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.int64)).astype(np.uint16)[:length]
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2").astype("<u2")
    if bits == 8 and len(words) < length:
        return np.frombuffer(words.tobytes() + data[len(words) * 2 :], np.uint8)[:length].astype(np.uint16)
    return words[:length]
