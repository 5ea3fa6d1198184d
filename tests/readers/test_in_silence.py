# SPDX-License-Identifier: Apache-2.0
"""Claims about files that would be read wrongly without a word: each is read right, told, or refused by name."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fabricate import encapsulated, even, put_stream, region, regions, save, save_nifti, speckle, ultrasound, ybr_jpeg
from PIL import Image, TiffImagePlugin
from pydicom.pixels import convert_color_space
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from bundle.errors import InputError
from bundle.readers import read_image, read_mask
from bundle.readers.masks import MaskWarning

GREY = speckle(120, 160)
RGB = np.repeat(GREY[..., None], 3, axis=2)


def _read(dataset: Any, tmp_path: Path) -> Any:
    return read_image(save(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_that_lies_on_its_side_is_turned_and_not_torn(
    tmp_path: Path, orientation: int, turns: int, compression: str | None
) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    options = {"compression": compression} if compression else {}
    stored = np.ascontiguousarray(np.rot90(GREY, turns))
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo=tags, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, GREY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_colour_that_uses_the_lower_bits_is_refused(tmp_path: Path, suffix: str) -> None:
    """Pillow gives the upper 8 of 16 bits per channel."""
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), RGB.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path).pixels, GREY)
    opaque = np.full_like(GREY, 65535, "u2")
    for alpha in (None, opaque, np.where(GREY > 9, opaque, 0)):
        deep = RGB.astype(np.uint16) * 16
        cv2.imwrite(str(path), deep if alpha is None else np.dstack([deep, alpha]))
        with pytest.raises(InputError, match="they use fewer bits than the file"):
            read_image(path)


def _write_tiff(path: Path, values: np.ndarray, **tags: int) -> Path:
    """One strip of little-endian samples (H, W) or planes (3, H, W), with tags that Pillow does not write."""
    rows, columns = values.shape[-2:]
    planes = values.shape[0] if values.ndim == 3 else 1
    data, bits = values.tobytes(), 8 * values.itemsize
    entries = {256: columns, 257: rows, 258: bits, 259: 1, 262: 1, 277: planes, 278: rows}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    start = 8 + len(data)
    body, extra, after = b"", b"", start + 2 + 12 * (len(entries) + 2) + 4
    for tag, value in sorted((entries | {273: 0, 279: 0}).items()):
        several = {258: [bits] * planes, 339: [value] * planes} if planes > 1 else {}
        several |= {
            273: [8 + len(data) // planes * plane for plane in range(planes)],
            279: [len(data) // planes] * planes,
        }
        numbers = several.get(tag, [value])
        packed = struct.pack(f"<{len(numbers)}L", *numbers)
        if len(numbers) > 1:
            packed, extra = struct.pack("<L", after + len(extra)), extra + packed
        body += struct.pack("<HHL", tag, 4, len(numbers)) + packed
    head = b"II*\0" + struct.pack("<L", start)
    path.write_bytes(head + data + struct.pack("<H", len(entries) + 2) + body + bytes(4) + extra)
    return path


@pytest.mark.parametrize(
    ("values", "tags", "reason"),
    [
        (255 - GREY.astype(np.float32), {"_262": 0, "_339": 3}, "whose zero is white"),
        ((GREY.astype(np.int16) - 128).astype(np.int8), {"_339": 2}, "signed numbers of 8 bits"),
        (np.stack([GREY.astype(np.uint16) * 257] * 3), {"_262": 2, "_284": 2}, "16 bits per channel in planes"),
        (GREY, {"_32997": 2}, "volume of 2 slices"),
    ],
    ids=["float, white is zero", "signed", "planes", "volume"],
)
def test_a_tiff_that_pillow_reads_wrongly_is_refused(
    tmp_path: Path, values: np.ndarray, tags: dict[str, int], reason: str
) -> None:
    path = _write_tiff(tmp_path / "a.tif", values, **tags)
    with Image.open(path) as image:
        image.load()  # else the test proves nothing
    with pytest.raises(InputError, match=reason):
        read_image(path)


def test_deep_colour_of_dicom_uses_the_depth_of_its_values(tmp_path: Path) -> None:
    image = _read(ultrasound(RGB.astype(np.uint16) * 16, "RGB"), tmp_path)
    np.testing.assert_array_equal(image.pixels, GREY)
    assert "12 of 16 bits" in image.warnings[0]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_jpeg_that_was_cut_and_closed_again_is_told(tmp_path: Path, share: float) -> None:
    stream = ybr_jpeg(GREY)
    cut = stream[: int(len(stream) * share)] + b"\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(cut)
    dicom = save(put_stream(ultrasound(GREY), encapsulated([even(cut)]), JPEGBaseline8Bit), tmp_path / "a.dcm")
    for path in (tmp_path / "a.jpg", dicom):
        assert any("may have been cut short" in note for note in read_image(path).warnings)
    (tmp_path / "b.jpg").write_bytes(stream)
    assert read_image(tmp_path / "b.jpg").warnings == ()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_other_streams_that_were_cut_are_refused(tmp_path: Path, syntax: str) -> None:
    from pydicom.encaps import get_frame

    stream = get_frame(ultrasound(GREY, syntax=syntax).PixelData, 0, number_of_frames=1)
    for share in (0.5, 0.95):
        cut = encapsulated([even(stream[: int(len(stream) * share)])])
        with pytest.raises(InputError, match=r"a\.dcm"):
            _read(put_stream(ultrasound(GREY), cut, syntax), tmp_path)


def test_two_words_on_which_end_is_black_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Presentation LUT Shape"):
        _read(ultrasound(GREY, PresentationLUTShape="INVERSE"), tmp_path)
    with pytest.raises(InputError, match="by MONOCHROME1 that 0 is white, and by Presentation LUT Shape"):
        _read(ultrasound(GREY, "MONOCHROME1", PresentationLUTShape="IDENTITY"), tmp_path)
    for photometric, shape in (("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")):
        image = _read(ultrasound(GREY, photometric, PresentationLUTShape=shape), tmp_path)
        np.testing.assert_array_equal(image.pixels, GREY)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1", "RGB"])
def test_rows_and_columns_that_are_exchanged_are_refused(tmp_path: Path, photometric: str) -> None:
    with pytest.raises(InputError, match="not 160 rows of 120 but, as they are alike, 120 rows of 160"):
        _read(ultrasound(GREY, photometric, Rows=160, Columns=120), tmp_path)


def test_a_window_that_cuts_much_of_the_picture_is_told(tmp_path: Path) -> None:
    for centre, width, is_told in ((30, 40, True), (128, 256, False)):
        notes = _read(ultrasound(GREY, WindowCenter=centre, WindowWidth=width), tmp_path).warnings
        assert any("of the pixels black or white" in note for note in notes) == is_told


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("kind", "padding"), [(np.uint16, 65535), (np.int16, -32768)])
def test_padding_is_black(tmp_path: Path, photometric: str, kind: Any, padding: int) -> None:
    deep = (GREY if photometric == "MONOCHROME2" else 255 - GREY).astype(kind) * 16
    deep[:, :30] = padding
    elements = {"PixelPaddingValue": padding, "PixelRepresentation": int(padding < 0)}
    dataset = ultrasound(deep, **elements)
    dataset.PhotometricInterpretation = photometric
    image = _read(dataset, tmp_path)
    np.testing.assert_allclose(image.pixels[:, 30:], GREY[:, 30:], atol=1.1)
    assert image.pixels[:, :30].max() < 2
    assert f"padding of {padding}" in image.warnings[0]


def test_oblong_pixels_are_told(tmp_path: Path) -> None:
    assert "oblong" in _read(ultrasound(GREY, PixelAspectRatio=[1, 2]), tmp_path).warnings[0]
    assert _read(ultrasound(GREY, PixelAspectRatio=[1, 1]), tmp_path).warnings == ()


def test_a_region_that_was_not_scaled_with_its_frame_is_told(tmp_path: Path) -> None:
    items = regions(region(0, 0, 60, 80))
    image = _read(ultrasound(GREY, SequenceOfUltrasoundRegions=items), tmp_path)
    assert any("lies outside its tissue region" in note for note in image.warnings)
    items = regions(region(5, 5, 110, 150))
    assert _read(ultrasound(GREY, SequenceOfUltrasoundRegions=items), tmp_path).warnings == ()


SMOOTH = np.asarray(Image.fromarray(GREY).resize((160, 120), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("says_signed", [False, True])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 128, "WindowWidth": 256}])
def test_unsigned_pixels_that_say_signed_are_unsigned(
    tmp_path: Path, syntax: str | None, says_signed: bool, window: dict[str, int]
) -> None:
    dataset = ultrasound(SMOOTH, **({"syntax": syntax} if syntax else {}), **window)
    dataset.PixelRepresentation = int(says_signed)
    image = _read(dataset, tmp_path)
    np.testing.assert_allclose(image.pixels, SMOOTH, atol=1)
    assert any("although its header says signed" in note for note in image.warnings) == says_signed


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed_pixels_that_say_unsigned_are_signed(tmp_path: Path, bits: int) -> None:
    values = (SMOOTH.astype(int) - 128) * 2 ** (bits - 8)
    unsigned = np.where(values < 0, values + 2**bits, values).astype(np.uint8 if bits == 8 else np.uint16)
    image = _read(ultrasound(unsigned, BitsStored=bits, HighBit=bits - 1), tmp_path)
    np.testing.assert_allclose(image.pixels, SMOOTH, atol=1)
    assert any("signed although its header says unsigned" in note for note in image.warnings)


def test_black_letters_on_white_keep_their_sign(tmp_path: Path) -> None:
    page = np.where(GREY > 60, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(_read(ultrasound(page), tmp_path).pixels, page)


def test_signed_pixels_are_signed(tmp_path: Path) -> None:
    image = _read(ultrasound((SMOOTH.astype(int) - 128).astype(np.int8), PixelRepresentation=1), tmp_path)
    np.testing.assert_array_equal(image.pixels, SMOOTH)
    assert image.warnings == ()


def test_a_dark_frame_of_a_deep_palette_stays_dark(tmp_path: Path) -> None:
    table = np.arange(256, dtype="<u2") ** 2  # to 65025, yet below 256 for the first sixteen
    tables = {f"{colour}PaletteColorLookupTableData": table.tobytes() for colour in ("Red", "Green", "Blue")}
    dark = (GREY // 17).astype(np.uint8)
    np.testing.assert_array_equal(_read(ultrasound(dark, "PALETTE COLOR", **tables), tmp_path).pixels, 0)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_palette_that_does_not_use_its_bits_is_not_dark(tmp_path: Path, bits: int) -> None:
    table = (np.arange(256, dtype="<u2") * 2 ** (bits - 8)).tobytes()
    tables = {f"{colour}PaletteColorLookupTableData": table for colour in ("Red", "Green", "Blue")}
    np.testing.assert_array_equal(_read(ultrasound(GREY, "PALETTE COLOR", **tables), tmp_path).pixels, GREY)


@pytest.mark.parametrize("change", ["none", "planes", "ybr"])
def test_colour_of_8_bits_in_16_is_settled_as_colour_of_8(tmp_path: Path, change: str) -> None:
    stored = convert_color_space(RGB, "RGB", "YBR_FULL") if change == "ybr" else RGB
    dataset = ultrasound(stored.astype(np.uint16), "RGB", BitsStored=8, HighBit=7)
    dataset.PlanarConfiguration = int(change == "planes")
    image = _read(dataset, tmp_path)
    np.testing.assert_allclose(image.pixels, GREY, atol=1)
    assert (image.warnings != ()) == (change != "none")


def test_a_stream_of_more_bits_than_the_header_says_is_refused(tmp_path: Path) -> None:
    dataset = ultrasound(GREY.astype(np.uint16) * 16, syntax=JPEGLSLossless)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    with pytest.raises(InputError, match="has 16 bits where the header says 8"):
        _read(dataset, tmp_path)


def test_transparent_parts_are_told(tmp_path: Path) -> None:
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:30] = 0
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, GREY)
    assert "transparent" in image.warnings[0]


def test_an_inverted_mask_is_told(tmp_path: Path) -> None:
    lesion = np.zeros(GREY.shape, np.uint8)
    lesion[30:60, 40:90] = 1
    for values, is_inverted in ((lesion, False), (1 - lesion, True)):
        path = save_nifti(values, tmp_path / "m.nii.gz")
        Image.fromarray(values * 255).save(tmp_path / "m.png")
        for file in (path, tmp_path / "m.png"):
            if is_inverted:
                with pytest.warns(MaskWarning, match="is it inverted"):
                    assert read_mask(file).any()
            else:
                np.testing.assert_array_equal(read_mask(file), lesion > 0)
