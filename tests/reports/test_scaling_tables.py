# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.scaling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import InputError
from bundle.reports.scaling import render_scaling

NETWORK = {"parameters": 3_400_000, "batch_size": 8, "spatial_size": [192, 160], "precision": "float32"}
LOOP = {"settings": NETWORK, "bare_images_per_second": 20.0, "loop_images_per_second": 19.0, "ratio": 0.95}


def _docs(folder: Path, **records: Any) -> Path:
    (folder / "results").mkdir(parents=True)
    blocks = "<!-- prices -->\nNot recorded yet.\n<!-- /prices -->\n"
    blocks += "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("profile", "aims", "speeds", "builds"))
    (folder / "scaling.md").write_text(f"before\n{blocks}after\n")
    for name, record in records.items():
        (folder / "results" / f"benchmark_{name}.json").write_text(json.dumps(record))
    return folder


def test_every_recorded_speed_has_a_row_that_links_its_run(tmp_path: Path) -> None:
    runs = [{"images_per_second": 30.0}, {"images_per_second": 10.0}]
    nnunet = {
        "settings": {"ours": NETWORK, "plan": {"parameters": 46_324_558, "batch_size": 10, "patch_size": [512, 640]}},
        "runs": [
            {"step_cpu_seconds_per_image": 0.25, "cpu_seconds_per_image": 0.125},
            {"step_cpu_seconds_per_image": 18.6, "cpu_seconds_per_image": 12.5},
        ],
        "ratios": {"step_cpu_seconds_per_image": 74.4, "cpu_seconds_per_image": 100.0},
    }
    dictionary = {"settings": {**NETWORK, "workers": 2}, "runs": runs, "ratio": 3.0}
    docs = _docs(tmp_path, training=LOOP, training_bfloat16=LOOP, dictionary=dictionary, nnunet=nnunet)
    page = render_scaling(docs)["scaling.md"]
    loop = "| 3.40 M parameters, batch 8 of 192×160, float32 | 19.0 | 20.0 | 0.95 |"
    for name in ("training", "training_bfloat16"):
        assert f"| [training loop beside its bare network, images/s](runs.md#benchmark_{name}) {loop}" in page
    assert "transforms, 2 workers, images/s](runs.md#benchmark_dictionary)" in page
    assert "| 30.0 | 10.0 | 3.00 |" in page
    assert "nnU-Net 46.3 M, batch 10 of 512×640 | 0.250 | 18.600 | 74.40 |" in page
    assert "| 0.125 | 12.500 | 100.00 |" in page
    assert "Not recorded yet." in page
    assert page.startswith("before\n")
    assert page.endswith("<!-- /builds -->\nafter\n")


def test_an_option_stands_beside_what_it_costs(tmp_path: Path) -> None:
    difference = {"estimate": -0.01, "low": -0.02, "high": 0.0, "p_value": 0.04}
    default = {"name": "default", "images_per_second": 7.0, "ratio": 1.0, "dice": 0.87, "auroc": 0.9, "differences": {}}
    option = {**default, "name": "--no-flip", "ratio": 1.5, "differences": {"dice": difference, "auroc": difference}}
    record = {"settings": {"images": 430, "groups": 300}, "runs": [default, option]}
    page = render_scaling(_docs(tmp_path, prices=record))["scaling.md"]
    assert "| 430 images in 300 groups | images/s |" in page
    assert "| default | 7.0 | 1.00 | 0.870 |  | 0.900 |  |" in page
    assert "| `--no-flip` | 7.0 | 1.50 | 0.870 | -0.0100 [-0.0200, 0.0000] |" in page
    assert "Not recorded yet." not in page
    assert "<!-- speeds -->\n<!-- /speeds -->" in page


def test_a_former_build_stands_beside_this_one_in_seconds_memory_and_cpu(tmp_path: Path) -> None:
    run = {"name": "predict", "about": "1000 images", "former_seconds": 120.0, "current_seconds": 40.0}
    prediction = {
        "runs": [run],
        "rounds": {"predict": {"former": [{"seconds": 120.0}], "current": [{"seconds": 40.0}]}},
    }
    former = {"images": 9999, "cpu_seconds": 1999.8, "peak_memory_gib": 8.8}
    current = {**former, "cpu_seconds": 999.9, "peak_memory_gib": 1.1}
    searches = {"former": [{"search": [former]}], "current": [{"search": [current]}]}
    duplicates = {"runs": [{**run, "name": "duplicates"}], "rounds": {"duplicates": searches}}
    page = render_scaling(_docs(tmp_path, prediction=prediction, duplicates=duplicates))["scaling.md"]
    assert "| [1000 images, s](runs.md#benchmark_prediction) | 120.00 | 40.00 | 0.33 |" in page
    assert "among 9999 images, peak memory, GiB](runs.md#benchmark_duplicates) | 8.80 | 1.10 | 0.12 |" in page
    assert "among 9999 images, CPU ms per image](runs.md#benchmark_duplicates) | 200 | 100 | 0.50 |" in page


def test_an_aim_stands_beside_what_was_reached_and_whether_that_meets_it(tmp_path: Path) -> None:
    prediction = {
        "runs": [
            {"name": "predict", "about": "a", "former_seconds": 120.0, "current_seconds": 40.0},
            {"name": "external", "about": "b", "former_seconds": 100.0, "current_seconds": 50.0},
        ],
        "rounds": {"predict": {"former": [{}], "current": [{}]}, "external": {"former": [{}], "current": [{}]}},
    }
    few = {"images": 1250, "cpu_seconds": 125.0, "peak_memory_gib": 0.7}
    many = {"images": 10000, "cpu_seconds": 1200.0, "peak_memory_gib": 1.9}
    builds = {"former": [{"search": [few, many]}], "current": [{"search": [few, many]}]}
    duplicates = {"runs": [{"name": "duplicates", "about": "c"}], "rounds": {"duplicates": builds}}
    loop = {**LOOP, "ratio": 0.97}
    page = render_scaling(
        _docs(
            tmp_path,
            prediction=prediction,
            duplicates=duplicates,
            training=LOOP | {"ratio": 0.9},
            training_float32=loop,
        )
    )["scaling.md"]
    assert "| `predict.py`, default outputs, × the former build | ≥ 2.00 | 3.00 | yes |" in page
    assert "| `evaluate_external.py`, × the former build | ≥ 3.00 | 2.00 | no |" in page
    assert "peak memory, GiB | ≤ 1.80 | 1.90 | no |" in page
    assert "| CPU per image there, of that among the fewest | ≤ 1.10 | 1.20 | no |" in page
    assert "| training loop, of its bare network's rate, by precision | ≥ 0.95 | 0.90 to 0.97 | in part |" in page
    assert "--small" not in page
    assert "dictionary" not in page


def test_a_profile_names_where_the_time_of_each_command_goes(tmp_path: Path) -> None:
    places = [{"where": "bundle/readers/image read", "ms_per_image": 4.25, "share": 0.4}]
    run = {"name": "plain", "about": "1000 images", "seconds": 40.0, "places": places}
    page = render_scaling(_docs(tmp_path, profile={"settings": {}, "runs": [run]}))["scaling.md"]
    assert "| 1000 images | bundle/readers/image read | 4.25 | 40.0 % |" in page


def test_a_record_that_lacks_what_the_page_shows_is_named_and_no_page_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"benchmark_prices\.json: lacks runs"):
        render_scaling(_docs(tmp_path / "docs", prices={"settings": {}}))
    assert render_scaling(tmp_path) == {}
