# SPDX-License-Identifier: Apache-2.0
"""What the drills share: a tiny phantom, commands on it, undisturbed runs to compare with, and looks at run folders."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data.phantom import make_phantom
from bundle.errors import UserError
from bundle.files import sha256_of
from bundle.networks.weights import load_tensors
from bundle.training.checkpoint import LAST, PREVIOUS

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 10
STAGES = ("segmentation", "classification")
CONFIGS = {"segmentation": "configs/train.json", "classification": "configs/train_classifier.json"}
WEIGHTS = {"segmentation": "model.pt", "classification": "model_classifier.pt"}
PYTHON = (sys.executable, "-W", "ignore")
Record = dict[str, Any]


class Lab:
    """A folder with a tiny phantom, a segmenter for the classification stage, and undisturbed runs to compare with.

    Args:
        folder: everything is made below it, on first use.
        images: that the drill node_load sends.
    """

    def __init__(self, folder: Path, images: int = 300) -> None:
        self.folder, self.images = folder.resolve(), images
        self.phantom = self.folder / "phantom"
        if not self.phantom.exists():
            make_phantom(self.phantom, counts={"benign": 14, "malignant": 12}, size_range=((60, 80), (70, 100)))

    def words(self, stage: str, output: Path, workers: int = 0, epochs: int = EPOCHS) -> list[str]:
        """The arguments of a training, after `--config_file`."""
        common = ["--dataset_dir", self.phantom, "--output_dir", output, "--max_epochs", epochs]
        common += ["--num_workers", workers, "--val_interval", "1", "--filters", "[4,8]"]
        common += ["--prepared_dir", self.folder / "prepared", "--spatial_size", "[64,64]"]
        common += ["--checkpoint#time_share", "1e9"]  # save each epoch, however short
        common += ["--architecture", "UNet" if stage == "segmentation" else "SegNet"]
        if stage == "segmentation":
            common += ["--split", "40:20:40", "--batch_size", "4"]
        else:
            common += ["--segmentation_dir", self.segmenter(), "--split", "45:25:30", "--batch_size", "2"]
        return [str(word) for word in common]

    def command(self, stage: str, output: Path, workers: int = 0, epochs: int = EPOCHS) -> list[str]:
        """The command that a user types for one process."""
        words = self.words(stage, output, workers, epochs)
        return [*PYTHON, "-m", "monai.bundle", "run", "training", "--config_file", CONFIGS[stage], *words]

    def processes(self, stage: str, output: Path, epochs: int = EPOCHS, extra: Sequence[str] = ()) -> list[str]:
        """The command that a user types for two processes."""
        words = self.words(stage, output, epochs=epochs)
        return [*PYTHON, "scripts/train.py", "--processes", "2", CONFIGS[stage], *words, *extra]

    def sabotaged(self, kind: str, number: int, stage: str, output: Path) -> list[str]:
        """The command for one process, sabotaged as tests/reliability/sabotage.py says."""
        words = self.command(stage, output)[len(PYTHON) + 2 :]
        return [*PYTHON, "tests/reliability/sabotage.py", kind, str(number), *words]

    def segmenter(self) -> Path:
        """The folder of a segmenter that has segmented the whole phantom."""
        folder = self.folder / "segmenter"
        if not (folder / "predictions" / "skipped.json").exists():
            require(run(self.command("segmentation", folder)))
            words = ["--dataset_dir", self.phantom, "--weights", folder / "model.pt"]
            words += ["--output_dir", folder / "predictions"]
            command = [*PYTHON, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
            require(run([*command, *map(str, words)]))
        return folder

    def reference(self, stage: str, workers: int = 0, processes: int = 1) -> Reference:
        """An undisturbed run, made once."""
        folder = self.folder / f"reference_{stage}_{processes}processes_{workers}workers"
        times = folder / "times.json"
        if not times.exists():
            shutil.rmtree(folder, ignore_errors=True)
            several = processes > 1
            command = self.processes(stage, folder) if several else self.command(stage, folder, workers)
            start = time.monotonic()
            with started(command) as process:
                wait_for(lambda: (folder / LAST).exists(), process)
                first = time.monotonic() - start
                wait_for(lambda: (folder / "history.json").exists(), process)
                trained = time.monotonic() - start
                require(finish(process))
            seconds = {"first_checkpoint": first, "trained": trained, "end": time.monotonic() - start}
            times.write_text(json.dumps(seconds))
        return Reference(folder, **json.loads(times.read_text()))

    def fresh(self, drill: str, number: int) -> Path:
        """An empty place for the output of a try."""
        folder = self.folder / drill / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        return folder


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its folder, and the seconds to its first checkpoint, its last epoch and its end."""

    folder: Path
    first_checkpoint: float
    trained: float
    end: float

    @property
    def training(self) -> float:
        """Seconds between the first and the last checkpoint."""
        return self.trained - self.first_checkpoint


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def start(command: Sequence[str], environment: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    """Start a command in a new interpreter; the quick drills put processes that start warm in its place."""
    with open(output, "wb") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


@contextlib.contextmanager
def started(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command as the leader of a process group of its own, its output in a file; killed when left."""
    output = Path(f"/tmp/drill-{os.getpid()}-{time.monotonic_ns()}.log")
    process = start(command, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", **environment}, output)
    process.output_file = output  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.unlink()


def finish(process: subprocess.Popen[bytes], timeout: float = 600) -> Ended:
    """Wait for the end of a command."""
    code = process.wait(timeout)
    return Ended(code, process.output_file.read_text(errors="replace"))  # type: ignore[attr-defined]


def run(command: Sequence[str]) -> Ended:
    """Run a command to its end."""
    with started(command) as process:
        return finish(process)


def require(ended: Ended) -> None:
    """Stop the drills where the undisturbed case fails: nothing could be compared."""
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}: {ended.output[-2000:]}")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout: float = 300) -> bool:
    """Wait until the condition holds; false if the process has ended before."""
    end = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def result_of(folder: Path, stage: str) -> Record:
    """What a finished run left: checksum of the weights, metrics, history."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("provenance")
    state = load_tensors(folder / WEIGHTS[stage])
    return {
        "file": sha256_of(folder / WEIGHTS[stage]),
        "weights": {name: value.tolist() for name, value in state.items()},
        "metrics": metrics,
        "history": json.loads((folder / "history.json").read_text()),
    }


def leftovers(folder: Path) -> list[str]:
    """Names of temporary files in a run folder."""
    return [path.name for path in folder.rglob("*.tmp")]


def same_as(reference: Reference, folder: Path, stage: str) -> bool:
    """Whether weights, metrics and history equal those of the undisturbed run, and nothing half-written is left."""
    return result_of(folder, stage) == result_of(reference.folder, stage) and not leftovers(folder)


def phase_of(folder: Path, stage: str) -> str:
    """How far a run had come, told by its files."""
    if not (folder / ".lock").exists():
        return "start-up or loading"
    if leftovers(folder):
        return "writing a file"
    if not (folder / LAST).exists() and not (folder / PREVIOUS).exists():
        return "first epoch"
    if not (folder / LAST).exists():
        return "between two renames"
    if not (folder / "history.json").exists():
        return "training or validation"
    return "last step" if not (folder / "metrics.json").exists() else "end"


def whole_checkpoint(folder: Path) -> Any:
    """The content of the newest checkpoint that is whole; None where there is none."""
    for name in (LAST, PREVIOUS):
        with contextlib.suppress(UserError):
            return load_tensors(folder / name, sealed=True)
    return None


def wait_for_moment(dice: random.Random, reference: Reference, output: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for a random moment in the training, before its last two epochs however busy the machine is."""
    epoch = dice.randrange(1, EPOCHS - 2)
    wait_for(lambda: (content := whole_checkpoint(output)) is not None and content["epoch"] >= epoch, process)
    time.sleep(dice.uniform(0, reference.training / EPOCHS))


def workers_of(output: Path) -> dict[int, int]:
    """Rank -> process id of the training processes that write into a folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if str(output).encode() in words and b"monai.bundle" in words:
                variables = dict(line.split(b"=", 1) for line in (entry / "environ").read_bytes().split(b"\0") if line)
                found[int(variables[b"RANK"])] = pid
    return found
