# SPDX-License-Identifier: Apache-2.0
"""Claims about H.264, HEVC and others, which OpenCV can not encode: PyAV does, in the environment of `make tools`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bundle.readers import count_frames, read_image
from tests.readers.clips import HEIGHT, RATE, WIDTH, number_of, numbered, video_dicom
from tests.readers.fabricate import save

pytestmark = pytest.mark.slow

FRAMES = 50
MPEG2, H264, HEVC, HEVC_10 = (f"1.2.840.10008.1.2.4.{kind}" for kind in (100, 102, 107, 108))

_ENCODE = f"""
import sys
import av

path, container, codec, pixels, *options = sys.argv[1:]
coder = [option[1:] for option in options if option[0] == "-"]
options = [option for option in options if option[0] != "-"]
data = sys.stdin.buffer.read()
with av.open(path, "w", format=container, options=dict(option.split("=") for option in options)) as output:
    stream = output.add_stream(codec, rate={RATE}, options={{"g": "12", **dict(more.split("=", 1) for more in coder)}})
    stream.width, stream.height, stream.pix_fmt = {WIDTH}, {HEIGHT}, pixels
    size = {HEIGHT * WIDTH}
    for start in range(0, len(data), size):
        frame = av.VideoFrame({WIDTH}, {HEIGHT}, "gray")
        plane = frame.planes[0]
        rows = b"".join(
            data[start + row * {WIDTH} :][:{WIDTH}].ljust(plane.line_size, b"\\0") for row in range({HEIGHT})
        )
        plane.update(rows)
        for packet in stream.encode(frame.reformat(format=pixels)):
            output.mux(packet)
    for packet in stream.encode():
        output.mux(packet)
"""


@pytest.fixture(scope="module")
def tools_python() -> str:
    python = Path(os.environ.get("TOOLS_PYTHON", Path(__file__).parents[2] / ".venv-tools" / "bin" / "python"))
    if not python.is_file() or subprocess.run([python, "-c", "import av"], capture_output=True).returncode:
        pytest.skip("PyAV, of requirements-tools.txt, is not installed; run make tools")
    return str(python)


def _encode(python: str, path: Path, container: str, codec: str, pixels: str = "yuv420p", *options: str) -> Path:
    data = b"".join(numbered(number).tobytes() for number in range(FRAMES))
    command = [python, "-c", _ENCODE, path, container, codec, pixels, *options]
    subprocess.run(command, input=data, check=True, capture_output=True, timeout=120)
    return path


def _check(path: Path, frames: int = FRAMES) -> None:
    assert count_frames(path) == frames
    wanted = range(0, frames, 9)
    images = [read_image(path, number, wanted) for number in wanted]
    assert [number_of(image.pixels) for image in images] == list(wanted)
    assert np.abs(images[1].pixels - numbered(9)).mean() < 6
    assert images[0].warnings == ()


@pytest.mark.parametrize(
    ("suffix", "container", "codec", "pixels"),
    [
        (".mp4", "mp4", "libx264", "yuv420p"),
        (".mov", "mov", "libx264", "yuvj420p"),
        (".mkv", "matroska", "libx264", "yuv444p"),
        (".mp4", "mp4", "libx265", "yuv420p"),
        (".mkv", "matroska", "libx265", "yuv420p10le"),
        (".webm", "webm", "libvpx-vp9", "yuv420p"),
        (".avi", "avi", "mpeg4", "yuv420p"),
        (".avi", "avi", "rawvideo", "bgr24"),
    ],
)
def test_clips_of_every_codec_that_is_named_are_read(
    suffix: str, container: str, codec: str, pixels: str, tools_python: str, tmp_path: Path
) -> None:
    _check(_encode(tools_python, tmp_path / f"clip{suffix}", container, codec, pixels))


@pytest.mark.parametrize(
    ("syntax", "container", "codec", "pixels"),
    [
        (MPEG2, "mpeg2video", "mpeg2video", "yuv420p"),
        (H264, "h264", "libx264", "yuv420p"),
        (H264, "mp4", "libx264", "yuv420p"),
        (H264, "mpegts", "libx264", "yuv420p"),
        (HEVC, "hevc", "libx265", "yuv420p"),
        (HEVC, "mpegts", "libx265", "yuv420p"),
        (HEVC_10, "mp4", "libx265", "yuv420p10le"),
    ],
)
def test_dicom_videos_are_read_bare_and_in_their_containers(
    syntax: str, container: str, codec: str, pixels: str, tools_python: str, tmp_path: Path
) -> None:
    stream = _encode(tools_python, tmp_path / "stream", container, codec, pixels).read_bytes()
    for parts in (1, FRAMES):
        _check(save(video_dicom(stream, syntax, FRAMES, parts), tmp_path / f"{parts}.dcm"))


@pytest.mark.parametrize("options", ["movflags=faststart", "movflags=frag_keyframe+empty_moov"])
def test_a_truncated_mp4_gives_the_frames_it_has(options: str, tools_python: str, tmp_path: Path) -> None:
    path = _encode(tools_python, tmp_path / "clip.mp4", "mp4", "libx264", "yuv420p", options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    frames = count_frames(path)
    assert 5 < frames < FRAMES
    notes = read_image(path, frames - 1).warnings
    assert any("cut short: its last frames are missing" in note for note in notes)
    assert number_of(read_image(path, 3).pixels) == 3


def test_a_codec_that_few_decode_is_refused(tools_python: str, tmp_path: Path) -> None:
    from bundle.errors import InputError

    with pytest.raises(InputError, match="coded as AV01, which is not read"):
        count_frames(_encode(tools_python, tmp_path / "a.webm", "webm", "libsvtav1"))


@pytest.mark.parametrize(
    ("syntax", "container", "codec", "option"),
    [
        (MPEG2, "mpeg2video", "mpeg2video", "-flags=+ildct+ilme"),
        (H264, "h264", "libx264", "-x264-params=tff=1:interlaced=1"),
    ],
)
def test_interlaced_video_is_refused_and_not_taken_for_black(
    syntax: str, container: str, codec: str, option: str, tools_python: str, tmp_path: Path
) -> None:
    from bundle.errors import InputError

    stream = _encode(tools_python, tmp_path / "stream", container, codec, "yuv420p", option).read_bytes()
    path = save(video_dicom(stream, syntax, FRAMES, 1), tmp_path / "scan.dcm")
    with pytest.raises(InputError, match="its frames are interlaced"):
        read_image(path, 9)
