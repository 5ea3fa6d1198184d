# SPDX-License-Identifier: Apache-2.0
"""Claims about video: frames are counted by decoding, the decoder is a limited process, and its end is one line."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bundle.errors import InputError
from bundle.readers import CLIP, count_frames, kind_of, read_image, read_mask, video, video_process
from bundle.readers.dicom import opened
from bundle.readers.dicom_video import is_video, locate_stream
from bundle.readers.video_process import DecoderLimits
from tests.readers.clips import (
    HEIGHT,
    WIDTH,
    encode,
    hide_first_frames,
    number_of,
    numbered,
    turn_clockwise,
    video_dicom,
)
from tests.readers.fabricate import US_IMAGE, region, save

MPEG2, H264, HEVC = (f"1.2.840.10008.1.2.4.{kind}" for kind in (100, 102, 107))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that tests only read: it is counted once."""
    return encode(tmp_path_factory.mktemp("shared") / "clip.mp4")


@pytest.fixture
def clip(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(shared, tmp_path / "clip.mp4"))


@pytest.fixture(scope="module")
def mpeg2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same frames as program stream and as transport stream of MPEG-2."""
    folder = tmp_path_factory.mktemp("mpeg2")
    return {suffix: encode(folder / f"a{suffix}").read_bytes() for suffix in (".mpg", ".ts")}


def _numbers(path: Path | str, frames: range) -> list[int]:
    return [number_of(read_image(path, number, frames).pixels) for number in frames]


def _refusal(path: Path, frame: int | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read_image(path, frame)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm"])
def test_a_clip_gives_each_frame_in_its_place(suffix: str, tmp_path: Path) -> None:
    path = encode(tmp_path / f"clip{suffix}")
    assert kind_of(path) == CLIP
    assert count_frames(path) == 30
    assert _numbers(path, range(0, 30, 7)) == [0, 7, 14, 21, 28]
    image = read_image(path, 5)
    assert (image.frame, image.frames, image.spacing_mm, image.region, image.warnings) == (5, 30, None, None, ())
    assert np.abs(image.pixels - numbered(5)).mean() < 4


def test_the_content_tells_a_clip_and_its_name_does_not(clip: Path, tmp_path: Path) -> None:
    assert count_frames(clip.rename(tmp_path / "clip.png")) == 30
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    assert "is no readable" in _refusal(tmp_path / "list.mp4").reason
    with pytest.raises(InputError, match="is a video, not a mask"):
        read_mask(tmp_path / "clip.png")


def test_frames_are_counted_by_decoding_where_an_edit_list_hides_some(clip: Path) -> None:
    hide_first_frames(clip, 7)
    assert count_frames(clip) == 23
    image = read_image(clip, 0)
    assert number_of(image.pixels) == 7
    assert image.warnings == (
        "its header counts 30 frames and 23 are decoded: an edit list hides the others, or they are damaged",
    )


def test_a_clip_that_lies_on_its_side_is_turned(clip: Path) -> None:
    turn_clockwise(clip)
    pixels = read_image(clip, 5).pixels
    assert pixels.shape == (WIDTH, HEIGHT)
    assert number_of(np.rot90(pixels)) == 5


def test_frames_asked_for_out_of_order_and_by_several_threads_are_the_same(shared: Path) -> None:
    assert [number_of(read_image(shared, number).pixels) for number in (20, 3, 3, 29, 0)] == [20, 3, 3, 29, 0]
    wanted = range(0, 30, 2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: number_of(read_image(shared, number, wanted).pixels), wanted))
    assert found == list(wanted)


def test_frames_in_order_are_decoded_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ask = video_process.Decoder._ask
    monkeypatch.setattr(
        video_process.Decoder, "_ask", lambda self, number, *rest: asked.append(number) or ask(self, number, *rest)
    )
    assert _numbers(clip, range(0, 30, 10)) == [0, 10, 20]
    assert asked == [video_process.COUNT, 0, 10, 20]


def test_a_frame_that_is_not_there_and_none_named_are_told(shared: Path) -> None:
    assert _refusal(shared, 30).reason == "has no frame 30"
    assert _refusal(shared).reason == "holds 30 frames, not one image"
    assert number_of(read_image(f"{shared}[4]").pixels) == 4


def test_a_clip_of_one_frame_is_an_image(tmp_path: Path) -> None:
    image = read_image(encode(tmp_path / "a.mp4", 1))
    assert (image.frame, image.frames) == (None, 1)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_truncated_clip_gives_the_frames_it_has_with_a_warning(suffix: str, tmp_path: Path) -> None:
    path = encode(tmp_path / f"clip{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    frames = count_frames(path)
    assert 5 < frames < 25
    assert _numbers(path, range(frames)) == list(range(frames))
    assert any("cut short: its last frames are missing" in note for note in read_image(path, 0).warnings)


def test_a_clip_without_its_index_or_frames_is_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:800])
    assert "is no readable video (moov atom not found)" in _refusal(tmp_path / "cut.mp4").reason
    (tmp_path / "empty.avi").write_bytes(b"RIFF\x04\0\0\0AVI ")
    assert "is no readable video" in _refusal(tmp_path / "empty.avi").reason


def test_a_damaged_stream_is_told(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.avi")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(value ^ 0x5A for value in data[middle : middle + 40])
    path.write_bytes(data)
    notes = read_image(path, 0).warnings
    assert any("its decoder complains" in note or "are decoded" in note for note in notes)


def test_a_codec_that_is_not_on_the_list_is_refused(tmp_path: Path) -> None:
    assert "coded as ffv1, which is not read" in _refusal(encode(tmp_path / "a.mkv", 3, "FFV1")).reason


# DICOM


@pytest.mark.parametrize(("suffix", "parts"), [(".mpg", 30), (".ts", 1)])
def test_the_stream_of_a_dicom_video_is_its_fragments_joined(
    suffix: str, parts: int, mpeg2: dict[str, bytes], tmp_path: Path
) -> None:
    """With 30 fragments for 30 frames, slices of the stream would pass for frames."""
    path = save(video_dicom(mpeg2[suffix], MPEG2, parts=parts), tmp_path / "cine.dcm")
    assert count_frames(path) == 30
    assert _numbers(path, range(0, 30, 6)) == [0, 6, 12, 18, 24]
    assert read_image(path, 3).warnings == ()


def test_every_video_transfer_syntax_is_read(mpeg2: dict[str, bytes], tmp_path: Path) -> None:
    """What the stream is, FFmpeg sees by itself; streams of H.264 and HEVC are tried by the slow tests."""
    for kind in (*range(100, 109), "100.1", "106.1"):
        path = save(video_dicom(mpeg2[".mpg"], f"1.2.840.10008.1.2.4.{kind}"), tmp_path / f"{kind}.dcm")
        with opened(path) as (header, content):
            assert is_video(header)
            stream, notes = locate_stream(str(path), header, content)
        assert b"".join(path.read_bytes()[start : start + length] for start, length in stream.parts) == mpeg2[".mpg"]
        assert ["stereo" in note for note in notes] == [True] * str(kind).startswith("106")


def test_region_and_millimetres_of_a_dicom_video_are_those_of_its_header(
    mpeg2: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = video_dicom(mpeg2[".mpg"], H264, SequenceOfUltrasoundRegions=[region(8, 16, 80, 100)])
    image = read_image(save(dataset, tmp_path / "cine.dcm"), 1)
    assert image.region == (8, 16, 80, 100)
    assert image.spacing_mm == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("claimed", "warning"),
    [
        (None, "does not say its Number of Frames: 30 are counted in it"),
        (50, "its header counts 50 frames and 30 are decoded"),
        (12, "its header counts 12 frames and 30 are decoded"),
    ],
)
def test_the_header_of_a_dicom_video_counts_no_frames(
    claimed: int | None, warning: str, mpeg2: dict[str, bytes], tmp_path: Path
) -> None:
    path = save(video_dicom(mpeg2[".ts"], MPEG2, claimed), tmp_path / "cine.dcm")
    assert count_frames(path) == 30
    assert read_image(path, 29).warnings == (warning,)


def test_a_truncated_dicom_video_gives_the_frames_it_has_with_a_warning(
    mpeg2: dict[str, bytes], tmp_path: Path
) -> None:
    path = save(video_dicom(mpeg2[".ts"], MPEG2), tmp_path / "cine.dcm")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    frames = count_frames(path)
    assert 1 < frames < 30
    assert "the file was cut short: its last frames are missing" in read_image(path, 0).warnings


def test_a_dicom_video_of_another_size_than_its_header_is_refused(mpeg2: dict[str, bytes], tmp_path: Path) -> None:
    path = save(video_dicom(mpeg2[".mpg"], MPEG2, Rows=100), tmp_path / "cine.dcm")
    assert _refusal(path, 0).reason == f"decodes to {HEIGHT}×{WIDTH} pixels, but its header says 100×{WIDTH}"


def test_a_video_in_the_class_of_single_images_is_read_with_a_warning(mpeg2: dict[str, bytes], tmp_path: Path) -> None:
    dataset = video_dicom(mpeg2[".mpg"], MPEG2)
    dataset.SOPClassUID = US_IMAGE
    notes = read_image(save(dataset, tmp_path / "cine.dcm"), 0).warnings
    assert notes == ("is of a class of single images and holds 30 frames",)


def test_a_dicom_video_that_is_none_is_refused(tmp_path: Path) -> None:
    path = save(video_dicom(b"no video at all" * 100, H264), tmp_path / "cine.dcm")
    assert "is no readable video" in _refusal(path, 0).reason
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    assert "is no readable video" in _refusal(save(video_dicom(playlist, H264), tmp_path / "list.dcm"), 0).reason


# Limits


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("MAX_VIDEO_BYTES", 1000, "larger than the limit of 0 MB"),
        ("MAX_VIDEO_FRAMES", 10, "claims 30 frames, more than the limit of 10"),
        ("MAX_VIDEO_SECONDS", 0.5, "claims 1 seconds, more than the limit of 0.5"),
        ("MAX_PIXELS", 1000, "96×128 pixels are more than the limit of 0.001 Mpx"),
    ],
)
def test_a_clip_above_a_limit_is_refused_before_it_is_decoded(
    name: str, value: float, reason: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video if hasattr(video, name) else video_process, name, value)
    assert reason in _refusal(clip, 0).reason


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("MAX_VIDEO_FRAMES", 10, "holds more frames than the limit of 10"),
        ("MAX_VIDEO_SECONDS", 0.5, "plays for longer than the limit of 0.5 seconds"),
    ],
)
def test_a_stream_that_claims_nothing_is_stopped_at_the_limit(
    name: str, value: float, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video if hasattr(video, name) else video_process, name, value)
    bare = encode(tmp_path / "bare.m2v", code="mpg2").read_bytes()
    path = save(video_dicom(bare, MPEG2), tmp_path / "cine.dcm")
    assert reason in _refusal(path, 0).reason


def test_a_decoder_that_may_use_little_memory_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "large.avi", [np.full((2048, 2048), 99, np.uint8)] * 2)
    monkeypatch.setattr(video, "LIMITS", DecoderLimits(memory=300 << 20))
    assert _refusal(path, 0).reason == "needs more memory than its decoder is allowed"
    monkeypatch.setattr(video, "LIMITS", DecoderLimits())
    assert read_image(path, 1).pixels.shape == (2048, 2048)


@pytest.fixture
def another_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in place of the decoder; tests write what it does."""
    script = tmp_path / "decoder.py"
    monkeypatch.setattr(video_process, "_SCRIPT", script)
    return script


