# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.archive and scripts/predict.py --engine ray."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.errors import UserError
from bundle.prediction.archive import Job, Worker, refuse_shared_names
from bundle.prediction.batch import weights_digest
from bundle.prediction.inputs import Input, list_inputs
from scripts.predict import main
from tests.readers.fabricate import save, ultrasound

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs requirements-ray.txt")
WRITE = ("png", "json", "csv", "html", "parquet")


def _make_images(folder: Path, count: int) -> Path:
    """Dark blobs on speckle, one cine, one damaged file."""
    folder.mkdir(parents=True)
    rng, (yy, xx) = np.random.default_rng(0), np.mgrid[:70, :90]
    pixels = np.where(np.hypot(yy - 30, xx - 40) < 15, 20, rng.integers(60, 200, (70, 90))).astype(np.uint8)
    for number in range(count):
        Image.fromarray(np.roll(pixels, number, 1)).save(folder / f"{number:03d}.png")
    save(ultrasound([np.roll(pixels, -number, 1) for number in range(3)]), folder / "cine.dcm")
    (folder / "050_broken.png").write_bytes((folder / "000.png").read_bytes()[:300])
    return folder


def _columns(inputs: list[Input]) -> dict[str, list[Any]]:
    return {
        "path": [os.fsencode(file.path) for file in inputs],
        "folder": [os.fsencode(file.folder) for file in inputs],
        "named": [file.named for file in inputs],
    }


def _job(models: Path, output: Path, **more: Any) -> Job:
    return Job(models, weights_digest(models), output, ("png", "json"), device="cpu", **more)


def test_files_that_go_to_a_second_worker_are_neither_redone_nor_told_as_an_earlier_runs(
    tiny_models: Path, tmp_path: Path
) -> None:
    files = _columns(list_inputs([_make_images(tmp_path / "images", 2)])[0])
    job = _job(tiny_models, tmp_path / "out", again=True)
    first = Worker(job)(files)["outcome"]
    masks = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "masks").rglob("*.png")}
    second = Worker(job)(files)["outcome"]
    assert second == first
    assert len(masks) == 2 + 3
    assert all(path.stat().st_mtime_ns == changed for path, changed in masks.items())
    told = [json.loads(text) for text in first]
    assert [outcome["name"] for outcome in told if outcome["error"]] == ["050_broken.png"]
    assert not any(outcome["resumed"] for outcome in told)
    third = Worker(_job(tiny_models, tmp_path / "out"))(files)["outcome"]
    assert [json.loads(text)["resumed"] for text in third] == [True, True, False, True, True, True]


def test_a_worker_with_other_weights_ends_the_run(
    tiny_models: Path, write_models: Callable[..., Path], tmp_path: Path
) -> None:
    job = _job(write_models(tmp_path / "others", 1.0), tmp_path / "out")
    job = Job(job.models, weights_digest(tiny_models), job.output, job.outputs, device="cpu")
    (text,) = Worker(job)({"path": [], "folder": []})["outcome"]
    assert "not the same weights on" in json.loads(text)["stop"]


def test_a_file_named_like_a_frame_of_another_is_refused() -> None:
    folder = Path("/scans")
    refuse_shared_names([Input(folder / name, folder) for name in ("a.dcm[3]", "a.dcm[4]", "b.frame1.png")])
    for name in ("a.dcm.frame3.png", "a.dcm[3]"):
        with pytest.raises(UserError, match=r"like a frame of /scans/a\.dcm"):
            refuse_shared_names([Input(folder / name, folder), Input(folder / "a.dcm", folder)])


def test_without_ray_one_line_says_how_to_get_it(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    images = _make_images(tmp_path / "images", 1)
    words = [str(images), "--engine", "ray", "--models", str(tiny_models), "--output", str(tmp_path / "out")]
    assert main([*words, "--write", "png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install -r requirements-ray.txt" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "ray"], "--output DIR"),
        (["--processes", "2"], "--engine ray"),
        (["--address", "head:6379"], "--engine ray"),
        (["--engine", "ray", "--output", "o", "--device", "cuda:1"], "--device cpu or cuda"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["a.png", *words])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def _command(root: Path, images: Path, models: Path, output: Path, *words: str) -> list[str]:
    command = [sys.executable, str(root / "scripts" / "predict.py"), str(images), "--models", str(models)]
    return [*command, "--device", "cpu", "--output", str(output), "--write", *WRITE, *words]


def _descendants(pid: int) -> dict[int, str]:
    """Process ids below a process, each with its command, which Ray sets to what a worker does."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has ended
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return {child: names.get(child, "") for child in found - {pid}}


def _reachable(pids: set[int]) -> set[str]:
    """Addresses at which these processes listen beyond this machine, as the kernel writes them."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link))
            except OSError:
                continue
    own = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    listening = [line for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in inodes]
    assert listening
    return {line[1] for line in listening if line[1].partition(":")[0] not in own}


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
def test_a_killed_worker_loses_and_doubles_nothing_and_the_results_are_those_of_one_process(
    tiny_models: Path, tmp_path: Path, root: Path
) -> None:
    count = 150
    images = _make_images(tmp_path / "images", count)
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(home)}
    words = _command(root, images, tiny_models, tmp_path / "ray", "--engine", "ray", "--processes", "2")
    records = tmp_path / "ray" / ".cases"
    with subprocess.Popen(
        words, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while len(list(records.glob("*.json"))) < 5:
            assert process.poll() is None, process.communicate()[1][-3000:]
            time.sleep(0.02)
        below = _descendants(process.pid)
        workers = [pid for pid, name in below.items() if name.startswith("ray::MapWorker")]
        os.kill(workers[0], signal.SIGKILL)
        done = len(list(records.glob("*.json")))
        reachable = _reachable(set(below) - {workers[0]})
        output, errors = process.communicate(timeout=400)
    assert process.returncode == 3, errors[-3000:]
    assert len(workers) == 2
    assert done < count
    assert reachable == set()
    assert not (home / ".ray").exists()  # no token is left behind
    assert "050_broken.png" in errors
    assert "done by an earlier run" not in output
    assert f"{count + 2}/{count + 2}" in errors  # the progress bar: all files

    local = _command(root, images, tiny_models, tmp_path / "local")
    alone = subprocess.run(local, cwd=root, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert alone.returncode == 3, alone.stderr[-3000:]
    names = [finding["image"] for finding in json.loads((tmp_path / "ray" / "findings.json").read_text())["findings"]]
    assert len(names) == len(set(names)) == count + 3
    assert output.count("P(malignant)") == alone.stdout.count("P(malignant)")
    ours, theirs = _contents(tmp_path / "ray"), _contents(tmp_path / "local")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def _contents(folder: Path) -> dict[str, Any]:
    """The content of every file; of a record without the name of its run."""
    contents: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != ".lock":
            contents[path.relative_to(folder).as_posix()] = path.read_bytes()
    for name in [name for name in contents if name.startswith(".cases/") and name.endswith(".json")]:
        record = json.loads(contents[name])
        assert record.pop("run")
        contents[name] = record
    return contents
