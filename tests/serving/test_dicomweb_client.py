# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.serving.dicomweb that need no archive; tests/serving/test_real_peers.py asks Orthanc."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bundle.errors import UserError
from bundle.serving.dicomweb import DicomWeb


def test_an_archive_that_is_not_there_is_told_by_what_the_system_says(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: whoever connects is refused
        archive = DicomWeb(f"http://127.0.0.1:{taken.getsockname()[1]}/dicom-web")
        archive._client.set_http_retry_params(retry=False)  # half a minute otherwise
        with pytest.raises(UserError, match=r"cannot list study 1\.2\.3 \(Connection refused\); check the address"):
            archive.fetch("1.2.3", tmp_path / "study")


@pytest.mark.parametrize("address", ["dicom-web", "ftp://archive/dicom-web", "http://me:secret@archive/dicom-web"])
def test_an_address_of_another_kind_is_refused_and_no_password_repeated(address: str) -> None:
    with pytest.raises(UserError, match="the archive's address is none") as told:
        DicomWeb(address)
    assert "secret" not in str(told.value)
