# SPDX-License-Identifier: Apache-2.0
"""Claims about tests/warm.py: a command that started warm behaves as one of a new interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm

SCRIPT = """
import atexit, os, sys
atexit.register(print, "at exit")
print(__name__, sys.argv, sys.path[0], os.getcwd(), os.environ["WORD"], os.getsid(0) == os.getpid())
print("to stderr", file=sys.stderr, flush=True)
"""
ENDS = ["pass", "sys.exit(3)", "sys.exit('told')", "raise ValueError('wrong')", "os.kill(os.getpid(), 15)"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_module", [False, True])
def test_a_warm_command_does_what_a_new_interpreter_does(end: str, is_module: bool, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT + end)
    command = [sys.executable, *(["-m", "job"] if is_module else [str(tmp_path / "job.py")]), "--option", "ä b"]
    environment = {**os.environ, "WORD": "given"}
    cold = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, start_new_session=True
    )
    ended = warm.run(command, tmp_path, environment)
    assert (ended.returncode, ended.stdout) == (cold.returncode, cold.stdout)
    assert [ended.stderr.splitlines()[at] for at in (0, -1)] == [cold.stderr.splitlines()[at] for at in (0, -1)]


def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    process = warm.Popen([sys.executable, "job.py"], tmp_path, os.environ, (tmp_path / "out", tmp_path / "err"))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.1)
    assert process.poll() is None
    process.kill()
    assert process.wait() == -9
