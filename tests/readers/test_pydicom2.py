# SPDX-License-Identifier: Apache-2.0
"""Claims about reading DICOM without the decoders of pydicom 3; `make test-monailabel` has the real version 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import save, ultrasound
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from bundle.errors import InputError
from bundle.readers import dicom_frame, pydicom2, read_image

GREY = (np.add.outer(np.arange(40) * 3, np.arange(60) * 2) % 256).astype(np.uint8)


@pytest.fixture
def without_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dicom_frame, pydicom2):
        monkeypatch.setattr(module, "has_decoders", lambda: False)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless]
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1", "RGB"])
@pytest.mark.filterwarnings("ignore")
def test_lossless_syntaxes_are_read(tmp_path: Path, without_decoders: None, syntax: Any, photometric: str) -> None:
    file = save(ultrasound(GREY, photometric, syntax), tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_image(file).pixels, GREY)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit])
def test_one_frame_of_several_is_read(tmp_path: Path, without_decoders: None, syntax: Any) -> None:
    frames = [GREY, GREY[::-1].copy(), 255 - GREY]
    file = save(ultrasound(frames, "MONOCHROME2", syntax), tmp_path / "a.dcm")
    for number, frame in enumerate(frames):
        found = read_image(file, number).pixels
        assert np.abs(found - frame).mean() < (3 if syntax == JPEGBaseline8Bit else 1e-9)


def test_palettes_are_looked_up(tmp_path: Path, without_decoders: None) -> None:
    file = save(ultrasound(GREY, "PALETTE COLOR"), tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_image(file).pixels, GREY)


def test_a_syntax_without_a_decoder_is_refused_with_the_reason(tmp_path: Path, without_decoders: None) -> None:
    file = save(ultrasound(GREY, "MONOCHROME2", JPEGLSLossless), tmp_path / "a.dcm")
    with pytest.raises(InputError, match="not read with pydicom 2"):
        read_image(file)
