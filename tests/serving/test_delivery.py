# SPDX-License-Identifier: Apache-2.0
"""Claims about peers that are down, refuse, or do not commit to what they took."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_lab import Archive, scan, send, statuses, wait_for
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from bundle.errors import InputError, UserError
from bundle.serving.node import Node
from bundle.serving.queue import Queue
from bundle.serving.targets import FolderTarget, Peer
from scripts import dicom_node

Start = Callable[..., Node]


def _waiting(node: Node) -> int:
    return (node.queue.one("select count(*) from deliveries where state = 'waiting'") or (0,))[0]


def test_answers_for_a_peer_that_is_down_are_kept_told_of_and_sent_later(start_node: Start, archive: Archive) -> None:
    archive.stop()
    node = start_node(outputs=("sr",))
    images = [scan(number) for number in range(2)]
    send(node.port, *images)
    wait_for(lambda: node.couriers[0].problem == "cannot be reached")
    wait_for(lambda: _waiting(node) == 2)
    archive.start()
    wait_for(lambda: not _waiting(node))
    assert [len(archive.of(image)) for image in images] == [1, 1]
    wait_for(lambda: node.couriers[0].problem == "")


def test_what_a_peer_refuses_is_sent_again_as_the_same_object(start_node: Start, archive: Archive) -> None:
    seen = []

    def refuse_thrice(dataset: Dataset) -> int:
        seen.append(str(dataset.SOPInstanceUID))
        return 0xA700 if len(seen) <= 3 else 0x0000

    archive.answer = refuse_thrice
    node = start_node(outputs=("sr",))
    send(node.port, scan())
    wait_for(lambda: node.queue.one("select 1 from deliveries where reason like '%0xA700%'"))
    wait_for(lambda: archive.objects)
    assert len(seen) == 4
    assert len(set(seen)) == 1
    wait_for(lambda: not _waiting(node))


@pytest.mark.parametrize("outputs", [("seg", "sr"), ("seg",)])
def test_a_class_that_a_peer_does_not_take_keeps_no_other_from_it(
    start_node: Start, archive: Archive, outputs: tuple[str, ...]
) -> None:
    archive.take_only("1.2.840.10008.5.1.4.1.1.88.33")
    node = start_node(outputs=outputs)
    send(node.port, scan())
    reason = wait_for(lambda: node.queue.one("select reason from deliveries where reason != ''"))
    wait_for(lambda: len(archive.objects) == len(outputs) - 1)
    assert reason == ("refuses objects of class 1.2.840.10008.5.1.4.1.1.66.4",)
    assert [answer.Modality for answer in archive.objects] == ["SR"][: len(outputs) - 1]
    wait_for(lambda: node.couriers[0].problem == "")


def test_no_answer_of_a_peer_is_lost_where_threads_are_held_up(
    start_node: Start, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine: a pause that is asked for comes too late, and whoever waits for an answer too."""

    class HeldUp(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            passed = super().wait(timeout)
            time.sleep(0.5)
            return passed

    make, send_message = Association.__init__, DIMSEServiceProvider.send_msg

    def make_held_up(association: Association, *arguments: Any, **named: Any) -> None:
        make(association, *arguments, **named)
        if association.is_requestor and association.ae.ae_title == "BUS_NODE":
            association._reactor_checkpoint = HeldUp()
            association._reactor_checkpoint.set()

    def send_and_wait(provider: DIMSEServiceProvider, *arguments: Any) -> None:
        send_message(provider, *arguments)
        if isinstance(provider.assoc._reactor_checkpoint, HeldUp):
            time.sleep(0.8)

    monkeypatch.setattr(Association, "__init__", make_held_up)
    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", send_and_wait)
    node = start_node(outputs=("seg", "sr", "pr"))
    send(node.port, scan())
    wait_for(lambda: len(archive.objects) >= 3 and not _waiting(node))
    assert len(archive.objects) == 3


def test_delivery_outlives_a_disk_that_is_full_for_a_while(
    start_node: Start, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundle.serving.delivery.WAIT_FOR_DISK", 0.05)
    is_full = threading.Event()
    transaction = Queue._transaction

    def fail(queue: Queue) -> Any:
        if is_full.is_set():
            raise InputError(queue.folder, "the node's queue cannot be used (disk is full)", "free space")
        return transaction(queue)

    def fill(_: Dataset) -> int:
        if not archive.objects:
            is_full.set()
        return 0x0000

    monkeypatch.setattr(Queue, "_transaction", fail)
    archive.answer = fill
    node = start_node(outputs=("seg", "sr"))
    image = scan()
    send(node.port, image)
    wait_for(lambda: node.couriers[0].problem == "waits until the node can write to its disk")
    archive.stop()  # what cannot be sent cannot be noted either
    node.couriers[0].wake.set()
    time.sleep(0.3)
    archive.start()
    is_full.clear()
    wait_for(lambda: not _waiting(node))
    assert sorted({answer.Modality for answer in archive.of(image)}) == ["SEG", "SR"]
    assert len({answer.SOPInstanceUID for answer in archive.of(image)}) == 2
    wait_for(lambda: node.couriers[0].problem == "")


def test_one_peer_that_is_down_keeps_no_other_from_its_answers(
    start_node: Start, archive: Archive, tmp_path: Path
) -> None:
    archive.stop()
    down = Peer("ARCHIVE", "127.0.0.1", archive.port, "BUS_NODE")
    node = start_node(outputs=("sr",), targets=(down, FolderTarget(tmp_path / "out")))
    send(node.port, scan())
    wait_for(lambda: list((tmp_path / "out").rglob("*.dcm")))
    assert _waiting(node) == 1


def test_a_peer_that_is_configured_no_more_is_not_waited_for(
    start_node: Start, archive: Archive, tmp_path: Path
) -> None:
    archive.stop()
    node = start_node(outputs=("sr",))
    send(node.port, scan())
    wait_for(lambda: _waiting(node) == 1)
    node.stop()
    assert _waiting(start_node(targets=(FolderTarget(tmp_path / "out"),))) == 0


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "PACS@host:0", "PACS@host:99999", "@host:104", "PACS@:104"])
def test_a_malformed_peer_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        Peer.parse(text)


