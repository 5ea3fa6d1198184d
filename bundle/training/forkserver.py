# SPDX-License-Identifier: Apache-2.0
"""Commands in processes of their own that start warm: forked from one that has imported torch and MONAI already.

A new interpreter spends five to ten seconds on those imports, and a chain starts six. What a command sees is what it
sees of a new interpreter: arguments, folder, environment, output, signals and exit code.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    *("torch", "torch._dynamo", "monai.bundle", "monai.engines", "ignite.handlers", "kornia", "tensorboard"),
    *(
        "sklearn.ensemble",
        "sklearn.linear_model",
        "scipy.stats",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
    ),
)
"""What is imported beforehand: libraries alone, none of which starts a thread of its own or asks for a GPU."""


class WarmProcess:
    """What a chain uses of `subprocess.Popen`, for a Python script or module; for Linux alone, see `start_python`."""

    def __init__(self, words: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LIBRARIES))  # without effect on a server that is there already
        self._process = context.Process(target=_become, args=(list(words), str(cwd), dict(environment), str(log)))
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, -n where signal n ended it; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """The exit code, once it has ended."""
        self._process.join()
        return self._process.exitcode

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""
        self._process.terminate()


def start_python(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path
) -> WarmProcess | subprocess.Popen[bytes]:
    """Start ``python -W ignore WORDS`` in a session of its own, its output appended to a log.

    Args:
        words: of the command line: a script's path, or ``-m`` and a module, and its arguments.
        cwd: the folder that it runs in.
        environment: variables in addition to those of this process.
        log: the file.
    """
    if sys.platform == "linux":
        return WarmProcess(words, cwd, environment, log)
    with open(log, "ab") as file:
        # A session of its own: Ctrl-C then reaches it once, by who started it; a second would cut its last save.
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", *words],
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _become(words: list[str], cwd: str, environment: dict[str, str], log: str) -> None:
    """Run a command in the forked process, as ``python -W ignore WORDS`` would."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    os.chdir(cwd)
    os.environ.update(environment)
    if threads := environment.get("OMP_NUM_THREADS"):
        import torch  # which has read the variable before

        torch.set_num_threads(int(threads))
    sys.path.insert(0, cwd if words[0] == "-m" else str(Path(words[0]).resolve().parent))
    run_as_interpreter(words)


def run_as_interpreter(words: list[str]) -> NoReturn:
    """Do what ``python -W ignore WORDS`` does once it has started, and end this process with its exit code."""
    warnings.simplefilter("ignore")
    is_module = words[0] == "-m"
    sys.argv = words[is_module:]
    code: int | str | None = 0
    try:
        if is_module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(os.path.abspath(words[0]), run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        code = 1
        try:
            sys.excepthook(*sys.exc_info())  # ours tells a user's mistake in one line
        except SystemExit as stop:
            code = stop.code
    atexit._run_exitfuncs()  # a process of multiprocessing ends without them
    sys.exit(code)
