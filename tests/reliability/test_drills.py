# SPDX-License-Identifier: Apache-2.0
"""Claims about training runs that are killed, stopped, damaged and starved: each ends as an undisturbed run does.

The quick ones run with the others; all of them, minutes to an hour, with `make nightly`. RELIABILITY_DIR names a folder
where they log every try, and go on where they were.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import training_lab
import warm

if sys.platform != "linux":
    pytest.skip("the drills look into /proc", allow_module_level=True)

from drills import DRILLS, drill
from summary import summarise
from training_lab import EPOCHS, ROOT, Ended, Lab, finish, started, wait_for, whole_checkpoint

from bundle.training.checkpoint import LAST

LOG = Path(__file__).resolve().parents[2] / "docs" / "reliability.jsonl"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = Path(os.environ.get("RELIABILITY_DIR") or tmp_path_factory.mktemp("reliability"))
    folder.mkdir(parents=True, exist_ok=True)
    return Lab(folder)


def _failed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if not record["ok"]]


@pytest.fixture
def warm_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(command: list[str], environment: dict[str, str], output: Path) -> warm.Popen:
        return warm.Popen(command, ROOT, environment, (output, output))

    monkeypatch.setattr(training_lab, "start", start)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("warm_starts")
@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        pytest.param("saving", [0, 1, 2], id="killed while saving"),
        pytest.param("kills", [4], id="process group killed in training"),
        pytest.param("signals", [0], id="stopped by SIGTERM"),
        pytest.param("starvation", [1], id="folder cannot be made"),
    ],
)
def test_a_disturbed_run_ends_as_an_undisturbed_one(lab: Lab, name: str, numbers: list[int]) -> None:
    assert not _failed([DRILLS[name][0](lab, number) for number in numbers])


@pytest.mark.usefixtures("warm_starts")
def test_two_processes_of_which_one_was_killed_end_as_undisturbed_ones(lab: Lab) -> None:
    # What scripts/train.py does around them, test_launch.py claims; the drill "workers" tries both together.
    killed, undisturbed = lab.fresh("pair", 0), lab.fresh("pair", 1)
    assert [ended.code for ended in _pair(lab, undisturbed)] == [0, 0]
    first, second = _pair(lab, killed, kill=True)
    assert second.code == -signal.SIGKILL
    assert first.code not in (0, 2)
    assert 0 < whole_checkpoint(killed)["epoch"] < EPOCHS
    assert [ended.code for ended in _pair(lab, killed)] == [0, 0]
    results = [training_lab.result_of(folder, "segmentation") for folder in (killed, undisturbed)]
    assert results[0] == results[1]


def _pair(lab: Lab, output: Path, kill: bool = False) -> list[Ended]:
    """Train with two processes that torch.distributed connects; with ``kill``, the second dies after an epoch."""
    words = lab.words("segmentation", output)
    files = "['configs/train.json', 'configs/multi_gpu_train.json']"
    command = [*training_lab.PYTHON, "-m", "monai.bundle", "run", "training", "--config_file", files, *words]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with contextlib.ExitStack() as stack:
        ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))
        processes = [stack.enter_context(started(command, **common, **rank)) for rank in ranks]
        if kill:
            assert wait_for(lambda: (output / LAST).exists(), processes[0])
            os.kill(processes[1].pid, signal.SIGKILL)
        return [finish(process, timeout=120) for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRILLS if name != "saving_monai"])
def test_every_try_of_a_drill_goes_as_it_should(lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("node_"):
        pytest.importorskip("pynetdicom", reason="pynetdicom, of requirements-clinic.txt, is not installed")
        from node_disk import can_mount

        if shutil.which("storescp") is None:
            pytest.skip("storescp, of Debian's dcmtk, is not installed")
        if name == "node_disk" and not can_mount():
            pytest.skip("a small disk can be mounted by root alone")
    monkeypatch.setattr(os, "fsync", warm.FSYNC)
    records = drill(lab, name)
    assert len(records) == DRILLS[name][1]
    assert not _failed(records)


@pytest.mark.skipif(not LOG.exists(), reason="the drills were not recorded yet")
def test_the_page_shows_what_was_recorded(root: Path) -> None:
    page = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    records = [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]
    assert summarise(records) in page
