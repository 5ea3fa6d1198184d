# SPDX-License-Identifier: Apache-2.0
"""Claims about frames: the class, the count, the bytes, the fragments and the offsets agree, or are refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import (
    US_IMAGE,
    US_MULTI_FRAME,
    encapsulated,
    even,
    put_stream,
    save,
    speckle,
    ultrasound,
    without_jfif,
    ybr_jpeg,
)
from pydicom.encaps import encapsulate_extended
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from bundle.errors import InputError
from bundle.readers import count_frames, read_image

FRAMES = [speckle(seed=number) for number in range(4)]
STREAMS = [even(ybr_jpeg(frame)) for frame in FRAMES]
OFFSETS = [sum(8 + len(stream) for stream in STREAMS[:number]) for number in range(4)]


def _cine(tmp_path: Path, data: bytes, syntax: str = JPEGBaseline8Bit, count: int | None = 4, **elements: Any) -> Path:
    dataset = put_stream(ultrasound(FRAMES, **elements), data, syntax)
    if count is None:
        del dataset.NumberOfFrames
    else:
        dataset.NumberOfFrames = count
    return save(dataset, tmp_path / "cine.dcm")


def _native(tmp_path: Path, here: int, count: int | None, kind: str = US_MULTI_FRAME, extra: bytes = b"") -> Path:
    dataset = ultrasound(FRAMES, SOPClassUID=kind)
    dataset.PixelData = even(np.stack(FRAMES[:here]).tobytes() + extra)
    if count is None:
        del dataset.NumberOfFrames
    else:
        dataset.NumberOfFrames = count
    return save(dataset, tmp_path / "cine.dcm")


def _check(path: Path, expected: int = 4, atol: float = 12) -> tuple[str, ...]:
    """The frames are the expected ones, each its own, and no more; the warnings."""
    assert count_frames(path) == expected
    for number in range(expected):
        image = read_image(path, number)
        assert image.frames == expected
        assert np.abs(image.pixels - FRAMES[number]).mean() < atol
        assert np.argmin([np.abs(image.pixels - frame).mean() for frame in FRAMES]) == number
    with pytest.raises(InputError, match=f"has no frame {expected}"):
        read_image(path, expected)
    return read_image(path, 0).warnings


@pytest.mark.parametrize(
    ("table", "is_told"),
    [(OFFSETS, False), ([], False), ([0] * 4, True), ([0], True), (OFFSETS[::-1], True), ([1, 2, 3, 4], True)],
    ids=["right", "none", "zeros", "one", "backwards", "no fragment's"],
)
def test_a_wrong_offset_table_moves_no_frame(tmp_path: Path, table: list[int], is_told: bool) -> None:
    notes = _check(_cine(tmp_path, encapsulated(STREAMS, table)))
    assert any("offset table is wrong" in note for note in notes) == is_told


def test_a_table_that_could_be_right_and_is_not_is_refused(tmp_path: Path) -> None:
    """Eight fragments of four frames, of which the table names others than where pictures begin."""
    parts = [part for stream in STREAMS for part in (stream[:400], stream[400:])]
    places = [sum(8 + len(part) for part in parts[:number]) for number in range(8)]
    _check(_cine(tmp_path, encapsulated(parts, places[::2])))
    with pytest.raises(InputError, match="other beginnings"):
        read_image(_cine(tmp_path, encapsulated(parts, [places[0], places[1], places[4], places[6]])), 1)


@pytest.mark.parametrize("table", [[], [0]], ids=["no table", "one offset"])
def test_frames_of_several_fragments_are_put_together_without_a_table(tmp_path: Path, table: list[int]) -> None:
    parts = [part for stream in STREAMS for part in (stream[:300], stream[300:400], stream[400:])]
    _check(_cine(tmp_path, encapsulated(parts, table)))


@pytest.mark.parametrize("count", [None, 0, 4])
def test_a_missing_number_of_frames_is_counted(tmp_path: Path, count: int | None) -> None:
    is_told = count != 4
    for path in (_cine(tmp_path, encapsulated(STREAMS), count=count), _native(tmp_path, 4, count)):
        notes = _check(path)
        assert any("does not say its Number of Frames: 4" in note for note in notes) == is_told


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_frames_are_counted_in_every_syntax(tmp_path: Path, syntax: str) -> None:
    dataset = ultrasound(FRAMES, syntax=syntax)
    del dataset.NumberOfFrames
    _check(save(dataset, tmp_path / "cine.dcm"), atol=0.01)


def test_one_frame_in_the_class_of_cines_is_one(tmp_path: Path) -> None:
    for count in (None, 0, 1):
        path = _native(tmp_path, 1, count)
        assert count_frames(path) == 1
        np.testing.assert_array_equal(read_image(path).pixels, FRAMES[0])


def test_the_whole_frames_of_a_cine_that_was_cut_short_are_read(tmp_path: Path) -> None:
    whole = _cine(tmp_path, encapsulated(STREAMS)).read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[: len(whole) - len(STREAMS[3]) // 2])
    paths = [
        path,
        _cine(tmp_path / "stopped", encapsulated(STREAMS[:3])),
        _native(tmp_path / "plain", 3, 4),
        _native(tmp_path / "torn", 3, 4, extra=bytes(500)),
    ]
    for path in paths:
        assert any("holds 3 whole frames of the 4" in note for note in _check(path, 3))


@pytest.mark.parametrize(
    "elements",
    [
        {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
    ],
    ids=["bits", "samples"],
)
def test_a_cine_whose_header_doubles_its_bytes_is_not_a_short_one(tmp_path: Path, elements: dict[str, Any]) -> None:
    path = save(ultrasound(FRAMES * 3, **elements), tmp_path / "cine.dcm")
    with pytest.raises(InputError, match="holds all of its 12 frames at 1"):
        read_image(path, 1)


def test_a_colour_cine_cut_to_a_third_is_a_short_one(tmp_path: Path) -> None:
    dataset = ultrasound([*FRAMES[:3]] * 2, "RGB")
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 3]
    path = save(dataset, tmp_path / "cine.dcm")
    assert count_frames(path) == 2
    np.testing.assert_array_equal(read_image(path, 1).pixels, FRAMES[1])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 0, 0, 0], [0, 2, 1, 3]])
def test_an_extended_offset_table_is_looked_at_likewise(tmp_path: Path, order: list[int]) -> None:
    data, offsets, lengths = encapsulate_extended(STREAMS)
    table = np.frombuffer(offsets, "<u8")[order].tobytes()
    path = _cine(tmp_path, data, ExtendedOffsetTable=table, ExtendedOffsetTableLengths=lengths)
    assert any("offset table is wrong" in note for note in _check(path)) == (order != sorted(set(order)))


def test_frames_cut_inside_their_fragments_do_not_count(tmp_path: Path) -> None:
    parts = [part for stream in STREAMS for part in (stream[:300], stream[300:])]
    whole = _cine(tmp_path, encapsulated(parts, [])).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-50])
    _check(tmp_path / "cut.dcm", 3)


@pytest.mark.parametrize("count", [1, 2])
def test_more_frames_than_the_header_says_are_refused(tmp_path: Path, count: int) -> None:
    for path in (_cine(tmp_path, encapsulated(STREAMS), count=count), _native(tmp_path, 4, count)):
        with pytest.raises(InputError, match=rf"claims {count} frames? and holds .*4"):
            read_image(path, 0)


def test_several_frames_in_the_class_of_single_images_need_a_count(tmp_path: Path) -> None:
    _check(_native(tmp_path, 4, 4, US_IMAGE))
    for path in (
        _native(tmp_path, 4, None, US_IMAGE),
        _cine(tmp_path, encapsulated(STREAMS), count=None, SOPClassUID=US_IMAGE),
    ):
        with pytest.raises(InputError, match=r"class of single images, says no Number of Frames and holds 4"):
            read_image(path, 0)


def test_bytes_that_the_header_does_not_explain_are_told(tmp_path: Path) -> None:
    assert read_image(_native(tmp_path, 1, 1), 0).warnings == ()
    notes = read_image(_native(tmp_path, 1, 1, extra=bytes(100)), 0).warnings
    assert "holds 100 bytes more than its header claims" in notes[0]


def test_a_transfer_syntax_that_its_pixels_contradict_is_refused(tmp_path: Path) -> None:
    encoded = _cine(tmp_path, encapsulated(STREAMS))
    encoded.write_bytes(encoded.read_bytes().replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.1\0\0\0"))
    for path in (encoded, _cine(tmp_path / "defined", encapsulated(STREAMS), ExplicitVRLittleEndian)):
        with pytest.raises(InputError, match="in fragments, as compressed ones are"):
            read_image(path, 0)
    data = save(ultrasound(FRAMES), tmp_path / "plain.dcm").read_bytes()
    changed = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    (tmp_path / "a.dcm").write_bytes(changed)
    with pytest.raises(InputError, match="its pixels are not in fragments"):
        read_image(tmp_path / "a.dcm", 0)
    with pytest.raises(InputError, match="begins no picture of its transfer syntax"):
        read_image(_cine(tmp_path, encapsulated([b"\x01\x02" * 300] * 4)), 0)


def test_streams_without_a_jfif_marker_begin_frames_too(tmp_path: Path) -> None:
    _check(_cine(tmp_path, encapsulated([even(without_jfif(stream)) for stream in STREAMS], [])))


def test_an_empty_fragment_is_no_frame(tmp_path: Path) -> None:
    data = encapsulated([STREAMS[0], b"", *STREAMS[1:]], [])
    assert struct.pack("<HHL", 0xFFFE, 0xE000, 0) in data
    _check(_cine(tmp_path, data))
