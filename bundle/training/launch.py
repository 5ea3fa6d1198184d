# SPDX-License-Identifier: Apache-2.0
"""Start a training in one or several processes, and start it again when it dies.

torchrun's own ``--max-restarts`` starts workers again inside the same agent; it was seen to fail to. Here every try is
a new process tree, and the reason of an end decides whether there is another try.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from types import FrameType

USERS_MISTAKE = 2
FINAL = (0, USERS_MISTAKE, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes that another try would not change: done, a user's mistake, stopped by the user or the scheduler."""

LONGEST_PAUSE = 60.0


def run_with_restarts(command: Sequence[str], max_restarts: int, first_pause: float = 1.0) -> int:
    """Run a command until it ends for good, with a pause that doubles before every restart.

    SIGINT and SIGTERM are passed on to the command.

    Args:
        command: that goes on where it was when it is run again.
        max_restarts: 0 for a single try.
        first_pause: seconds before the first restart.

    Returns:
        the exit code of the last try; 128 + n when signal n ended it.
    """
    for done in range(max_restarts + 1):
        code = _run(command)
        if code in FINAL or done == max_restarts:
            break
        pause = min(first_pause * 2**done, LONGEST_PAUSE)
        print(
            f"the training ended with {describe(code)}; restart {done + 1} of {max_restarts} in {pause:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(pause)
    return code


def run_processes(words: Sequence[str], processes: int, nodes: int = 1, rendezvous: str | None = None) -> int:
    """Run a Python command in several processes that torch.distributed connects; one try.

    Args:
        words: what follows ``python``.
        processes: on this node.
        nodes: that take part; each calls this function.
        rendezvous: ``host:port`` of one of the nodes, reachable from all; None for a single node.

    Returns:
        0; 2 when a process ended so, by a user's mistake; 130 or 143 when it was stopped; else 1.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        run_id="training" if rendezvous else str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*words)
    except SignalException as stop:
        return 128 + int(stop.sigval)
    except ChildFailedError as error:
        codes = {rank: _positive(failure.exitcode) for rank, failure in error.failures.items()}
        ends = ", ".join(f"process {rank} with {describe(code)}" for rank, code in sorted(codes.items()))
        print(f"ended: {ends}", file=sys.stderr, flush=True)
        if USERS_MISTAKE in codes.values():
            return USERS_MISTAKE
        # When one died, the others are ended by SIGTERM; a stop is one only if all have stopped.
        return next(iter(codes.values())) if set(codes.values()) <= set(FINAL) else 1
    return 0


def describe(code: int) -> str:
    """Say in words what an exit code means."""
    if code > 128:
        try:
            return f"signal {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"exit code {code}"


def _run(command: Sequence[str]) -> int:
    process = subprocess.Popen(command)

    def pass_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _positive(process.wait())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _positive(code: int) -> int:
    """The exit code as a shell shows it: 128 + n for a process that signal n ended."""
    return 128 - code if code < 0 else code
