# SPDX-License-Identifier: Apache-2.0
"""Claims about the node as a whole, with pynetdicom on both sides and the real predictor."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from node_lab import Archive, scan, send, statuses, wait_for
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from bundle.errors import InputError, UserError
from bundle.finding import Finding
from bundle.prediction.predictor import Predictor
from bundle.serving.node import Node, Settings
from bundle.serving.queue import Image as QueuedImage
from bundle.serving.queue import Queue
from bundle.serving.targets import FolderTarget
from scripts import dicom_node
from tests.readers.clips import encode, video_dicom
from tests.readers.fabricate import ultrasound

Start = Callable[..., Node]


def _settle(node: Node) -> None:
    """Wait until no image waits to be predicted and no answer to be sent."""
    wait_for(lambda: not node.queue.one("select 1 from images where state = 'waiting'"))
    wait_for(lambda: not node.queue.one("select 1 from deliveries where state = 'waiting'"))


def test_each_image_is_answered_with_the_chosen_objects(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("seg", "sr", "sc"))
    images = [scan(number) for number in range(3)]
    assert statuses(send(node.port, *images)) == [0x0000] * 3
    _settle(node)
    for image in images:
        assert sorted(answer.Modality for answer in archive.of(image)) == ["OT", "SEG", "SR"]
        assert {answer.StudyInstanceUID for answer in archive.of(image)} == {image.StudyInstanceUID}


def test_an_image_that_is_sent_again_is_not_answered_again(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sr",))
    image = scan()
    for _ in range(2):
        assert statuses(send(node.port, image, image)) == [0x0000] * 2
        _settle(node)
    assert len(archive.objects) == 1


def test_a_cine_is_answered_once_by_its_most_suspicious_frame(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sr",))
    cine = ultrasound([scan(number).pixel_array for number in range(4)])
    assert statuses(send(node.port, cine)) == [0x0000]
    _settle(node)
    assert len(archive.of(cine)) == 1


def test_a_video_is_answered_by_its_most_suspicious_frame_and_a_seg_of_it_is_refused(
    start_node: Start, archive: Archive, tmp_path: Path
) -> None:
    frames = [cv2.resize(scan(number).pixel_array, (128, 96)) for number in range(6)]
    stream = encode(tmp_path / "cine.ts", frames).read_bytes()
    video = video_dicom(stream, "1.2.840.10008.1.2.4.102", frames=6)
    node = start_node(outputs=("seg", "sr", "pr"))
    assert statuses(send(node.port, video)) == [0x0000]
    _settle(node)
    assert sorted(answer.Modality for answer in archive.of(video)) == ["PR", "SR"]
    assert "no seg: a SEG of one frame among several" in str(node.queue.one("select reason from images"))


def test_a_video_that_cannot_be_decoded_is_told_and_the_node_goes_on(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sr",))
    images = [video_dicom(b"no video" * 100, "1.2.840.10008.1.2.4.107"), scan()]
    assert statuses(send(node.port, *images)) == [0x0000] * 2
    _settle(node)
    assert [len(archive.of(image)) for image in images] == [0, 1]
    assert node.queue.one("select reason from images where state = 'failed'") == ("is no readable video",)


def test_what_was_received_and_answered_before_a_stop_goes_on_after_it(
    start_node: Start, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.stop()
    node = start_node(outputs=("sr",))
    images = [scan(number) for number in range(3)]
    send(node.port, images[0])
    wait_for(lambda: node.queue.one("select 1 from answers"))
    monkeypatch.setattr(node.worker, "round", lambda: False)
    send(node.port, *images[1:])
    made = node.queue.one("select uid from answers")
    node.stop()
    archive.start()
    _settle(start_node(outputs=("sr",)))
    assert [len(archive.of(image)) for image in images] == [1, 1, 1]
    assert [archive.of(images[0])[0].SOPInstanceUID] == list(made or ())


def test_answers_that_were_on_the_disk_before_a_kill_are_those_that_are_sent(
    start_node: Start, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the node were killed after the answers' record and before the queue knows of them.
    finish = Queue.finish

    def killed(*_: Any) -> None:
        raise InputError("queue", "killed", "start again")

    monkeypatch.setattr(Queue, "finish", killed)
    node = start_node(outputs=("sr",))
    image = scan()
    send(node.port, image)
    (file,) = wait_for(lambda: list((tmp_path / "node" / "answers" / "sr").glob("*.dcm")))
    node.stop()
    written = dcmread(file).SOPInstanceUID
    monkeypatch.setattr(Queue, "finish", finish)
    _settle(start_node(outputs=("sr",)))
    assert [answer.SOPInstanceUID for answer in archive.objects] == [written]


def test_an_image_that_breaks_the_predictor_keeps_no_other_from_its_answer(
    start_node: Start, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Predictor.predict
    bad = scan(7)
    darkest = float(np.mean(bad.pixel_array))

    def breaks(predictor: Predictor, image: Any, *more: Any) -> Finding:
        if abs(float(np.mean(image.pixels)) - darkest) < 1e-3:
            raise RuntimeError("a fault of the network")
        return predict(predictor, image, *more)

    monkeypatch.setattr(Predictor, "predict", breaks)
    node = start_node(outputs=("sr",))
    others = [scan(number) for number in range(3)]
    send(node.port, others[0], bad, *others[1:])
    _settle(node)
    assert [len(archive.of(image)) for image in (*others, bad)] == [1, 1, 1, 0]
    state, reason = node.queue.one("select state, reason from images where uid = ?", str(bad.SOPInstanceUID)) or (
        "",
        "",
    )
    assert state == "failed"
    assert "an error of the node" in reason


def test_an_image_without_readable_pixels_is_told_of_and_has_no_answer(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sr",))
    image = scan()
    image.PixelData = image.PixelData[:100]
    assert statuses(send(node.port, image)) == [0x0000]
    _settle(node)
    assert not archive.objects
    assert node.queue.one("select state from images") == ("failed",)


def test_an_image_that_the_node_ended_with_waits_behind_the_others_and_is_never_given_up(tmp_path: Path) -> None:
    for _ in range(8):
        queue = Queue(tmp_path, ["peer"])
        if not queue.one("select 1 from images"):
            for uid in ("1.1", "1.2"):
                queue.path(uid).write_bytes(b"x")
                queue.add(QueuedImage(uid, "1", "", ""))
        queue.write("update images set next_try = 0, begun = (uid = '1.1')")
        queue.close()
    queue = Queue(tmp_path, ["peer"])
    assert queue.take(9) == ["1.2"]
    assert queue.take(9) == ["1.2"]
    state, reason, wait = queue.one("select state, reason, next_try from images where uid = '1.1'") or ("", "", 0)
    assert state == "waiting"
    assert "ended 8 times" in reason
    assert wait > time.time()
    queue.write("update images set next_try = 0, state = iif(uid = '1.2', 'answered', state)")
    assert queue.take(9) == ["1.1"]
    queue.close()


def test_a_folder_gets_the_answers_under_their_study(start_node: Start, tmp_path: Path) -> None:
    node = start_node(outputs=("seg", "sr"), targets=(FolderTarget(tmp_path / "out"),))
    image = scan()
    send(node.port, image)
    _settle(node)
    files = sorted((tmp_path / "out" / image.StudyInstanceUID).iterdir())
    assert sorted(dcmread(file).Modality for file in files) == ["SEG", "SR"]
    assert all(file.name == f"{dcmread(file).SOPInstanceUID}.dcm" for file in files)


def test_the_node_answers_an_echo(start_node: Start) -> None:
    ae = AE("SCANNER")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", start_node().port, ae_title="BUS_NODE")
    assert association.send_c_echo().Status == 0x0000
    association.release()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"targets": ()}, "nobody gets the answers"),
        ({"host": "0.0.0.0"}, "needs a list of who may send"),
    ],
)
def test_settings_that_must_not_be_are_refused(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    settings = Settings(**{"folder": tmp_path, "ae_title": "A", "targets": (FolderTarget(tmp_path),), **changes})
    with pytest.raises(UserError, match=part):
        settings.check()


@pytest.mark.parametrize(
    "words",
    [
        *(("--port", "99999"), ("--status-port", "-1"), ("--days", "-1"), ("--days", "nan"), ("--quiet", "inf")),
        *(("--max-associations", "0"), ("--max-megabytes", "0"), ("--keep-free-gigabytes", "-2"), ("--commit", "x")),
    ],
    ids=" ".join,
)
def test_a_number_that_cannot_be_is_one_line(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        dicom_node.main(["--folder", str(tmp_path / "node"), "--deliver-to", str(tmp_path), *words])
    assert stopped.value.code == 2
    assert f"argument {words[0]}" in capsys.readouterr().err
    assert not (tmp_path / "node").exists()
