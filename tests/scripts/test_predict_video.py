# SPDX-License-Identifier: Apache-2.0
"""Claims about scripts/predict.py on video: clips, DICOM video and what cannot be decoded, side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import dcmread

from bundle.data.phantom import make_phantom
from bundle.readers import video_process
from scripts.predict import main
from tests.readers.clips import encode, video_dicom
from tests.readers.fabricate import save

SIZE = (192, 160)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, a DICOM video of the same frames, and a clip whose index is missing."""
    folder = tmp_path_factory.mktemp("ward")
    make_phantom(folder / "phantom", counts={"malignant": 4})
    names = sorted((folder / "phantom" / "malignant").glob("*[0-9]).png"))
    frames = [cv2.resize(cv2.imread(str(name), cv2.IMREAD_GRAYSCALE), SIZE) for name in names]
    shutil.rmtree(folder / "phantom")
    frames = [frame for frame in frames for _ in range(3)]
    encode(folder / "sub.mp4", frames).rename(folder / "clip.mp4")
    stream = encode(folder / "cine.ts", frames).read_bytes()
    (folder / "cine.ts").unlink()
    save(video_dicom(stream, "1.2.840.10008.1.2.4.100", 12, Rows=SIZE[1], Columns=SIZE[0]), folder / "cine.dcm")
    (folder / "torn.mov").write_bytes((folder / "clip.mp4").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def predicted(ward: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("predicted")
    outputs = ("png", "overlay", "seg", "sr", "pr", "sc", "json", "csv", "html")
    code = main(
        [str(ward), "--models", str(tiny_models), "--output", str(folder), "--device", "cpu", "--write", *outputs]
    )
    return folder, code


def _content(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "findings.json").read_text()))


def test_video_is_predicted_as_other_cines_are_and_bad_ones_are_told(predicted: tuple[Path, int]) -> None:
    folder, code = predicted
    assert code == 3
    content = _content(folder)
    assert {(cine["file"], cine["frames"], cine["looked_at"]) for cine in content["cines"]} == {
        ("clip.mp4", 12, 12),
        ("cine.dcm", 12, 12),
    }
    (bad,) = content["skipped"]
    assert bad["path"] == "torn.mov"
    assert "is no readable video" in bad["reason"]
    assert "moov atom not found" in bad["reason"]


def test_frames_of_a_dicom_video_have_sr_pr_and_sc_and_no_seg(predicted: tuple[Path, int]) -> None:
    folder, _ = predicted
    for kind in ("sr", "pr", "sc"):
        written = dcmread(folder / kind / f"cine.dcm.frame7.{kind}.dcm")
        numbers = {int(each.value) for each in written.iterall() if each.keyword == "ReferencedFrameNumber"}
        assert numbers == {8}
    assert not (folder / "seg").exists()
    reasons = [entry["reason"] for entry in _content(folder)["not_written"] if "cine.dcm.frame7.png" in entry["images"]]
    assert len(reasons) == 1
    assert "frame of reference" in reasons[0]


def test_the_frames_of_both_containers_give_about_one_finding(predicted: tuple[Path, int]) -> None:
    """The codecs lose differently, so the masks agree but for their borders."""
    folder, _ = predicted
    for frame in (0, 6):
        masks = [
            cv2.imread(str(folder / "masks" / f"{name}.frame{frame}.png"), cv2.IMREAD_GRAYSCALE) > 0
            for name in ("clip.mp4", "cine.dcm")
        ]
        assert np.mean(masks[0] != masks[1]) < 0.1


def test_a_clip_that_is_refused_alone_is_one_line_and_code_2(
    ward: Path, tiny_models: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_process, "MAX_VIDEO_FRAMES", 5)
    assert main([str(ward / "clip.mp4"), "--models", str(tiny_models), "--device", "cpu"]) == 2
    told = capfd.readouterr().err
    assert "clip.mp4: claims 12 frames, more than the limit of 5; cut it into shorter clips" in told
    assert "Traceback" not in told
