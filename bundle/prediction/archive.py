# SPDX-License-Identifier: Apache-2.0
"""Predict an archive by Ray Data: workers on one machine or many, one output folder that all of them share.

Every worker runs `Batch` over a few files at a time, so the records of finished cases are the only state: files that go
to another worker because theirs died are found done, or are written once more as the same files.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import secrets
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bundle.data.names import output_name
from bundle.errors import InputError, UserError
from bundle.files import remove_leftovers, to_json
from bundle.prediction.batch import Batch, weights_digest
from bundle.prediction.inputs import FrameChoice, Input
from bundle.prediction.outcome import Outcome
from bundle.prediction.predictor import Predictor
from bundle.readers import split_frame

FILES, TASKS = 16, 10_000
"""Files of a task, unless there would be more tasks than this."""

RETRIES = 3
"""Of a task whose worker died: a file that kills every worker must not keep the run for ever."""

_STORE = 256 << 20
"""Bytes of shared memory: paths and findings pass through it, no pixels."""

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True)
class Job:
    """What every worker is told; paths are absolute, and the same on every machine.

    Args:
        models: folder of the weights.
        digest: of the weights where the run was started.
        output: folder of the results.
        outputs, frames, again, run_id: see `Batch`.
        device: ``cpu`` or ``cuda``; None for GPUs where the cluster has any.
        explain, allow_unverified, backend, small, site, amp, flip, int8: see `Predictor` and its `from_folder`.
    """

    models: Path
    digest: str
    output: Path
    outputs: Sequence[str]
    frames: FrameChoice = field(default_factory=FrameChoice)
    again: bool = False
    device: str | None = None
    explain: bool = False
    allow_unverified: bool = False
    backend: str = "torch"
    small: bool = False
    site: Path | None = None
    amp: bool | None = None
    flip: bool = True
    int8: bool = False
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def open(self) -> Batch:
        """Load the networks.

        Raises:
            UserError: they cannot be loaded, or differ from those of the machine that started the run.
        """
        predictor = Predictor.from_folder(
            self.models,
            self.device,
            explain=self.explain,
            allow_unverified=self.allow_unverified,
            backend=self.backend,
            small=self.small,
            site=self.site,
            amp=self.amp,
            flip=self.flip,
            int8=self.int8,
        )
        if weights_digest(self.models, self.small, self.site) != self.digest:
            raise UserError(f"{self.models}: not the same weights on {platform.node()}; give all machines one folder")
        return Batch(predictor, self.digest, self.frames, self.output, self.outputs, self.again, self.run_id)


class Worker:
    """One process that has loaded the networks and predicts a few files per call.

    Args:
        job: the same for all.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.batch: Batch | None = None

    def __call__(self, files: dict[str, Any]) -> dict[str, list[str]]:
        """Take columns of what an `Input` has, its paths as bytes; return one of outcomes, or of why the run must end.

        Outcomes and reasons are JSON.
        """
        columns = ([Path(os.fsdecode(value)) for value in files[name]] for name in ("path", "folder"))
        try:
            self.batch = self.batch or self.job.open()
            inputs = [Input(*file) for file in zip(*columns, map(bool, files["named"]), strict=True)]
            return {"outcome": [_to_text(outcome) for outcome in self.batch.run(inputs)]}
        except UserError as error:  # as a value: what Ray raises in the other process is wrapped in its traceback
            return {"outcome": [to_json({"stop": str(error)})]}


