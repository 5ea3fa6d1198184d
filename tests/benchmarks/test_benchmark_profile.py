# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.benchmarks.profile and scripts/benchmark.py profile."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

import bundle.benchmarks.profile
from bundle.benchmarks.arguments import PROFILED
from bundle.benchmarks.profile import WORKS, Work, count_places, measure_profile, profile_lines
from bundle.errors import UserError

_MAIN = "<module> (scripts/predict.py:10);main (scripts/predict.py:50)"
STACKS = "\n".join(
    [
        f"{_MAIN};read (bundle/readers/image.py:5);open (PIL/Image.py:9) 30",
        f"{_MAIN};read (/far/away/bundle/readers/image.py:5) 10",
        "<module> (scripts/predict.py:10);<module> (bundle/outputs/case.py:1);_load (<frozen importlib>:1) 50",
        "_bootstrap (threading.py:1);run (concurrent/futures/thread.py:7) 10",
        "_bootstrap (threading.py:1);_worker (concurrent/futures/thread.py:69) 500",
        f"{_MAIN};Future.result (concurrent/futures/_base.py:428);Condition.wait (threading.py:295) 500",
    ]
)
"""What py-spy writes, with a file in another folder."""


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures: what these commands do needs none."""
    monkeypatch.setattr(bundle.benchmarks.profile, "make_pictures", lambda folder: (folder / "images").mkdir())


@pytest.fixture
def spy(tmp_path: Path) -> str:
    """Runs what it is given, and writes `STACKS`, as py-spy would what it saw."""
    program = tmp_path / "spy"
    program.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        "words = sys.argv[sys.argv.index('--') + 1:]\n"
        f"open(sys.argv[sys.argv.index('--output') + 1], 'w').write({STACKS!r})\n"
        "sys.exit(subprocess.run(words).returncode)\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return str(program)


def test_what_is_seen_counts_for_the_innermost_function_of_this_bundle() -> None:
    assert count_places(STACKS.splitlines()) == {
        "bundle/readers/image read": 40,
        "imports": 50,
        "outside this bundle's code": 10,
    }


@pytest.mark.usefixtures("pictures")
def test_a_profile_tells_the_time_of_an_image_in_each_place(spy: str, tmp_path: Path) -> None:
    works = {"look": Work("looking", ("-c", "import os, sys; assert os.path.isdir(sys.argv[1])", "{images}"), 10)}
    result = measure_profile(stacks=tmp_path / "kept", works=works, spy=spy)
    (run,) = result["runs"]
    places = [(place["where"], place["ms_per_image"], place["share"]) for place in run["places"]]
    assert places == [  # of 200 looks a second, and 10 images
        ("imports", 25.0, 0.5),
        ("bundle/readers/image read", 20.0, 0.4),
        ("outside this bundle's code", 5.0, 0.1),
    ]
    assert run["command"].startswith("python -c")
    assert "{images}" in run["command"]
    assert (tmp_path / "kept" / "look.txt").read_text() == STACKS
    assert "20.00" in profile_lines(result)[2]


@pytest.mark.usefixtures("pictures")
def test_a_command_that_fails_and_a_spy_that_is_not_there_are_told(spy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="exit code 1: no light"):
        measure_profile(works={"look": Work("looking", ("-c", "raise SystemExit('no light')"), 1)}, spy=spy)
    monkeypatch.setattr(bundle.benchmarks.profile.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"py-spy is not installed; run pip install -r requirements-dev\.txt"):
        measure_profile()


def test_what_is_profiled_are_the_names_of_the_command_line() -> None:
    assert tuple(WORKS) == PROFILED
