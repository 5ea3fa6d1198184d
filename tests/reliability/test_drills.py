# SPDX-License-Identifier: Apache-2.0
"""Claims about training runs that are killed, stopped, damaged and starved: each ends as an undisturbed run does.

The quick ones run with the others; all of them, minutes to an hour, with `make nightly`. RELIABILITY_DIR names a folder
where they log every try, and go on where they were.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the drills look into /proc", allow_module_level=True)

from drills import DRILLS, drill
from summary import summarise
from training_lab import Lab

LOG = Path(__file__).resolve().parents[2] / "docs" / "reliability.jsonl"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = Path(os.environ.get("RELIABILITY_DIR") or tmp_path_factory.mktemp("reliability"))
    folder.mkdir(parents=True, exist_ok=True)
    return Lab(folder)


def _failed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if not record["ok"]]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        pytest.param("saving", [0, 1, 2], id="killed while saving"),
        pytest.param("kills", [4], id="process group killed in training"),
        pytest.param("signals", [0], id="stopped by SIGTERM"),
        pytest.param("starvation", [1], id="folder cannot be made"),
        pytest.param("workers", [1], id="one of two processes killed"),
    ],
)
def test_a_disturbed_run_ends_as_an_undisturbed_one(lab: Lab, name: str, numbers: list[int]) -> None:
    assert not _failed([DRILLS[name][0](lab, number) for number in numbers])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRILLS if name != "saving_monai"])
def test_every_try_of_a_drill_goes_as_it_should(lab: Lab, name: str) -> None:
    records = drill(lab, name)
    assert len(records) == DRILLS[name][1]
    assert not _failed(records)


@pytest.mark.skipif(not LOG.exists(), reason="the drills were not recorded yet")
def test_the_page_shows_what_was_recorded(root: Path) -> None:
    page = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    records = [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]
    assert summarise(records) in page
