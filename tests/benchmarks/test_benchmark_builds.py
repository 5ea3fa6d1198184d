# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.benchmarks.builds and scripts/benchmark.py builds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from bundle.benchmarks.arguments import BUILD_ITEMS
from bundle.benchmarks.builds import ITEMS, Item, builds_lines, measure_builds
from bundle.errors import UserError

SLEEP = Item("sleeping", (sys.executable, "nap.py", "{output}"))


@pytest.fixture
def builds(tmp_path: Path) -> Mapping[str, Path]:
    """Two builds; a nap of the former takes longer, and each notes its turn."""
    for name, seconds in (("former", 0.3), ("current", 0.0)):
        (tmp_path / name / "bundle").mkdir(parents=True)
        (tmp_path / name / "bundle" / "__init__.py").touch()
        nap = f"import sys, time\ntime.sleep({seconds})\nprint('slept', sys.argv[1])\n"
        turn = f"open({str(tmp_path / 'turns')!r}, 'a').write({name!r} + ' ')\n"
        (tmp_path / name / "nap.py").write_text(nap + turn)
    return {name: tmp_path / name for name in ("former", "current")}


def test_builds_take_turns_and_the_first_round_does_not_count(builds: Mapping[str, Path], tmp_path: Path) -> None:
    result = measure_builds(builds["former"], rounds=2, current=builds["current"], items={"nap": SLEEP})
    (nap,), timings = result["runs"], result["rounds"]["nap"]
    turns = (tmp_path / "turns").read_text().split()
    assert [sorted(turns[i : i + 2]) for i in (0, 2, 4)] == [["current", "former"]] * 3
    assert turns[0] != turns[2]
    assert [len(timings[build]) for build in builds] == [2, 2]
    assert nap["former_seconds"] == median(timing["seconds"] for timing in timings["former"]) >= 0.3
    assert nap["ratio"] == pytest.approx(nap["current_seconds"] / nap["former_seconds"], abs=1e-3)
    assert timings["former"][0]["last_line"] == "slept {output}"
    assert {"former_commit", "current_commit", "cores"} <= result["settings"].keys()
    assert f"{nap['ratio']:.2f}" in builds_lines(result)[1]


def test_what_takes_minutes_runs_once_and_tells_what_it_came_to(builds: Mapping[str, Path]) -> None:
    long = Item(SLEEP.about, SLEEP.words, once=True, told=lambda output: {"parent": output.parent.is_dir()})
    result = measure_builds(builds["former"], current=builds["current"], items={"nap": long})
    assert [len(result["rounds"]["nap"][build]) for build in builds] == [1, 1]
    assert result["rounds"]["nap"]["former"][0]["parent"] is True


def test_a_build_that_ships_other_weights_is_measured_with_those_of_before(builds: Mapping[str, Path]) -> None:
    (builds["current"] / "models").mkdir()
    (builds["current"] / "models" / "paper_model.pt").touch()
    for root in builds.values():
        (root / "nap.py").write_text("import sys; print(*sys.argv[1:])")
    item = Item("telling", (sys.executable, "nap.py", "{models}", "--last"), once=True)
    rounds = measure_builds(builds["former"], current=builds["current"], items={"nap": item})["rounds"]["nap"]
    assert [rounds[build][0]["last_line"] for build in builds] == ["--last", "--models models/paper --last"]


def test_a_command_that_fails_is_told_in_its_own_words(builds: Mapping[str, Path], tmp_path: Path) -> None:
    (builds["former"] / "nap.py").write_text("raise SystemExit('no bed')")
    with pytest.raises(UserError, match=r"former: .*nap\.py .* exit code 1: no bed"):
        measure_builds(builds["former"], current=builds["current"], items={"nap": SLEEP})
    with pytest.raises(UserError, match="no build of this bundle"):
        measure_builds(tmp_path, current=builds["current"], items={"nap": SLEEP})


def test_items_are_those_of_the_command_line_and_only_the_chosen_run(builds: Mapping[str, Path]) -> None:
    assert tuple(ITEMS) == BUILD_ITEMS
    result = measure_builds(builds["former"], ["b"], 1, builds["current"], {"a": SLEEP, "b": SLEEP})
    assert [run["name"] for run in result["runs"]] == ["b"]
    named = {"a": SLEEP, "b": replace(SLEEP, by_name=True)}
    for only, expected in ([], ["a"]), (["b"], ["b"]):
        result = measure_builds(builds["former"], only, 1, builds["current"], named)
        assert [run["name"] for run in result["runs"]] == expected


def test_a_search_tells_what_it_found_for_each_count(builds: Mapping[str, Path]) -> None:
    for root in builds.values():
        (root / "nap.py").write_text("""import sys; open(sys.argv[1], "w").write('{"runs": [{"images": 5}]}')""")
    item = replace(ITEMS["duplicates"], words=(sys.executable, "nap.py", "{output}.json"))
    result = measure_builds(builds["former"], ["nap"], current=builds["current"], items={"nap": item})
    assert [result["rounds"]["nap"][build][0]["search"] for build in builds] == [[{"images": 5}]] * 2
