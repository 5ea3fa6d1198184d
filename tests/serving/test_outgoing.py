# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.serving.outgoing."""

from __future__ import annotations

import time

from node_lab import Archive, scan
from pynetdicom import build_context

from bundle.serving.outgoing import open_association


def test_no_object_waits_for_an_acknowledgement_of_tcp(archive: Archive) -> None:
    image = scan()
    contexts = [build_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)]
    association = open_association("BUS_NODE", ("127.0.0.1", archive.port), "ARCHIVE", contexts, None, 30)
    took = []
    for _ in range(10):
        begun = time.monotonic()
        assert association.send_c_store(image).Status == 0x0000
        took.append(time.monotonic() - begun)
    association.release()
    assert min(took) < 0.03  # an acknowledgement that is put off takes 40 ms


def test_a_peer_that_is_not_there_is_no_association() -> None:
    association = open_association(
        "BUS_NODE", ("127.0.0.1", 9), "ARCHIVE", [build_context("1.2.840.10008.1.1")], None, 5
    )
    assert not association.is_established
