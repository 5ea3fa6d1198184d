# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import InputError
from bundle.files import lock_folder, remove_leftovers, sha256_of, write_atomically, write_json


def test_missing_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "note.txt", "H×W")
    assert (tmp_path / "a" / "b" / "note.txt").read_bytes() == "H×W".encode()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["note.txt"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    path = tmp_path / "model.bin"
    write_atomically(path, b"old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full_disk)
    with pytest.raises(InputError, match=r"model\.bin: cannot be written \(No space left on device\)"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_a_file_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "x.json", b"")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_written_file_follows_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


def test_json_keeps_key_order_and_writes_nan_as_null(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"z": np.float32("nan"), "a": [np.int64(3), float("inf"), (True, np.zeros(2))]})
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text) == {"z": None, "a": [3, None, [True, [0.0, 0.0]]]}
    assert text.index('"z"') < text.index('"a"')
    assert text.endswith("\n")


@given(
    obj=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    )
)
@settings(max_examples=30, deadline=None)
def test_json_round_trips(tmp_path_factory: pytest.TempPathFactory, obj: object) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.json"
    write_json(path, obj)
    assert json.loads(path.read_text(encoding="utf-8")) == obj


def test_object_that_json_cannot_hold_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "m.json", {"path": object()})
    assert list(tmp_path.iterdir()) == []


def test_sha256_equals_that_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than two chunks
    (tmp_path / "w.pt").write_bytes(content)
    assert sha256_of(tmp_path / "w.pt") == hashlib.sha256(content).hexdigest()


def test_sha256_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.pt: cannot be read"):
        sha256_of(tmp_path / "gone.pt")


def test_many_writers_leave_one_whole_file_and_no_rests(tmp_path: Path) -> None:
    content = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(tmp_path / "a", part)) for part in content]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in content
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX lets folders be flushed")
def test_the_new_name_is_flushed_to_the_disk_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(tmp_path / "a", b"content")
    assert [Path(name).suffix for name in flushed] == [".tmp", ""]
    assert flushed[1] == str(tmp_path)


def test_only_leftovers_of_atomic_writes_are_removed(tmp_path: Path) -> None:
    kept = [".lock", ".notes.tmp", "x.tmp", "last.pt"]
    for name in (*kept, ".0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def _hold_lock(folder: Path, fork: bool = False) -> subprocess.Popen[str]:
    """A process that holds the lock of a folder; its forked child, if wanted, outlives it."""
    code = "import os, sys, time; from bundle.files import lock_folder; lock_folder(sys.argv[1])\n"
    code += "if os.fork() == 0: time.sleep(60); os._exit(0)\n" if fork else ""
    code += "print('locked', flush=True); time.sleep(60)"
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.mark.skipif(os.name != "posix", reason="the lock is POSIX")
def test_a_locked_folder_is_refused_naming_its_owner(tmp_path: Path) -> None:
    with _hold_lock(tmp_path / "run") as owner:
        with pytest.raises(InputError, match=f"another run writes here \\(process {owner.pid} on .+\\); wait"):
            lock_folder(tmp_path / "run")
        owner.kill()


@pytest.mark.skipif(os.name != "posix", reason="the lock is POSIX")
@pytest.mark.parametrize("fork", [False, True])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, fork: bool) -> None:
    owner = _hold_lock(tmp_path, fork)
    children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split() if fork else []
    try:
        owner.kill()
        owner.wait()
        lock_folder(tmp_path)
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
        lock_folder(tmp_path)  # the same process passes
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        assert owner.stdout is not None
        owner.stdout.close()
