#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each object that pynetdicom sends by C-STORE waits some 40 ms, and 90 where DCMTK's storescp answers, though both sides
# are idle and on one machine: the command and the data are two writes, pynetdicom leaves Nagle's algorithm on, and the
# other side puts its acknowledgement of the first off; DCMTK's answer is two writes as well. A study of 900 small
# objects takes 80 s in place of 4. TCP_NODELAY on the association's socket mends the first wait; the second ends where
# the sender acknowledges at once (TCP_QUICKACK after each read, Linux), or storescp runs with TCP_NODELAY=1.
# Seen with pynetdicom 3.0.4 and pydicom 3.0.2, Python 3.11, Linux; DCMTK 3.6.7, tried where storescp is installed:
#     pynetdicom's own peer: as it is 48 ms, with TCP_NODELAY 6 ms
#     DCMTK's storescp: as it is 88 ms, with TCP_NODELAY 44 ms, with TCP_QUICKACK as well 3 ms
# Ends with 0 while that is so, with 1 where it has changed. Needs python3 with venv, and PyPI; listens on 127.0.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pynetdicom==3.0.4 pydicom==3.0.2
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import shutil
import socket
import statistics
import subprocess
import sys
import time

import pydicom
import pynetdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt

print("pynetdicom", pynetdicom.__version__, "pydicom", pydicom.__version__)
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"


def image():
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = ULTRASOUND, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Rows = dataset.Columns = 128
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(128 * 128)
    return dataset


def milliseconds(port, nodelay=False, quickack=False):
    caller = AE("CALLER")
    caller.add_requested_context(ULTRASOUND, ExplicitVRLittleEndian)
    association = caller.associate("127.0.0.1", port, ae_title="PEER")
    connection = association.dul.socket
    raw = connection.socket
    if nodelay:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if quickack:
        receive = connection.recv

        def acknowledge_at_once(count):
            received = receive(count)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            return received

        connection.recv = acknowledge_at_once
    took = []
    for _ in range(30):
        dataset, begun = image(), time.perf_counter()
        assert association.send_c_store(dataset).Status == 0x0000
        took.append(1000 * (time.perf_counter() - begun))
    association.release()
    return statistics.median(took)


peer = AE("PEER")
peer.add_supported_context(ULTRASOUND, ExplicitVRLittleEndian)
server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0x0000)])
port = server.server_address[1]
plain, mended = milliseconds(port), milliseconds(port, nodelay=True)
peer.shutdown()
print(f"pynetdicom's own peer: as it is {plain:.0f} ms, with TCP_NODELAY {mended:.0f} ms")
same = plain > 35 and mended < 25
if program := shutil.which("storescp"):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([program, "--ignore", "-aet", "PEER", str(port)])
    try:
        time.sleep(1)
        plain, half, mended = milliseconds(port), milliseconds(port, True), milliseconds(port, True, True)
    finally:
        process.kill()
    print(
        f"DCMTK's storescp: as it is {plain:.0f} ms, with TCP_NODELAY {half:.0f} ms, with TCP_QUICKACK as well "
        f"{mended:.0f} ms"
    )
    same = same and plain > 70 and 35 < half < 70 and mended < 25
print("as seen" if same else "changed")
sys.exit(int(not same))
PYTHON
