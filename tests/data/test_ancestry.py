# SPDX-License-Identifier: Apache-2.0
"""Claims about weights that were started from others: what those have seen is never scored as unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.data.ancestry import ancestors, describe_start, leave_out_seen, unseen
from bundle.data.cases import CASES, read_cases
from bundle.data.phantom import make_phantom
from bundle.data.prepare import ensure_prepared
from bundle.data.training_sets import add_recorded, pixels_of, read_training_sets, refuse_training_set
from bundle.errors import UserError
from bundle.networks.weights import read_card, write_weights
from bundle.training.given import datalist_of

SPLIT = "30:20:50"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ancestry")
    make_phantom(root / "set", counts={"benign": 8, "malignant": 8, "normal": 2}, size_range=((48, 60), (48, 60)))
    ensure_prepared(root / "set", root / "out", split=SPLIT, seed=0)
    return root


def _write(folder: Path, seen: set[str] | None = None, **card: Any) -> Path:
    """Weights with a card and, where they are told, the pixels that they have seen."""
    content = {"name": "others", "dataset_sha256": "d0", "split_sha256": "s0", "synthetic": False, **card}
    write_weights(folder / "model.pt", {"w": torch.zeros(1)}, content)
    if seen is not None:
        add_recorded(folder, {content["dataset_sha256"]: seen})
    return folder / "model.pt"


def _wanted(data: Path) -> dict[str, Any]:
    return {"dataset_dir": data / "set", "prepared_dir": data / "out", "split": SPLIT, "seed": 0}


def _digest(data: Path, image: str) -> str:
    folder = (data / "set").resolve()
    return next(c.sha256[:16] for c in read_cases(data / "out" / CASES).cases if str(folder / c.image) == image)


def test_images_that_the_start_weights_have_seen_are_in_training_alone(data: Path, tmp_path: Path) -> None:
    whole = ensure_prepared(**_wanted(data))
    parts = ("training", "validation", "test")
    seen = {part: whole[part][0] for part in parts}
    init = _write(tmp_path, {_digest(data, record["image"]) for record in seen.values()})
    found = datalist_of(None, init, **_wanted(data))
    assert seen["training"] in found["training"]
    for part in ("validation", "test"):
        kept = [record for record in whole[part] if record["group"] != seen[part]["group"]]
        assert found[part] == kept
        assert len(kept) < len(whole[part])
    assert found["started_from"]["sha256"] == read_card(init)["sha256"]
    assert found["trained_on"].keys() == {"d0", whole["dataset_sha256"]}


def test_weights_of_this_very_split_have_not_seen_its_test_part(data: Path, tmp_path: Path) -> None:
    whole = ensure_prepared(**_wanted(data))
    card = {key: whole[key] for key in ("dataset_sha256", "split_sha256")}
    init = _write(tmp_path, next(iter(pixels_of(data / "out").values())), **card)
    found = datalist_of(None, init, **_wanted(data))
    assert all(found[part] == whole[part] for part in ("training", "validation", "test"))
    init = _write(tmp_path, **{**card, "split_sha256": "another"})
    with pytest.raises(UserError, match=r"has seen all validation images of .*--split_seed"):
        datalist_of(None, init, **_wanted(data))


def test_weights_that_nothing_is_known_of_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not tell which images model\.pt has seen.*record_training_set"):
        datalist_of(None, _write(tmp_path), **_wanted(data))
    with pytest.raises(UserError, match="no such weights"):
        datalist_of(None, tmp_path / "none.pt", **_wanted(data))
    found = datalist_of(None, _write(tmp_path, synthetic=True), **_wanted(data))
    assert found["validation"]


def test_an_evaluation_scores_nothing_that_any_ancestor_has_seen(data: Path, tmp_path: Path) -> None:
    whole = ensure_prepared(**_wanted(data))
    first, second = whole["test"][0], whole["test"][-1]
    oldest = _write(tmp_path / "a", {_digest(data, first["image"])})
    middle = {"dataset_sha256": "d1", "started_from": describe_start(oldest)}
    parent = _write(tmp_path / "b", {_digest(data, second["image"])}, **middle)
    child = _write(tmp_path / "c", dataset_sha256="d2", started_from=describe_start(parent))
    add_recorded(tmp_path / "c", {"d0": {_digest(data, first["image"])}, "d1": {_digest(data, second["image"])}})
    assert [start["dataset_sha256"] for start in ancestors(read_card(child))] == ["d1", "d0"]
    ask = (whole, data / "set", [data / "out"])
    groups = {first["group"], second["group"]}
    assert unseen(whole["test"], *ask, child) == [r for r in whole["test"] if r["group"] not in groups]
    assert unseen(whole["test"], *ask, oldest) == whole["test"]
    with pytest.raises(UserError, match="have seen all of these images"):
        unseen([first], *ask, child)


def test_the_dataset_of_a_start_is_no_external_one(data: Path, tmp_path: Path) -> None:
    start = {"weights": "model.pt", "name": "set", "dataset_sha256": "d0", "sha256": "w"}
    cards = {"segmenter": {"name": "own", "dataset_sha256": "d9", "started_from": start}}
    add_recorded(tmp_path, {"d0": {"abc"}, "d9": {"xyz"}, "other": {"no"}})
    trained = read_training_sets([], tmp_path, cards)
    assert trained == {"d0": {"abc"}, "d9": {"xyz"}}
    cases = read_cases(data / "out" / CASES)
    refuse_training_set(cases, cards, data / "set", trained)
    with pytest.raises(UserError, match="has the name of the dataset that the segmenter's start"):
        refuse_training_set(cases, cards, data / "set", {"d9": {"xyz"}})
    start["dataset_sha256"] = cases.dataset_sha256
    with pytest.raises(UserError, match="is the dataset that the segmenter's start"):
        refuse_training_set(cases, cards, data / "set", trained)


def test_a_datalist_without_start_weights_stays_as_it_is(data: Path) -> None:
    whole, found = ensure_prepared(**_wanted(data)), datalist_of(None, None, **_wanted(data))
    assert "started_from" not in found
    assert {key: value for key, value in found.items() if key != "trained_on"} == whole
    start = {"weights": "w", "synthetic": True}
    assert leave_out_seen(whole, data / "set", [data / "out"], start, data) == whole
