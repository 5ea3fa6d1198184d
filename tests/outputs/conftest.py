# SPDX-License-Identifier: Apache-2.0
"""Other people's readers of our objects, and the record of what each does with them.

With TOOLS_RECORD=FILE what the tests saw is written there, from which scripts/write_docs.py makes a table.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parent / "tools"


@pytest.fixture(scope="session")
def seen() -> Iterator[Callable[[str, str, str, str], None]]:
    """Note what a tool of a version does with an object, once a test has shown it."""
    rows: list[dict[str, str]] = []

    def note(kind: str, tool: str, version: str, does: str) -> None:
        row = {"object": kind, "tool": tool, "version": version, "does": does}
        if row not in rows:
            rows.append(row)

    yield note
    if "TOOLS_RECORD" in os.environ:
        from bundle.files import write_json
        from bundle.provenance import describe_run

        write_json(Path(os.environ["TOOLS_RECORD"]), {"kind": "tools", "run": describe_run(), "rows": rows})


@pytest.fixture(scope="session")
def read_elsewhere(root: Path) -> Callable[[str, Path], dict[str, Any]]:
    """Read a file with a tool of the environment of requirements-tools.txt; its failure is {"error": its last line}."""
    python = Path(os.environ.get("TOOLS_PYTHON", root / ".venv-tools" / "bin" / "python"))
    if not python.exists():
        pytest.skip("no environment of requirements-tools.txt; make tools builds it")

    def read(tool: str, file: Path) -> dict[str, Any]:
        command = [str(python), str(TOOLS / "read_masks.py"), tool, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1]}
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return read


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and pages of tests/outputs/tools, and the packages of its package.json."""
    if shutil.which("npm") is None:
        pytest.skip("npm, of Debian, is not installed")
    folder = tmp_path_factory.mktemp("node")
    for file in (*TOOLS.glob("*.mjs"), *TOOLS.glob("*.html"), TOOLS / "package.json"):
        shutil.copy(file, folder)
    words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(words, cwd=folder, check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def node(packages: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of tests/outputs/tools in Node."""

    def run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
        command = ["node", str(packages / script), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An Orthanc of its own with an empty store: {"url", "dicom_port", "version"}."""
    program = shutil.which("Orthanc")
    if program is None:
        pytest.skip("Orthanc, of Debian's orthanc, is not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    http, dicom = free_port(), free_port()
    settings = {
        **{"Name": "TEST", "StorageDirectory": str(folder / "store"), "IndexDirectory": str(folder / "store")},
        **{"HttpPort": http, "DicomPort": dicom, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False},
        **{"AuthenticationEnabled": False, "DicomCheckCalledAet": False, "Plugins": []},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{http}"
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"{url}/system", timeout=5) as answer:
                    version = json.load(answer)["Version"]
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail((folder / "log").read_text()[-500:])
        yield {"url": url, "dicom_port": dicom, "version": version}
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    """A TCP port that nobody listens at just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
