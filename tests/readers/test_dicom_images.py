# SPDX-License-Identifier: Apache-2.0
"""Claims about ultrasound DICOM: every kind of pixels, one frame of several, and what is refused."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import lossless_jpeg, region, regions, save, ultrasound
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from bundle.errors import InputError
from bundle.readers import count_frames, read_image
from bundle.readers.dicom import read_header

GREY = (np.add.outer(np.arange(40) * 3, np.arange(60) * 2) % 256).astype(np.uint8)
NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
LOSSLESS = [*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless]


def _read(tmp_path: Path, *args: Any, **elements: Any) -> Any:
    return read_image(save(ultrasound(*args, **elements), tmp_path / "a.dcm"))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1", "RGB"])
def test_grey_values_are_kept_in_every_lossless_syntax(tmp_path: Path, syntax: Any, photometric: str) -> None:
    image = _read(tmp_path, GREY, photometric, syntax)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert (image.pixels.dtype, image.frame, image.frames, image.region) == (np.float32, None, 1, None)
    assert image.warnings == ()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_palettes_are_looked_up(tmp_path: Path, syntax: Any) -> None:
    np.testing.assert_array_equal(_read(tmp_path, GREY, "PALETTE COLOR", syntax).pixels, GREY)


def test_an_uneven_palette_shows_its_own_greys_and_not_the_indices(tmp_path: Path) -> None:
    falling = (np.arange(255, -1, -1, dtype="<u2") * 257).tobytes()
    tables = {f"{colour}PaletteColorLookupTableData": falling for colour in ("Red", "Green", "Blue")}
    np.testing.assert_array_equal(_read(tmp_path, GREY, "PALETTE COLOR", **tables).pixels, 255.0 - GREY)


def test_ybr_comes_within_a_grey_level(tmp_path: Path) -> None:
    assert np.abs(_read(tmp_path, GREY, "YBR_FULL").pixels - GREY).max() <= 1


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "YBR_FULL_422"])
def test_lossy_jpeg_comes_close(tmp_path: Path, photometric: str) -> None:
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    assert np.abs(_read(tmp_path, smooth, photometric, JPEGBaseline8Bit).pixels - smooth).max() <= 4


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_lossless_jpeg_is_exact(tmp_path: Path, photometric: str) -> None:
    pixels = GREY if photometric == "MONOCHROME2" else np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
    plain = save(ultrasound(pixels, photometric), tmp_path / "plain.dcm")
    dataset = ultrasound(pixels, photometric)
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.PixelData = encapsulate([lossless_jpeg(pixels)])
    dataset["PixelData"].VR = "OB"
    np.testing.assert_array_equal(read_image(save(dataset, tmp_path / "a.dcm")).pixels, read_image(plain).pixels)


def test_a_window_maps_its_range_to_black_and_white(tmp_path: Path) -> None:
    deep = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (8, 1))
    image = _read(tmp_path, deep, BitsStored=12, HighBit=11, WindowCenter=1024, WindowWidth=1025)
    expected = np.clip((deep.astype(float) - 511.5) / 1024, 0, 1) * 255
    np.testing.assert_allclose(image.pixels, expected, atol=0.1)


def test_without_a_window_the_stored_bits_are_the_range_where_they_are_used(tmp_path: Path) -> None:
    deep = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (8, 1))
    image = _read(tmp_path, deep, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(image.pixels, deep / 4095 * 255, atol=1e-3)
    assert image.warnings == ()
    shallow = _read(tmp_path, (deep // 16).astype(np.uint16))
    np.testing.assert_allclose(shallow.pixels, deep // 16, atol=1e-3)
    assert "use 8 of 16 bits" in shallow.warnings[0]


@pytest.mark.parametrize(("width", "bits"), [(0, 8), (1, 8), (2, 8), (100_000, 8), (0, 16), (1, 16), (100, 16)])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_that_leaves_no_picture_is_not_used(tmp_path: Path, width: int, bits: int, photometric: str) -> None:
    stored = GREY if bits == 8 else GREY.astype(np.uint16) * 257
    image = _read(tmp_path, stored, photometric, WindowCenter=128, WindowWidth=width)
    np.testing.assert_allclose(image.pixels, GREY, atol=1e-3)
    assert f"width {width}) leaves no picture: the stored values are taken" in image.warnings[0]


def test_a_window_beside_the_values_is_not_used(tmp_path: Path) -> None:
    image = _read(tmp_path, GREY, WindowCenter=2000, WindowWidth=200)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert "leaves no picture" in image.warnings[0]


def test_the_whole_range_as_a_window_changes_nothing(tmp_path: Path) -> None:
    for centre, width in ((128, 256), (127.5, 255), ([128, 60], [256, 100])):
        image = _read(tmp_path, GREY, WindowCenter=centre, WindowWidth=width)
        np.testing.assert_allclose(image.pixels, GREY, atol=1)
        assert image.warnings == ()


def test_signed_values_start_at_black(tmp_path: Path) -> None:
    signed = np.tile(np.arange(-128, 128, dtype=np.int8), (4, 1))
    image = _read(tmp_path, signed, PixelRepresentation=1)
    np.testing.assert_array_equal(image.pixels, signed.astype(float) + 128)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_one_frame_of_several_is_read(tmp_path: Path, syntax: Any) -> None:
    path = save(ultrasound([np.roll(GREY, n, axis=1) for n in range(4)], syntax=syntax), tmp_path / "cine.dcm")
    assert count_frames(path) == 4
    with pytest.raises(InputError, match=r"cine\.dcm: holds 4 frames.*0 to 3"):
        read_image(path)
    for frame in (0, 3):
        image = read_image(path, frame)
        np.testing.assert_array_equal(image.pixels, np.roll(GREY, frame, axis=1))
        assert (image.frame, image.frames) == (frame, 4)


def test_of_many_frames_only_the_wanted_one_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(ultrasound([GREY] * 30, syntax=RLELossless), tmp_path / "cine.dcm")
    decoded = []
    import pydicom.pixels.decoders.rle as rle

    plain: Callable[..., Any] = rle._rle_decode_frame
    monkeypatch.setattr(rle, "_rle_decode_frame", lambda *args: (decoded.append(1), plain(*args))[1])
    read_image(path, 17)
    assert len(decoded) == 1


def test_a_file_without_suffix_is_known_by_its_preamble(tmp_path: Path) -> None:
    path = save(ultrasound(GREY), tmp_path / "IM000001")
    np.testing.assert_array_equal(read_image(path).pixels, GREY)
    np.testing.assert_array_equal(read_image(path.rename(tmp_path / "a.png")).pixels, GREY)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Modality": "MR"}, "its modality is MR, not US"),
        ({"Modality": None}, "its modality is not told, not US"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.2"}, r"another class \(Enhanced US Volume Storage\)"),
        ({"Rows": 0}, "claims 0 rows"),
        ({"Rows": 400}, "holds 2400 bytes of pixels where its header claims 24000"),
        ({"Rows": 60000, "Columns": 60000}, "more than the limit of 25 Mpx"),
        ({"NumberOfFrames": 3}, "holds 2400 bytes of pixels where its header claims 7200"),
        ({"NumberOfFrames": 2_000_000_000}, "2000000000 frames, more than the limit"),
        ({"PhotometricInterpretation": "CMYK"}, "its photometric interpretation is CMYK"),
        ({"SamplesPerPixel": 3}, "claims 3 samples per pixel of MONOCHROME2"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "32 bits stored in 32"),
        ({"PixelData": None}, "holds no pixels"),
    ],
)
def test_what_is_not_read_is_refused_by_name_with_a_mend(tmp_path: Path, elements: dict[str, Any], reason: str) -> None:
    path = save(ultrasound(GREY, **elements), tmp_path / "a.dcm")
    with pytest.raises(InputError, match=rf"a\.dcm: .*{reason}") as caught:
        read_image(path, 0)
    assert caught.value.mend
    assert "\n" not in str(caught.value)


def test_a_syntax_without_a_free_decoder_is_refused_by_its_name(tmp_path: Path) -> None:
    dataset = ultrasound(GREY)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.94"
    dataset.PixelData = encapsulate([b"jpip"])
    dataset["PixelData"].VR = "OB"
    with pytest.raises(InputError, match=r"its transfer syntax JPIP Referenced .* is not read; convert it"):
        read_image(save(dataset, tmp_path / "a.dcm"))


def test_a_frame_of_another_size_than_the_header_says_is_refused(tmp_path: Path) -> None:
    path = save(ultrasound(GREY, syntax=JPEGBaseline8Bit, Rows=41), tmp_path / "a.dcm")
    with pytest.raises(InputError, match="states 40×60 pixels where the header says 41×60"):
        read_image(path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = save(ultrasound(GREY, syntax=JPEG2000Lossless), tmp_path / "a.dcm")
    whole = path.read_bytes()
    for length in (0, 100, 132, 200, len(whole) // 2, len(whole) - 400):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.dcm"):
            read_image(path)


def test_pydicom_says_nothing_on_the_side(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(ultrasound(GREY, syntax=RLELossless), tmp_path / "a.dcm")
    data = bytearray(path.read_bytes())
    at = data.index(b"US", 132)  # a value representation that does not exist
    data[at : at + 2] = b"?!"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        with contextlib.suppress(InputError):
            read_image(path)
    assert caught == []
    assert [record.name for record in caplog.records] == []
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("pydicom").disabled


def test_a_headers_own_words_can_not_break_the_line_or_the_terminal(tmp_path: Path) -> None:
    path = save(ultrasound(GREY, Modality="MODALITY"), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"MODALITY", b"\x1b[2J\nX\rY"))
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value).isprintable()
    assert "modality is ?[2J X Y" in str(caught.value)


def test_the_header_comes_without_pixels_and_checked(tmp_path: Path) -> None:
    header = read_header(save(ultrasound(GREY), tmp_path / "a.dcm"))
    assert (header.PatientID, header.Rows, header.Columns) == ("P-0001", 40, 60)
    assert "PixelData" not in header
    with pytest.raises(InputError, match="not US"):
        read_header(save(ultrasound(GREY, Modality="CT"), tmp_path / "b.dcm"))


@pytest.mark.parametrize(
    ("elements", "word"),
    [
        ({"BurnedInAnnotation": "YES"}, "may name the patient"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"OverlayRows": 40}, "overlay planes are not drawn"),
        ({"SequenceOfUltrasoundRegions": regions(region(0, 0, 40, 60, RegionDataType=2))}, "Doppler"),
    ],
)
def test_what_a_reader_should_know_is_told(tmp_path: Path, elements: dict[str, Any], word: str) -> None:
    dataset = ultrasound(GREY)
    if "OverlayRows" in elements:
        dataset.add_new(0x60000010, "US", 40)
    else:
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
    assert any(word in warning for warning in read_image(save(dataset, tmp_path / "a.dcm")).warnings)


def test_colour_inside_the_region_is_told_and_outside_is_not(tmp_path: Path) -> None:
    colour = np.repeat(GREY[..., None], 3, axis=2)
    colour[:5] = (255, 0, 0)
    inside, outside = regions(region(0, 0, 40, 60)), regions(region(5, 0, 40, 60))
    assert "coloured" in _read(tmp_path, colour, "RGB", SequenceOfUltrasoundRegions=inside).warnings[0]
    assert _read(tmp_path, colour, "RGB", SequenceOfUltrasoundRegions=outside).warnings == ()