@pytest.mark.parametrize(
    ("does", "limits", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", {}, "ended by signal SIGSEGV"),
        ("os.abort()", {}, "ended by signal SIGABRT"),
        ("time.sleep(60)", {"wall": 0.5}, "is not decoded within the limit of 0.5 seconds"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", {"cpu": 7}, "within the limit of 7 seconds of processor time"),
        ("sys.exit(3)", {}, "its decoder ended with code 3"),
        ("os.write(1, b'X' * 100); time.sleep(9)", {}, "its decoder gives no answer"),
        ("os.write(1, b'C')", {}, "its decoder ended with code 0"),
        ("os.write(1, b'C' + struct.pack('<4q', 0, 0, 0, 0)); time.sleep(9)", {}, "no frame of it can be decoded"),
    ],
)
def test_a_decoder_that_ends_or_lies_is_a_refusal_by_name(
    does: str,
    limits: dict[str, float],
    reason: str,
    clip: Path,
    another_decoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    another_decoder.write_text(
        f"import os, resource, signal, struct, sys, time\nresource.setrlimit(4, (0, 0))\n{does}\n"
    )
    monkeypatch.setattr(video, "LIMITS", DecoderLimits(**limits))
    assert reason in _refusal(clip, 0).reason


def test_a_frame_of_another_size_is_refused_before_its_pixels_are_read(clip: Path, another_decoder: Path) -> None:
    another_decoder.write_text(
        "import os, struct, time\n"
        "os.write(1, b'C' + struct.pack('<4q', 30, 30, 96, 128))\n"
        "os.write(1, b'F' + struct.pack('<III', 0, 2**31, 2**31)); time.sleep(9)\n"
    )
    assert "comes as 0 of 2147483648×2147483648 pixels, not 96×128 as the first" in _refusal(clip, 0).reason


def test_the_decoder_has_a_processor_limit_of_its_own(clip: Path, another_decoder: Path) -> None:
    """The real script, whose decoding is replaced by an endless loop: the kernel ends it."""
    shutil.copy(Path(video.__file__).with_name("video_decoder.py"), another_decoder)
    text = another_decoder.read_text()
    another_decoder.write_text(text.replace("capture = Capture(", "[*iter(int, 1)]\n            capture = Capture("))
    decoder = video_process.Decoder(video_process.Stream(str(clip), ((0, clip.stat().st_size),)), DecoderLimits(cpu=0))
    with pytest.raises(InputError, match="limit of 0 seconds of processor time"):
        decoder.count()


def test_the_decoder_can_open_no_other_file_and_sees_no_secret(
    clip: Path, another_decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOMWEB_TOKEN", "secret")
    text = Path(video.__file__).with_name("video_decoder.py").read_text()
    probe = (
        "raise RefusedError(f'{_probe()} {os.environ.get(str(\"DICOMWEB_TOKEN\"))}')\n            capture = Capture("
    )
    function = (
        "def _probe():\n    try:\n        open('/etc/hostname')\n    except OSError as error:\n"
        "        return error.strerror\n    return 'opened'\n\n\ndef main("
    )
    another_decoder.write_text(text.replace("capture = Capture(", probe).replace("def main(", function))
    assert "Too many open files None" in _refusal(clip, 0).reason


def test_a_forked_process_has_decoders_of_its_own(clip: Path) -> None:
    code = (
        "import os, sys\nfrom bundle.readers import read_image\nfrom tests.readers.clips import number_of\n"
        "read_image(sys.argv[1], 3)\nchild = os.fork()\n"
        "found = [number_of(read_image(sys.argv[1], n).pixels) for n in (4, 9, 2)]\n"
        "if not child: os._exit(found != [4, 9, 2])\n"
        "sys.exit(os.waitpid(child, 0)[1] or found != [4, 9, 2])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code, str(clip)], env=environment, timeout=60).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".webm", ".ts", ".mpg"])
def test_damaged_videos_are_read_or_refused_in_one_line(suffix: str, tmp_path: Path) -> None:
    """Whatever becomes of the decoder: damaged bytes, lost and doubled parts, cut ends; containers and streams."""
    frames = list(np.random.default_rng(0).integers(0, 255, (40, HEIGHT, WIDTH), np.uint8))  # more stream than header
    whole = encode(tmp_path / f"whole{suffix}", frames).read_bytes()
    read = 0
    for seed in range(15):
        data = _damage(bytearray(whole), random.Random(f"{suffix}{seed}"))
        path = tmp_path / f"{seed}{suffix}"
        if suffix in (".ts", ".mpg"):
            save(video_dicom(bytes(data), MPEG2, 40, parts=1 + seed % 3), path)
        else:
            path.write_bytes(data)
        with contextlib.suppress(InputError):
            count = count_frames(path)
            read += read_image(path, count - 1).frames == count
    assert read >= 2  # an MP4 file is lost once its index has moved


def _damage(data: bytearray, dice: random.Random) -> bytearray:
    for _ in range(dice.randint(1, 6)):
        place, length = dice.randrange(len(data)), dice.randint(1, 60)
        kind = dice.randrange(4)
        if kind == 0:
            data[place : place + length] = dice.randbytes(length)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length]
        else:
            data[place] ^= 1 << dice.randrange(8)
    return data[: dice.randint(len(data) // 2, len(data))] if dice.random() < 0.2 else data