class Committing(Archive):
    """An archive that reports its storage commitment on an association of its own, as Orthanc does."""

    def __init__(self, mode: str) -> None:
        self.mode, self.node_port = mode, 0
        super().__init__()

    def handlers(self) -> list[Any]:
        self._ae.add_supported_context(StorageCommitmentPushModel)
        return [*super().handlers(), (evt.EVT_N_ACTION, self._asked)]

    def _asked(self, event: Any) -> tuple[int, None]:
        import threading

        if self.mode == "refuses":
            return 0x0110, None
        if self.mode != "silent":
            threading.Timer(0.1, self._report, [event.action_information]).start()
        return 0x0000, None

    def _report(self, request: Dataset) -> None:
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        items = list(request.ReferencedSOPSequence)
        failed = items if self.mode == "fails" else []
        if failed:
            for item in failed:
                item.FailureReason = 0x0112
            report.FailedSOPSequence = failed
        else:
            report.ReferencedSOPSequence = items
        ae = AE("ARCHIVE")
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate("127.0.0.1", self.node_port, ae_title="BUS_NODE", ext_neg=[role])
        kind = 2 if failed else 1
        association.send_n_event_report(report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        association.release()


@pytest.mark.parametrize(
    ("mode", "state", "reason"),
    [
        ("commits", "committed", ""),
        ("fails", "not committed", "the peer reports so"),
        ("silent", "not committed", "no report in time"),
        ("refuses", "not committed", "refuses to be asked for storage commitment"),
    ],
)
def test_a_peer_is_asked_to_commit_to_what_it_took(start_node: Start, mode: str, state: str, reason: str) -> None:
    peer = Committing(mode)
    try:
        target = Peer("ARCHIVE", "127.0.0.1", peer.port, "BUS_NODE")
        node = start_node(outputs=("sr",), targets=(target,), commit=0.5 if mode == "silent" else 30)
        peer.node_port = node.port
        send(node.port, scan())
        found = wait_for(
            lambda: node.queue.one(
                "select commitment, reason, state from deliveries where commitment like '%committed'"
            )
        )
        assert found == (state, reason, "sent")
    finally:
        peer.stop()


def test_a_peer_without_storage_commitment_is_sent_to_all_the_same(start_node: Start, archive: Archive) -> None:
    node = start_node(outputs=("sr",), commit=30)
    send(node.port, scan())
    found = wait_for(lambda: node.queue.one("select commitment, reason from deliveries where commitment like 'not%'"))
    assert found == ("not committed", "does not do storage commitment")
    assert len(archive.objects) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_by_tls_only_those_with_a_certificate_of_the_authority_may_send(start_node: Start, tmp_path: Path) -> None:
    _certificates(tmp_path)
    server, client = _contexts(tmp_path)
    node = start_node(server_tls=server)
    assert statuses(send(node.port, scan(), tls_args=(client, "127.0.0.1"))) == [0x0000]
    anonymous = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    assert send(node.port, scan(), tls_args=(anonymous, "127.0.0.1")) == []
    assert send(node.port, scan()) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_answers_are_sent_by_tls(start_node: Start, tmp_path: Path) -> None:
    _certificates(tmp_path)
    server, client = _contexts(tmp_path)
    peer = Archive(server)
    try:
        node = start_node(outputs=("sr",), targets=(Peer("ARCHIVE", "127.0.0.1", peer.port, "BUS_NODE", client),))
        send(node.port, scan())
        wait_for(lambda: peer.objects)
    finally:
        peer.stop()


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the command makes of the files."""
    files = {"--tls-cert": "node.pem", "--tls-key": "node.key", "--tls-ca": "ca.pem"}
    words = [word for option, name in files.items() for word in (option, str(folder / name))]
    server, client = dicom_node._tls(dicom_node._parse(["--folder", str(folder), *words]))
    assert server is not None
    assert client is not None
    return server, client


def _certificates(folder: Path) -> None:
    """A certificate authority and a certificate of 127.0.0.1 signed by it."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2", *extensions)
    openssl("req", *curve, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node")
    (folder / "san").write_text(
        "subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nbasicConstraints=CA:FALSE\n", encoding="utf-8"
    )
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san", "-days", "2"]
    openssl("x509", "-req", "-in", "node.csr", "-out", "node.pem", *signed)
