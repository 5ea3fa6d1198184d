#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# pynetdicom accepts a presentation context for a retired class, such as US Image Storage of 1993, when the class is
# added by its UID; but the first object of it ends the association (A-ABORT), since only classes that it knows by name
# have a service. The sender sees no status at all. register_uid(uid, name, StorageServiceClass) mends it.
# Seen with pynetdicom 3.0.4 and pydicom 3.0.2, Python 3.11:
#     context accepted: True, status: None, association aborted: True
#     after register_uid: context accepted: True, status: 0
# Ends with 0 while that is so, with 1 where it has changed. Needs python3 with venv, and PyPI; listens on 127.0.0.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pynetdicom==3.0.4 pydicom==3.0.2
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import pydicom
import pynetdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt, register_uid
from pynetdicom.service_class import StorageServiceClass

RETIRED = "1.2.840.10008.5.1.4.1.1.6"  # US Image Storage, retired


def an_image() -> Dataset:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = RETIRED, generate_uid()
    image.Modality, image.PatientID, image.PatientName = "US", "", ""
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = bytes(64)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def send() -> tuple[bool, object, bool]:
    receiver = AE()
    receiver.add_supported_context(RETIRED, ExplicitVRLittleEndian)
    server = receiver.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)])
    sender = AE()
    sender.add_requested_context(RETIRED, ExplicitVRLittleEndian)
    association = sender.associate("127.0.0.1", server.socket.getsockname()[1])
    accepted = bool(association.accepted_contexts)
    answer = association.send_c_store(an_image())
    status = answer.Status if "Status" in answer else None
    if status is None:
        time.sleep(1)  # the abort is on its way
    over = association.is_aborted
    if not over:
        association.release()
    server.shutdown()
    return accepted, status, over


print("pynetdicom", pynetdicom.__version__, "pydicom", pydicom.__version__)
accepted, status, over = send()
print(f"context accepted: {accepted}, status: {status}, association aborted: {over}")
register_uid(RETIRED, "RetiredUltrasoundImageStorage", StorageServiceClass)
later = send()
print(f"after register_uid: context accepted: {later[0]}, status: {later[1]}")
as_seen = accepted and status is None and over and later[1] == 0
print("as seen" if as_seen else "changed")
sys.exit(int(not as_seen))
PYTHON