def load_ray(address: str | None) -> Any:
    """Import Ray Data, set up to send no statistics of use and, without an address, to listen to this machine alone.

    Ray reads its environment when it is first imported in a process: nothing may have imported it before.

    Raises:
        UserError: it is missing.
    """
    os.environ.update(_QUIET)
    if address is None:
        # On Linux Ray listens on all interfaces unless it is told that there will be no cluster, as on macOS; and the
        # token by which its processes know each other would be left in the home folder.
        token = secrets.token_hex(32)
        os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray Data ({error}); pip install -r requirements-ray.txt") from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def predict_archive(
    ray: Any, inputs: Sequence[Input], job: Job, processes: int | None = None, address: str | None = None
) -> Iterator[Outcome]:
    """Predict, write and record each case once, by workers; outcomes come in the order of the inputs.

    Args:
        ray: what `load_ray` returned for the same address.
        inputs: files that every machine finds at the same path.
        job: what to do with them.
        processes: workers; by default one per GPU of the cluster, or one per CPU where it has none.
        address: of a running cluster; by default processes of this machine that other machines cannot reach.

    Raises:
        UserError: the cluster cannot be used, a result cannot be written, or a worker died `RETRIES`
            times more over the same files.
    """
    refuse_shared_names(inputs)
    try:
        _connect(ray, processes, address)
        for row in _map(ray, inputs, job, processes).iter_rows():
            yield _from_text(row["outcome"])
    except ray.exceptions.RayTaskError:
        raise  # a mistake of this program, not of its user
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        mend = "what is done is kept: run it again, with --engine local if a file ends every worker"
        raise UserError(f"Ray gave up, as it does when workers die again and again ({reason}); {mend}") from None
    finally:
        ray.shutdown()
    for folder, _, _ in os.walk(job.output):
        remove_leftovers(folder)  # of workers that were killed


def refuse_shared_names(inputs: Sequence[Input]) -> None:
    """Refuse a file whose results could be named like a frame of another: no worker sees both.

    Raises:
        UserError: it names the two.
    """
    whole = {}
    for file in inputs:
        path, frame = split_frame(file.path)
        if frame is None:
            whole[Path(path).relative_to(file.folder).as_posix()] = path
    for file in inputs:
        match = re.fullmatch(r"(.+)\.frame\d+\.png", output_name(file.path, file.folder).as_posix())
        if match and match[1] in whole:
            raise UserError(f"{file.path} would be written like a frame of {whole[match[1]]}; give them in two runs")


def _connect(ray: Any, processes: int | None, address: str | None) -> None:
    more: dict[str, Any] = {"address": address}
    if address is None:
        more = {
            **{"address": "local", "num_cpus": processes or os.cpu_count(), "include_dashboard": False},
            **{"object_store_memory": _STORE},
        }
    try:
        ray.init(**more, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"no Ray cluster at {address or 'this machine'} ({reason}); see docs/scaling.md") from None


def _map(ray: Any, inputs: Sequence[Input], job: Job, processes: int | None) -> Any:
    """The data set of outcomes; nothing runs before its rows are asked for."""
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    on_gpu = gpus > 0 if job.device is None else job.device == "cuda"
    room = gpus if on_gpu else cpus
    workers = processes or room
    if not 0 < workers <= room:
        kind = "GPUs" if on_gpu else "CPUs"
        raise UserError(f"the cluster has {room} {kind}, too few for {workers or 1} workers; give fewer --processes")
    files = max(1, min(FILES, len(inputs) // (4 * workers)), len(inputs) // TASKS)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    rows = [{"path": _encode(file.path), "folder": _encode(file.folder), "named": file.named} for file in inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pinned version has no other way to bound the retries
        return ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / files)).map_batches(
            Worker,
            fn_constructor_args=(replace(job, device="cuda" if on_gpu else "cpu"),),
            batch_size=files,
            compute=ray.data.ActorPoolStrategy(size=workers),
            **({"num_gpus": 1} if on_gpu else {"num_cpus": 1}),
            max_task_retries=RETRIES,
        )


def _encode(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


def _to_text(outcome: Outcome) -> str:
    error = outcome.error.as_dict() if outcome.error else None
    return to_json({**asdict(replace(outcome, error=None)), "error": error})


def _from_text(text: str) -> Outcome:
    content = json.loads(text)
    if "stop" in content:
        raise UserError(content["stop"])
    error = InputError(**content["error"]) if content["error"] else None
    return Outcome(**{**content, "error": error})
