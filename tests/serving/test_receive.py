# SPDX-License-Identifier: Apache-2.0
"""Claims about who may send what to the node, and the status that everything else is answered with."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from node_lab import Archive, scan, send, statuses, wait_for
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEGBaseline8Bit, generate_uid
from pynetdicom import AE, build_context

from bundle.errors import UserError
from bundle.outputs.dicom import MODEL_NAME
from bundle.serving.node import Node
from bundle.serving.receive import CLASSES, SYNTAXES, Sender
from tests.readers.fabricate import segmentation, ultrasound

Start = Callable[..., Node]
VIDEO = "1.2.840.10008.1.2.4.102"
RETIRED = ("1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3")


def _kept(node: Node) -> int:
    return (node.queue.one("select count(*) from images") or (0,))[0]


def _notes(node: Node, kind: str) -> str:
    return "; ".join(reason for (reason,) in node.queue.all("select reason from notes where kind = ?", kind))


def test_only_callers_on_the_list_may_open_an_association(start_node: Start) -> None:
    allowed = (Sender.parse("SCANNER@127.0.0.0/8"), Sender.parse("ELSEWHERE@10.0.0.1"))
    node = start_node(senders=allowed)
    assert statuses(send(node.port, scan())) == [0x0000]
    assert send(node.port, scan(), ae_title="STRANGER") == []
    assert send(node.port, scan(), ae_title="ELSEWHERE") == []
    assert send(node.port, scan(), called="OTHER_NODE") == []
    assert _kept(node) == 1
    assert "not allowed" in _notes(node, "refused")


@pytest.mark.parametrize("text", ["", "@10.0.0.1", "TOO_LONG_AN_AE_TITLE", "PACS@somewhere", "PACS@10.0.0.300"])
def test_a_malformed_entry_of_the_list_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        Sender.parse(text)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: scan(Modality="MG"), "another class or modality"),
        (lambda: segmentation([scan().pixel_array > 100]), "another class or modality"),
        (lambda: scan(ManufacturerModelName=MODEL_NAME), "an object of this software"),
    ],
)
def test_what_is_none_of_ours_to_predict_is_taken_and_passed_over(start_node: Start, make: Any, kind: str) -> None:
    node = start_node()
    assert statuses(send(node.port, make())) == [0x0000]
    assert _kept(node) == 0
    assert kind in _notes(node, "passed over")
    assert not list(node.incoming.iterdir())


@pytest.mark.parametrize(
    ("make", "changes", "status", "comment"),
    [
        (lambda: scan(), {"max_bytes": 2000}, 0xA700, "larger than the limit"),
        (lambda: scan(), {"keep_free": 1 << 60}, 0xA700, "disk is full"),
        (lambda: scan(Rows=0), {}, 0xC000, "claims 0 rows"),
        (lambda: scan(NumberOfFrames=2_000_000), {}, 0xC000, "frames, more than the limit"),
        (lambda: scan(StudyInstanceUID=None), {}, 0xC000, "Study Instance UID"),
    ],
)
def test_a_refusal_has_its_status_and_says_why(
    start_node: Start, make: Any, changes: dict[str, Any], status: int, comment: str
) -> None:
    node = start_node(**changes)
    (answer,) = send(node.port, make())
    assert answer.Status == status
    assert comment in answer.ErrorComment
    assert len(answer.ErrorComment) <= 64
    assert comment in _notes(node, "refused")
    assert _kept(node) == 0
    assert not list(node.incoming.iterdir())
    assert not list(node.queue.received.iterdir())


def test_a_class_that_differs_from_the_one_that_was_announced_is_refused(start_node: Start) -> None:
    node = start_node()
    ae = AE("SCANNER")
    ae.add_requested_context(RETIRED[0], "1.2.840.10008.1.2.1")
    association = ae.associate("127.0.0.1", node.port, ae_title="BUS_NODE")
    image = scan()
    stream = _encoded(image)
    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(RETIRED[0]), image.SOPInstanceUID
    request.DataSet = stream
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, 1)
    _, answer = association.dimse.get_msg(block=True)
    association.release()
    assert answer.Status == 0xA900


def _encoded(image: Dataset) -> Any:
    from io import BytesIO

    from pynetdicom.dsutils import encode

    return BytesIO(encode(image, False, True) or b"")


def test_one_image_too_large_leaves_the_rest_of_its_association_alone(start_node: Start) -> None:
    node = start_node(max_bytes=50_000)
    large = ultrasound(scan().pixel_array.repeat(10, 0).repeat(10, 1))
    assert statuses(send(node.port, scan(), large, scan())) == [0x0000, 0xA700, 0x0000]
    assert _kept(node) == 2


def test_the_same_uid_under_another_patient_is_refused(start_node: Start) -> None:
    node = start_node()
    uid = generate_uid()
    study, series = generate_uid(), generate_uid()
    same = {"SOPInstanceUID": uid, "StudyInstanceUID": study, "SeriesInstanceUID": series}
    assert statuses(send(node.port, scan(**same), scan(**same, PatientID="P-0002"))) == [0x0000, 0x0111]


def test_an_error_of_the_node_has_a_chosen_status_and_the_next_image_is_taken(
    start_node: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start_node()
    with monkeypatch.context() as patch:
        patch.setattr(node.receiver, "_judge", lambda *_: 1 / 0)
        assert statuses(send(node.port, scan())) == [0xC000]
        patch.setattr(node.receiver, "_store", lambda *_: 1 / 0)
        assert statuses(send(node.port, scan())) == [0x0110]
    assert statuses(send(node.port, scan())) == [0x0000]


def test_more_associations_than_allowed_are_rejected(start_node: Start) -> None:
    node = start_node(max_associations=2)
    ae = AE("SCANNER")
    ae.add_requested_context("1.2.840.10008.1.1")
    open_ = [ae.associate("127.0.0.1", node.port, ae_title="BUS_NODE") for _ in range(3)]
    assert [association.is_established for association in open_] == [True, True, False]
    for association in open_[:2]:
        association.release()


def test_every_class_of_storage_and_every_syntax_is_negotiated(start_node: Start) -> None:
    node = start_node()
    accepted = set()
    for start in range(0, len(CLASSES), 100):
        ae = AE("SCANNER")
        for uid in CLASSES[start : start + 100]:
            ae.add_requested_context(uid, "1.2.840.10008.1.2")
        association = ae.associate("127.0.0.1", node.port, ae_title="BUS_NODE")
        accepted |= {context.abstract_syntax for context in association.accepted_contexts}
        association.release()
    assert accepted == set(CLASSES)
    assert {*RETIRED, "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.11.1"} <= accepted
    contexts = [build_context("1.2.840.10008.5.1.4.1.1.3.1", syntax) for syntax in SYNTAXES]
    association = AE("SCANNER").associate("127.0.0.1", node.port, contexts, ae_title="BUS_NODE")
    assert len(association.accepted_contexts) == len(SYNTAXES)
    association.release()
    assert {JPEGBaseline8Bit, VIDEO} <= set(SYNTAXES)


def test_an_image_of_a_retired_class_is_answered(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sc",))
    image = scan(SOPClassUID=UID(RETIRED[0]))
    assert statuses(send(node.port, image)) == [0x0000]
    wait_for(lambda: archive.of(image))


def test_video_is_taken_with_the_rest_of_its_study(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sr",))
    video = ultrasound([scan().pixel_array] * 2)
    video.file_meta.TransferSyntaxUID = UID(VIDEO)
    from pydicom.encaps import encapsulate

    video.PixelData = encapsulate([b"\0" * 64])
    video["PixelData"].VR = "OB"
    still = scan()
    assert statuses(send(node.port, video, still)) == [0x0000] * 2
    wait_for(lambda: archive.of(still))


@pytest.mark.parametrize("call", ["open", "write"])
def test_an_image_that_the_full_disk_does_not_take_is_answered_and_the_next_one_kept(
    start_node: Start, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    node = start_node()
    calls = iter([True, False])  # the first image fails at the first call
    do = getattr(os, call)

    def full(*arguments: Any) -> Any:
        if next(calls, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        return do(*arguments)

    # In place of the module, which other threads use too.
    monkeypatch.setattr("bundle.serving.incoming.os", SimpleNamespace(**{**vars(os), call: full}))
    answers = send(node.port, scan(), scan())
    monkeypatch.undo()
    assert statuses(answers) == [0xA700, 0x0000]
    assert answers[0].ErrorComment == "the node's disk is full"
    assert _kept(node) == 1
    wait_for(lambda: not list(node.incoming.iterdir()))


def test_what_came_of_an_object_whose_sender_went_away_is_deleted(start_node: Start) -> None:
    node = start_node()
    ae = AE("SCANNER")
    ae.add_requested_context("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.1.2.1")
    association = ae.associate("127.0.0.1", node.port, ae_title="BUS_NODE")
    command = _command(scan())
    raw = association.dul.socket.socket
    raw.sendall(_pdata(1, 0x03, command))
    raw.sendall(_pdata(1, 0x00, b"\0" * 1000))
    wait_for(lambda: list(node.incoming.iterdir()))
    raw.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: not list(node.incoming.iterdir()))
    association.abort()
    assert _kept(node) == 0


def _pdata(context: int, header: int, data: bytes) -> bytes:
    """A P-DATA-TF PDU of one fragment (PS3.8 9.3.5)."""
    item = struct.pack(">LBB", len(data) + 2, context, header) + data
    return struct.pack(">BBL", 4, 0, len(item)) + item


def _command(image: Dataset) -> bytes:
    from pynetdicom.dsutils import encode

    command = Dataset()
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 0x0001, 1, 2, 0x0001
    body = encode(command, True, True) or b""
    group = Dataset()
    group.CommandGroupLength = len(body)
    return (encode(group, True, True) or b"") + body


def test_files_that_got_no_success_are_gone_after_a_start(start_node: Start, tmp_path: Path) -> None:
    node = start_node()
    orphan, part = node.queue.path("1.2.3"), node.incoming / "tmp.dcm"
    node.stop()
    orphan.write_bytes(b"x")
    part.write_bytes(b"x")
    start_node()
    assert not orphan.exists()
    assert not part.exists()
