# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import InputError
from bundle.reports.blocks import render_blocks

VARIANT = {"difference_max": 0.0123, "difference_mean": 0.001, "flips": 2, "dice_min": None}


def _score(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1}


def _external(sensitivity: float) -> dict[str, Any]:
    reached = {"per_image": {"sensitivity": _score(sensitivity), "specificity": _score(0.5)}}
    return {
        "dataset": {"images": 9, "groups": 4},
        "transfer": [{"sensitivity_wish": 0.9, "reached": reached}],
        "calibration": {"per_image": {"slope": _score(0.8), "ece": _score(0.2)}},
        "classification": {"per_image": {"auroc": _score(0.7)}},
    }


def _docs(folder: Path, **records: Any) -> Path:
    (folder / "results").mkdir(parents=True)
    (folder / "inputs.md").write_text("before\n<!-- grey -->\nold\n<!-- /grey -->\nafter\n")
    (folder / "datasets.md").write_text("<!-- marks -->\n<!-- /marks -->\n")
    (folder / "recalibration.md").write_text("<!-- site -->\n<!-- /site -->\n")
    for name, record in records.items():
        (folder / "results" / f"{name}.json").write_text(json.dumps(record))
    return folder


def test_a_table_stands_between_its_marks_and_is_replaced(tmp_path: Path) -> None:
    docs = _docs(tmp_path, grey={"images": 3, "variants": {"gamma 0.8": VARIANT}})
    pages = render_blocks(docs)
    assert set(pages) == {"inputs.md"}
    page = pages["inputs.md"]
    assert page.startswith("before\n<!-- grey -->\n| 3 images stored as")
    assert page.endswith("<!-- /grey -->\nafter\n")
    assert "| gamma 0.8 | 0.012 | 0.001 | 2 | – |" in page
    assert "old" not in page
    (docs / "inputs.md").write_text(page)
    assert render_blocks(docs) == pages


def test_a_site_file_stands_beside_the_cards(tmp_path: Path) -> None:
    docs = _docs(tmp_path, external_busbra_cards=_external(0.6), external_busbra_site=_external(0.8))
    page = render_blocks(docs)["recalibration.md"]
    assert "| 9 images of 4 patients | with the cards | with this file |" in page
    assert "| sensitivity at the point meant for 0.90 | 0.600 [0.500, 0.700] | 0.800 [0.700, 0.900] |" in page


def test_what_calipers_do_is_told_of_each_kind_of_image(tmp_path: Path) -> None:
    told = {"images": 5, **{key: _score(0.2) for key in ("before", "after", "made")}}
    marks = {"normals": told, "crops": told, "lesions": {"images": 7, "dice": _score(0.9), "same": _score(0.6)}}
    page = render_blocks(_docs(tmp_path, marks=marks))["datasets.md"]
    share = "20.0 % [10.0, 30.0]"
    assert f"| normal images | 5 | told of a lesion as it is {share}, with calipers {share}, only with them" in page
    assert "| lesions, calipers moved | 7 | Dice between both outlines 0.900 [0.800, 1.000], from 0.95 on in 60" in page


def test_a_record_that_lacks_what_the_page_shows_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"grey\.json: lacks variants"):
        render_blocks(_docs(tmp_path, grey={"images": 3}))
