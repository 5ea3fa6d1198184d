# SPDX-License-Identifier: Apache-2.0
"""Claims about headers that do not say what the pixels are: the pixels decide with a warning, or a refusal by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import (
    encapsulated,
    even,
    lossless_jpeg,
    put_stream,
    rgb_jpeg,
    save,
    speckle,
    ultrasound,
    without_jfif,
    ybr_jpeg,
)
from PIL import Image
from pydicom.pixels import convert_color_space
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from bundle.errors import InputError
from bundle.readers import count_frames, dicom_frame, pydicom2, read_image

GREY = speckle()
RGB = np.repeat(GREY[..., None], 3, axis=2)
DOPPLER = RGB.copy()
DOPPLER[20:35, 30:60] = (200, 40, 10)
TINTED = (RGB * np.array([1.0, 0.6, 0.2])).astype(np.uint8)
LUMA = np.asarray(Image.fromarray(DOPPLER).convert("L"))


def _plain(pixels: np.ndarray, photometric: str, **elements: Any) -> Any:
    dataset = ultrasound(pixels, "RGB")
    dataset.PhotometricInterpretation = photometric
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def _read(dataset: Any, tmp_path: Path) -> Any:
    return read_image(save(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize("picture", [RGB, DOPPLER], ids=["grey", "Doppler"])
@pytest.mark.parametrize("is_ybr", [False, True])
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_plain_pixels_are_what_they_are_not_what_the_header_says(
    tmp_path: Path, picture: np.ndarray, is_ybr: bool, photometric: str
) -> None:
    stored = convert_color_space(picture, "RGB", "YBR_FULL") if is_ybr else picture
    image = _read(_plain(stored, photometric), tmp_path)
    assert np.abs(image.pixels - np.asarray(Image.fromarray(picture).convert("L"))).max() <= 2
    is_right = photometric == ("YBR_FULL" if is_ybr else "RGB")
    assert any("although its header says" in note for note in image.warnings) != is_right


def test_true_422_is_read_as_it_says(tmp_path: Path) -> None:
    ybr = convert_color_space(DOPPLER, "RGB", "YBR_FULL")
    stored = np.empty((60, 160), dtype=np.uint8)
    stored[:, 0::4], stored[:, 1::4] = ybr[:, 0::2, 0], ybr[:, 1::2, 0]
    stored[:, 2::4], stored[:, 3::4] = ybr[:, 0::2, 1], ybr[:, 0::2, 2]
    dataset = _plain(RGB, "YBR_FULL_422")
    dataset.PixelData = stored.tobytes()
    image = _read(dataset, tmp_path)
    assert np.abs(image.pixels - LUMA).mean() < 1
    assert not any("although" in note for note in image.warnings)


def test_expanded_422_of_a_tinted_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="says YBR_FULL_422 but holds three bytes per pixel"):
        _read(_plain(TINTED, "YBR_FULL_422"), tmp_path)


def test_an_expanded_422_cine_keeps_its_frames(tmp_path: Path) -> None:
    frames = [np.repeat(speckle(seed=seed)[..., None], 3, axis=2) for seed in range(3)]
    dataset = ultrasound(frames, "RGB")
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    path = save(dataset, tmp_path / "cine.dcm")
    assert count_frames(path) == 3
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(read_image(path, number).pixels, frame[..., 0])


def _stream(kind: str, picture: np.ndarray) -> bytes:
    """JPEG streams that hold the same picture."""
    if kind == "ycbcr":
        return ybr_jpeg(picture)
    if kind == "ycbcr without marker":
        return without_jfif(ybr_jpeg(picture))
    if kind == "full chroma without marker":
        return without_jfif(ybr_jpeg(picture, subsampling=0))
    if kind == "rgb":
        return rgb_jpeg(picture)
    if kind == "rgb with plain ids":  # RGB samples whose components are called 1, 2, 3
        buffer = io.BytesIO()
        Image.frombytes("YCbCr", picture.shape[1::-1], picture.tobytes()).save(
            buffer, "JPEG", quality=95, subsampling=0
        )
        return without_jfif(buffer.getvalue())
    # Adobe's marker: transform 1 is YCbCr, 0 is RGB
    transform = 1 if kind == "adobe ycbcr" else 0
    bare = without_jfif(ybr_jpeg(picture)) if transform else rgb_jpeg(picture)
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return bare[:2] + marker + bare[2:]


STREAMS = [
    *("ycbcr", "ycbcr without marker", "full chroma without marker"),
    *("rgb", "rgb with plain ids", "adobe ycbcr", "adobe rgb"),
]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422", "YBR_FULL"])
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("decoders", [True, False], ids=["pydicom 3", "pydicom 2"])
def test_a_jpeg_is_in_the_colours_of_its_stream(
    tmp_path: Path, kind: str, photometric: str, decoders: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dicom_frame, pydicom2):
        monkeypatch.setattr(module, "has_decoders", lambda: decoders)
    smooth = np.asarray(Image.fromarray(DOPPLER).resize((160, 120), Image.Resampling.BICUBIC))
    data = encapsulated([even(_stream(kind, smooth))])
    image = _read(put_stream(_plain(smooth, photometric), data, JPEGBaseline8Bit), tmp_path)
    assert np.abs(image.pixels - np.asarray(Image.fromarray(smooth).convert("L"))).mean() < 3
    is_right = photometric.startswith("YBR") == ("rgb" not in kind)
    assert any("although its header says" in note for note in image.warnings) != is_right


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_other_syntaxes_are_what_their_pixels_are(tmp_path: Path, syntax: Any) -> None:
    for stored, photometric in ((DOPPLER, "YBR_FULL"), (convert_color_space(DOPPLER, "RGB", "YBR_FULL"), "RGB")):
        dataset = ultrasound(stored, "RGB", syntax)
        dataset.PhotometricInterpretation = photometric
        image = _read(dataset, tmp_path)
        assert np.abs(image.pixels - LUMA).max() <= 2
        assert any("although its header says" in note for note in image.warnings)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_RCT", "YBR_ICT"])
def test_jpeg_2000_is_not_converted_twice(tmp_path: Path, photometric: str) -> None:
    dataset = ultrasound(DOPPLER, "RGB", JPEG2000Lossless)
    dataset.PhotometricInterpretation = photometric
    np.testing.assert_array_equal(_read(dataset, tmp_path).pixels, LUMA)


def test_lossless_jpeg_of_ybr_that_says_rgb_is_seen(tmp_path: Path) -> None:
    ybr = convert_color_space(DOPPLER, "RGB", "YBR_FULL")
    dataset = put_stream(_plain(DOPPLER, "RGB"), encapsulated([even(lossless_jpeg(ybr))]), JPEGLosslessSV1)
    image = _read(dataset, tmp_path)
    assert np.abs(image.pixels - LUMA).max() <= 2
    assert any("they are read as YBR_FULL" in note for note in image.warnings)


def test_a_tinted_picture_is_believed_to_its_header(tmp_path: Path) -> None:
    luma = np.asarray(Image.fromarray(TINTED).convert("L"))
    image = _read(_plain(TINTED, "RGB"), tmp_path)
    np.testing.assert_array_equal(image.pixels, luma)
    assert not any("although" in note for note in image.warnings)


@pytest.mark.parametrize("picture", [RGB, DOPPLER], ids=["grey", "Doppler"])
@pytest.mark.parametrize("are_planes", [False, True])
def test_a_wrong_planar_configuration_is_seen(tmp_path: Path, picture: np.ndarray, are_planes: bool) -> None:
    for says in (0, 1):
        dataset = _plain(picture, "RGB", PlanarConfiguration=says)
        stored = np.moveaxis(picture, -1, 0) if are_planes else picture
        dataset.PixelData = np.ascontiguousarray(stored).tobytes()
        image = _read(dataset, tmp_path)
        np.testing.assert_array_equal(image.pixels, np.asarray(Image.fromarray(picture).convert("L")))
        assert any("Planar Configuration is wrong" in note for note in image.warnings) != (says == are_planes)


def test_smooth_pictures_keep_their_planes(tmp_path: Path) -> None:
    """Neighbours in a plane are nearly equal: taken as the three colours of one pixel they would look grey."""
    rows, columns = np.mgrid[:120, :160]
    smooth = np.stack([rows + columns // 4, 90 + rows // 8 + columns // 8, 200 - rows], axis=-1).astype(np.uint8)
    dataset = _plain(smooth, "RGB", PlanarConfiguration=1)
    dataset.PixelData = np.moveaxis(smooth, -1, 0).tobytes()
    image = _read(dataset, tmp_path)
    np.testing.assert_array_equal(image.pixels, np.asarray(Image.fromarray(smooth).convert("L")))


def test_values_of_more_bits_than_the_header_says_are_refused(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 16
    for syntax in (None, RLELossless):
        dataset = ultrasound(deep, **({"syntax": syntax} if syntax else {}))
        dataset.BitsStored, dataset.HighBit = 10, 9
        with pytest.raises(InputError, match="need more bits than the 10 that its header says"):
            _read(dataset, tmp_path)


def test_bits_at_the_top_of_a_word_are_refused(tmp_path: Path) -> None:
    dataset = ultrasound(GREY.astype(np.uint16) * 256)
    dataset.BitsStored, dataset.HighBit = 12, 15
    with pytest.raises(InputError, match="end at bit 15 of 16"):
        _read(dataset, tmp_path)


def test_what_pydicom_warns_of_the_pixels_reaches_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    plain = dicom_frame._decode

    def decode(*args: Any) -> Any:
        warnings.warn("the bits do not match", stacklevel=1)
        return plain(*args)

    monkeypatch.setattr(dicom_frame, "_decode", decode)
    image = _read(ultrasound(GREY), tmp_path)
    assert image.warnings == ("pydicom warns of its pixels: the bits do not match",)
