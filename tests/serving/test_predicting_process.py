# SPDX-License-Identifier: Apache-2.0
"""Claims about the process of its own in which the node predicts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from node_lab import Archive, scan, send, statuses, wait_for
from pydicom.dataset import Dataset

from bundle.errors import InputError, UserError
from bundle.serving.local_predictions import LocalPredictions
from bundle.serving.node import Node
from bundle.serving.predictions import Job, PredictingProcess, PredictionEndedError
from tests.readers.fabricate import save

OUTPUTS = ("seg", "sr")


@pytest.fixture
def process(tiny_models: Path) -> Iterator[PredictingProcess]:
    started = PredictingProcess({"folder": str(tiny_models), "device": "cpu"})
    yield started
    started.stop()


def _received(folder: Path, *scans: Dataset) -> Job:
    for each in scans:
        save(each, folder / "received" / f"{each.SOPInstanceUID}.dcm")
    return Job(str(folder), tuple(str(each.SOPInstanceUID) for each in scans), OUTPUTS)


def _pid(process: PredictingProcess) -> int:
    assert process._process is not None
    return process._process.pid


def test_it_answers_as_this_process_does(
    process: PredictingProcess, predictions: LocalPredictions, tmp_path: Path
) -> None:
    scans = [scan(1), scan(2)]
    bad = tmp_path / "there" / "received" / "1.2.3.dcm"
    jobs = [_received(tmp_path / place, *scans) for place in ("there", "here")]
    bad.write_bytes(b"no image")
    (tmp_path / "here" / "received" / "1.2.3.dcm").write_bytes(b"no image")
    jobs = [Job(job.folder, (*job.uids, "1.2.3"), job.outputs) for job in jobs]
    there, here = list(process.predict(jobs[0])), list(predictions.predict(jobs[1]))
    assert [(each.uid, each.cases, each.reason) for each in there] == [(e.uid, e.cases, e.reason) for e in here]
    assert [len(each.answers) for each in there] == [2, 2, 0]
    assert all((tmp_path / "there" / answer.file).is_file() for each in there for answer in each.answers)
    assert process.card == predictions.card
    assert process.site is None


def test_after_its_death_another_goes_on(process: PredictingProcess, tmp_path: Path) -> None:
    job = _received(tmp_path, scan(1), scan(2))
    former = _pid(process)
    os.kill(former, signal.SIGKILL)
    with pytest.raises(PredictionEndedError, match="exit code -9"):
        list(process.predict(job))
    assert [each.uid for each in process.predict(job)] == list(job.uids)
    assert _pid(process) != former


def test_left_before_its_end_it_is_ended_and_a_stop_ends_it_for_good(
    process: PredictingProcess, tmp_path: Path
) -> None:
    job = _received(tmp_path, *(scan(number) for number in range(4)))
    begun = process.predict(job)
    first = next(begun)
    begun.close()
    assert process._process is not None
    assert process._process.poll() is not None
    again = list(process.predict(job))
    assert again[0] == first  # what was told of stays as it is
    process.stop()
    with pytest.raises(PredictionEndedError):
        list(process.predict(job))


def test_a_disk_that_takes_nothing_is_told_and_needs_no_other_process(
    process: PredictingProcess, tmp_path: Path
) -> None:
    job, pid = _received(tmp_path, scan(1)), _pid(process)
    (tmp_path / "answers").write_text("no folder")
    with pytest.raises(InputError):
        list(process.predict(job))
    (tmp_path / "answers").unlink()
    (predicted,) = process.predict(job)
    assert len(predicted.answers) == 2
    assert _pid(process) == pid


def test_a_node_whose_predicting_process_dies_answers_each_image_once(
    process: PredictingProcess, start_node: Callable[..., Node], archive: Archive
) -> None:
    node = start_node(outputs=OUTPUTS)
    node.worker.predictions = process
    scans = [scan(number) for number in range(8)]
    assert statuses(send(node.port, *scans)) == [0] * 8
    for count in (2, 6):
        wait_for(lambda count=count: len(archive.objects) >= count)  # type: ignore[misc]
        os.kill(_pid(process), signal.SIGKILL)
    wait_for(lambda: len(archive.objects) >= 16, 60)
    assert sorted(len(archive.of(each)) for each in scans) == [2] * 8
    assert len({each.SOPInstanceUID for each in archive.objects}) == 16


def test_it_ends_with_its_owner_whatever_ends_that(tiny_models: Path) -> None:
    code = (
        "from bundle.serving.predictions import PredictingProcess\n"
        f"process = PredictingProcess({{'folder': {str(tiny_models)!r}, 'device': 'cpu'}})\n"
        "print(process._process.pid, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    wait_for(lambda: not _is_alive(pid), 10)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_networks_that_cannot_be_loaded_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pt"):
        PredictingProcess({"folder": str(tmp_path), "device": "cpu"})
    with pytest.raises(UserError, match="device"):
        PredictingProcess({"folder": str(tmp_path), "device": "nonsense"})
