# SPDX-License-Identifier: Apache-2.0
"""Claims about the image and mask reader."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from bundle.errors import InputError
from bundle.readers import MAX_PIXELS, read_image, read_mask

GREY = np.arange(60 * 80, dtype=np.uint32).reshape(60, 80).astype(np.uint8)


def _save(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_grey_values_are_kept_exactly_in_every_8_bit_mode(tmp_path: Path, mode: str) -> None:
    image = read_image(_save(tmp_path / "a.png", GREY, mode))
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, GREY)
    assert image.spacing_mm is None
    assert image.warnings == ()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_formats_read_alike_as_height_by_width(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read_image(_save(tmp_path / f"a.{suffix}", GREY)).pixels, GREY)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_reads_close_to_its_source(tmp_path: Path, mode: str) -> None:
    smooth = np.tile(np.linspace(0, 255, 80, dtype=np.uint8), (60, 1))
    pixels = read_image(_save(tmp_path / "a.jpg", smooth, mode, quality=95)).pixels
    assert np.abs(pixels - smooth).max() <= 4


def test_format_is_known_by_content_not_by_name(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", GREY)
    np.testing.assert_array_equal(read_image(path.rename(tmp_path / "a.jpg")).pixels, GREY)


def test_one_bit_image_reads_as_0_and_255(tmp_path: Path) -> None:
    bits = GREY > 127
    np.testing.assert_array_equal(read_image(_save(tmp_path / "a.png", bits)).pixels, bits * 255.0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_scale_to_255(tmp_path: Path, suffix: str) -> None:
    deep = (GREY.astype(np.uint16)) * 257
    np.testing.assert_allclose(read_image(_save(tmp_path / f"a.{suffix}", deep)).pixels, GREY, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (GREY.astype(np.int32), 1),
        (GREY.astype(np.int32) * 257, 1),
        (GREY.astype(np.float32), 1),
        (GREY.astype(np.float32) / 255, 1),
        (GREY.astype(np.float32) * 257, 1),
    ],
    ids=["int 8 bits", "int 16 bits", "float 255", "float 1", "float 65535"],
)
def test_32_bit_tiff_reads_by_the_range_of_its_values(tmp_path: Path, values: np.ndarray, scale: float) -> None:
    np.testing.assert_allclose(read_image(_save(tmp_path / "a.tif", values)).pixels, GREY * scale, atol=1e-3)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 1e6])
def test_32_bit_values_without_a_known_range_are_refused(tmp_path: Path, bad: float) -> None:
    values = GREY.astype(np.float32)
    values[3, 4] = bad
    with pytest.raises(InputError, match="no grey values"):
        read_image(_save(tmp_path / "a.tif", values))


def test_colour_becomes_luma_with_a_warning(tmp_path: Path) -> None:
    colour = np.repeat(GREY[..., None], 3, axis=2)
    colour[:6] = (255, 0, 0)
    image = read_image(_save(tmp_path / "a.png", colour))
    assert image.pixels[0, 0] == round(0.299 * 255)
    assert len(image.warnings) == 1
    assert "10.00%" in image.warnings[0]


def test_transparency_is_ignored_in_images(tmp_path: Path) -> None:
    clear = np.dstack([GREY, GREY, GREY, np.zeros_like(GREY)])
    np.testing.assert_array_equal(read_image(_save(tmp_path / "a.png", clear)).pixels, GREY)


def test_exif_orientation_turns_image_and_mask_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _save(tmp_path / "a.png", GREY, exif=exif)
    np.testing.assert_array_equal(read_image(path).pixels, np.rot90(GREY, -1))
    lesion = (GREY > 100).astype(np.uint8)
    mask = _save(tmp_path / "m.png", lesion, exif=exif)
    np.testing.assert_array_equal(read_mask(mask), np.rot90(lesion, -1) > 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(GREY).save(path, exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01")
    assert read_image(path).pixels.shape == GREY.shape


def test_too_large_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    side = 20_000
    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(InputError, match=r"bomb.png: .*scale it down to at most 25 Mpx"):
        read_image(tmp_path / "bomb.png")
    assert side**2 > MAX_PIXELS


def test_limit_of_pixels_names_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.readers.image.MAX_PIXELS", 4799)
    with pytest.raises(InputError, match="60×80 pixels"):
        read_image(_save(tmp_path / "a.png", GREY))


def test_multi_frame_tiff_is_refused(tmp_path: Path) -> None:
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(InputError, match="3 frames"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"GIF89a" + bytes(50), "no readable PNG"),
        (b"\x89PNG\r\n\x1a\n", "a.png"),
    ],
)
def test_bad_file_is_named_with_reason_and_mend(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert caught.value.mend


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder"):
        read_mask(tmp_path)


def _bytes(suffix: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format=suffix)
    return buffer.getvalue()


FILES = {suffix: _bytes(suffix) for suffix in ("PNG", "JPEG", "BMP", "TIFF")}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FILES[suffix]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as a library in the same process may do
    (tmp_path / "a.bin").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"a\.bin"):
        read_image(tmp_path / "a.bin")


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1))
def test_damaged_bytes_give_an_image_or_an_input_error(suffix: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(FILES[suffix])
    for place, value in changes:
        content[place % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.bin"
        path.write_bytes(content)
        with contextlib.suppress(InputError):
            pixels = read_image(path).pixels
            assert pixels.min() >= 0
            assert pixels.max() <= 255
            assert read_mask(path).shape == pixels.shape


LESION = np.zeros((60, 80), dtype=bool)
LESION[10:30, 20:50] = True


def _palette(indices: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette(colours)
    return image


MASKS = {
    "one bit": Image.fromarray(LESION),
    "0 and 1": Image.fromarray(LESION.astype(np.uint8)),
    "0 and 255": Image.fromarray(LESION.astype(np.uint8) * 255),
    "16 bits": Image.fromarray(LESION.astype(np.uint16) * 65535),
    "RGB": Image.fromarray(LESION.astype(np.uint8) * 255).convert("RGB"),
    "blue": Image.fromarray(np.dstack([LESION * 0, LESION * 0, LESION * 255]).astype(np.uint8)),
    "opaque RGBA": Image.fromarray(LESION.astype(np.uint8) * 255).convert("RGBA"),
    "alpha alone": Image.fromarray(np.dstack([LESION * 0] * 3 + [LESION * 255]).astype(np.uint8)),
    "palette": _palette(LESION, [0, 0, 0, 128, 0, 0]),
    "palette index 255": _palette(LESION * 255, [0, 0, 0] * 255 + [255, 255, 255]),
    "grey LA": Image.fromarray(LESION.astype(np.uint8) * 255).convert("LA"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_mask_of_any_kind_reads_as_the_same_lesion(tmp_path: Path, kind: str) -> None:
    MASKS[kind].save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, LESION)


def test_two_colours_are_one_mask(tmp_path: Path) -> None:
    colour = np.zeros((60, 80, 3), dtype=np.uint8)
    colour[:30, :, 0] = LESION[:30] * 255
    colour[40:50, :, 2] = 255
    assert read_mask(_save(tmp_path / "m.png", colour))[45].all()


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_black_mask_is_empty(tmp_path: Path, mode: str) -> None:
    assert not read_mask(_save(tmp_path / "m.png", np.zeros((60, 80), np.uint8), mode)).any()


def test_jpeg_mask_keeps_its_edge_and_noise_is_no_lesion(tmp_path: Path) -> None:
    sharp = read_mask(_save(tmp_path / "m.jpg", LESION.astype(np.uint8) * 255, quality=75))
    assert (sharp != LESION).mean() < 0.005
    noise = np.random.default_rng(0).integers(0, 12, LESION.shape, dtype=np.uint8)
    assert not read_mask(_save(tmp_path / "n.jpg", noise)).any()
