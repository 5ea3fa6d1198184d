# SPDX-License-Identifier: Apache-2.0
"""Commands in processes of their own that start warm: forked from one that has imported torch and MONAI already.

A new interpreter spends five seconds of a core on those imports, and the tests start a hundred. What a test sees of a
command is the same: its arguments, environment, folder, output, exit code and signals. A claim about the start itself,
or about what a command imports, belongs to `subprocess`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Client, Listener
from pathlib import Path

from bundle.training.forkserver import run_as_interpreter

TESTS = Path(__file__).resolve().parent
_CONTEXT = multiprocessing.get_context("forkserver")
# Libraries alone: the bundle's own modules are loaded by each command. ONNX Runtime is left out, for it starts a
# thread, and a process with threads is not to be forked.
_CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "monai.bundle", "monai.engines", "kornia", "highdicom"])


FSYNC = os.fsync


def forget_power_cuts() -> None:
    """Let `os.fsync` return at once: tests kill processes, whose writes outlive them, and never cut the power."""
    os.fsync = os.fstat  # type: ignore[assignment]


class Popen:
    """What tests use of `subprocess.Popen`, for a Python script (`python PATH …`) or module (`python -m NAME …`).

    Args:
        command: its first word, the interpreter, and its option `-W ignore` are passed over.
        cwd: the folder that it runs in.
        env: all of its environment variables.
        output: files for its standard output and its standard error.
    """

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str], output: tuple[Path, Path]) -> None:
        self.args = list(command)
        words = self.args[1:]
        if words[:2] == ["-W", "ignore"]:
            del words[:2]
        self._process = _CONTEXT.Process(target=_command, args=(words, str(cwd), dict(env), *map(str, output)))
        self._process.start()

    @property
    def pid(self) -> int:
        """The process, which leads a session and a process group of its own as soon as it runs."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, -n when signal n ended it, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code at the end; TimeoutExpired when it takes longer than ``timeout`` seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run(..., capture_output=True, text=True)` does."""
    with tempfile.TemporaryDirectory() as folder:
        output = (Path(folder) / "stdout", Path(folder) / "stderr")
        process = Popen(command, cwd, env, output)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        told = [path.read_text(encoding="utf-8", errors="replace") for path in output]
    return subprocess.CompletedProcess(process.args, code, *told)


_SHIM = """#!{python} -IS
import os, sys
from multiprocessing.connection import Client
with Client({address!r}) as pytest:
    pytest.send((["python", *sys.argv[1:]], os.getcwd(), dict(os.environ)))
    code, *told = pytest.recv()
for stream, text in zip((sys.stdout, sys.stderr), told):
    stream.write(text)
sys.exit(code if code >= 0 else 128 - code)
"""


@contextlib.contextmanager
def python_in(folder: Path) -> Iterator[Path]:
    """A folder for the front of PATH whose `python` starts warm, for shell code."""
    with tempfile.TemporaryDirectory() as place, Listener(f"{place}/socket") as listener:

        def serve() -> None:
            while True:
                with listener.accept() as shell:
                    if (asked := shell.recv()) is None:
                        return
                    done = run(asked[0], Path(asked[1]), asked[2])
                    shell.send((done.returncode, done.stdout, done.stderr))

        shim = folder / "python"
        shim.write_text(_SHIM.format(python=sys.executable, address=listener.address))
        shim.chmod(0o700)
        server = threading.Thread(target=serve)
        server.start()
        try:
            yield folder
        finally:
            with Client(listener.address) as client:
                client.send(None)
            server.join()


def _command(words: list[str], cwd: str, env: dict[str, str], stdout: str, stderr: str) -> None:
    """Become the command: runs in the forked process."""
    os.setsid()
    for stream, path in ((sys.stdout, stdout), (sys.stderr, stderr)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    forget_power_cuts()
    given = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    of_pytest = {str(TESTS.parent), "", *(path for path in sys.path if Path(path).is_relative_to(TESTS))}
    installed = [path for path in sys.path if path not in of_pytest]
    sys.path[:] = [cwd if words[0] == "-m" else str(Path(words[0]).parent), *given, *installed]
    for name in [name for name in sys.modules if name.partition(".")[0] == "bundle"]:
        del sys.modules[name]  # the command may be of another copy of the bundle
    run_as_interpreter(words)
