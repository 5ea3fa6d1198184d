# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.readers.lookup_table: the picture is the table's, however wide values and entries are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from bundle.errors import InputError
from bundle.readers import read_image
from tests.readers.fabricate import save, ultrasound

SHAPE = (90, 120)
SHARES = np.linspace(0, 1, 4096) ** 0.5
"""What the picture is made of: a bent line over 12 bits."""


def _table(entries: np.ndarray, bits: int, kind: str = "OW", packed: bool = False, first: int = 0) -> list[Dataset]:
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    stored = entries.astype("u1" if packed else "<u2")
    table.add_new("LUTData", kind, stored.tobytes() if kind == "OW" else [int(value) for value in stored])
    return [table]


def _read(pixels: np.ndarray, folder: Path, **elements: Any) -> np.ndarray:
    return read_image(save(ultrasound(pixels, **elements), folder / "scan.dcm")).pixels


@pytest.mark.parametrize("kind", ["OW", "US"])
@pytest.mark.parametrize(("bits", "packed"), [(8, False), (8, True), (10, False), (12, False), (16, False)])
def test_a_voi_table_of_any_width_shows_the_same_picture(bits: int, packed: bool, kind: str, tmp_path: Path) -> None:
    if packed and kind == "US":
        return  # two entries in a word are bytes
    pixels = np.random.default_rng(0).integers(0, 4096, SHAPE, np.uint16)
    entries = (SHARES * (2**bits - 1)).round()
    shown = _read(pixels, tmp_path, BitsStored=12, HighBit=11, VOILUTSequence=_table(entries, bits, kind, packed))
    np.testing.assert_allclose(shown, SHARES[pixels] * 255, atol=0.6)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_modality_table_of_any_width_is_followed_by_the_voi_table(bits: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    modality = _table((np.arange(256) / 255 * (2**bits - 1)).round(), bits)
    voi = _table((np.linspace(0, 1, 2**bits % 65536 or 65535) ** 0.5 * 255).round(), 8)
    shown = _read(pixels, tmp_path, ModalityLUTSequence=modality, VOILUTSequence=voi)
    np.testing.assert_allclose(shown, (pixels / 255) ** 0.5 * 255, atol=2)


def test_values_outside_the_table_get_its_ends(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    voi = _table(np.arange(128) * 2, 8, first=64)
    expected = np.clip((pixels.astype(int) - 64) * 2, 0, 254)
    np.testing.assert_allclose(_read(pixels, tmp_path, VOILUTSequence=voi), expected, atol=0.6)


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_table_that_is_shorter_than_it_says_is_refused(keyword: str, tmp_path: Path) -> None:
    table = _table(np.arange(256), 8)
    table[0].LUTData = table[0].LUTData[:100]
    with pytest.raises(InputError, match=f"{keyword} is malformed"):
        _read(np.zeros(SHAPE, np.uint8), tmp_path, **{keyword: table})
