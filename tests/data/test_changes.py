# SPDX-License-Identifier: Apache-2.0
"""Claims about data that changed in place, or that another folder of the same name holds: the content decides."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bundle.data import changes
from bundle.data.cases import CASES
from bundle.data.changes import SEEN, require_current
from bundle.data.classifier import ensure_classifier_prepared
from bundle.data.datalists import DATALIST
from bundle.data.names import MAPS_RECORD
from bundle.data.phantom import make_phantom
from bundle.data.prepare import ensure_prepared, prepare
from bundle.errors import UserError
from bundle.files import read_json, write_json
from bundle.networks.weights import read_card, write_weights
from bundle.outputs.png import write_probability
from bundle.training.chain import require_data_unchanged

SPLIT = "60:20:20"
IMAGE, MASK = "benign/benign (1).png", "benign/benign (1)_mask.png"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("changes")
    make_phantom(root / "set", counts={"benign": 7, "malignant": 7, "normal": 2}, size_range=((48, 60), (48, 60)))
    prepare(root / "set", root / "out", split=SPLIT, seed=1)
    return root


@pytest.fixture
def made(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "own"))


def _ask(made: Path) -> None:
    ensure_prepared(made / "set", made / "out", split=SPLIT, seed=1)


def _alter(path: Path) -> None:
    """Other pixels in a file of the same size, with the times of before."""
    before = os.stat(path)
    pixels = np.array(Image.open(path))
    Image.fromarray(pixels[::-1, ::-1].copy()).save(path)
    with path.open("ab") as file:
        file.write(b"\0" * max(0, before.st_size - path.stat().st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(("file", "said"), [(IMAGE, "has other pixels"), (MASK, "has another mask")])
def test_data_that_changed_in_place_are_refused_by_name(made: Path, file: str, said: str) -> None:
    _ask(made)
    _alter(made / "set" / file)
    with pytest.raises(UserError, match=r"the data changed since .*delete .*another --output_dir") as caught:
        _ask(made)
    assert f"{IMAGE} {said}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_another_folder_of_the_same_name_is_refused(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "set"
    shutil.copytree(made / "set", other)
    for path in other.rglob("benign (*).png"):
        _alter(path)
    with pytest.raises(UserError, match=r"another folder of the same name: .* and 4 more"):
        ensure_prepared(other, made / "out", split=SPLIT, seed=1)


def test_files_that_were_only_touched_saved_again_or_moved_are_the_same_data(made: Path, tmp_path: Path) -> None:
    Image.open(made / "set" / IMAGE).save(made / "set" / IMAGE, compress_level=1)
    for path in (made / "set").rglob("*.png"):
        os.utime(path)
    shutil.move(made / "set", tmp_path / "moved")
    ensure_prepared(tmp_path / "moved", made / "out", split=SPLIT, seed=1)


def test_files_that_look_as_before_are_not_opened(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ask(made)

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(changes, "check_case", fail)
    _ask(made)
    (made / "out" / SEEN).unlink()
    with pytest.raises(AssertionError):
        _ask(made)


def test_a_bad_file_that_was_mended_is_told(made: Path) -> None:
    good = (made / "set" / IMAGE).read_bytes()
    (made / "set" / IMAGE).write_bytes(good[:200])
    prepare(made / "set", made / "out", split=SPLIT, seed=1, skip_bad=True)
    _ask(made)
    (made / "set" / IMAGE).write_bytes(good)
    with pytest.raises(UserError, match="was left out as bad and can be used now"):
        _ask(made)


def test_an_image_that_was_left_out_by_choice_may_change(made: Path) -> None:
    for name in ("", "_mask"):
        shutil.copy(made / f"set/benign/benign (1){name}.png", made / f"set/malignant/copy{name}.png")
    prepare(made / "set", made / "out", split=SPLIT, seed=1, conflicts="drop")
    os.utime(made / "set" / IMAGE)
    _ask(made)


def test_a_chain_whose_data_changed_is_refused_before_its_steps(made: Path) -> None:
    (made / "chain/prepared").mkdir(parents=True)
    shutil.copytree(made / "out", made / "chain/prepared/seed0")
    require_data_unchanged(made / "set", made / "chain")
    _alter(made / "set" / IMAGE)
    with pytest.raises(UserError, match=r"the data changed since .*another --output_dir, or delete .*chain"):
        require_data_unchanged(made / "set", made / "chain")
    shutil.rmtree(made / "chain/prepared")
    require_data_unchanged(made / "set", made / "chain")


def test_prepared_folders_of_before_are_compared_by_their_pixels(made: Path) -> None:
    (made / "out" / SEEN).write_text("[]")
    require_current(made / "set", made / "out")
    assert json.loads((made / "out" / SEEN).read_text())[""]["files"].keys() >= {IMAGE}
    assert {CASES, DATALIST} <= {path.name for path in (made / "out").iterdir()}


@pytest.fixture
def segmented(made: Path) -> Path:
    """A segmenter of 20:20:60, and its maps of the images as they are."""
    _segment(made)
    return made


def _segment(made: Path) -> None:
    prepare(made / "set", made / "seg", split="20:20:60", seed=1)
    datalist, cases = read_json(made / "seg" / DATALIST), read_json(made / "seg" / CASES)["cases"]
    card = {key: datalist[key] for key in ("dataset_sha256", "split", "split_sha256")}
    write_weights(made / "model.pt", {"w": torch.zeros(1)}, {**card, "split_seed": 1, "threshold": 0.5})
    if not (made / "maps").exists():
        for case in cases:
            write_probability(np.zeros(case["size"], np.float32), made / "maps/probabilities" / case["image"])
        pixels = {case["image"]: case["sha256"][:16] for case in cases}
        write_json(made / "maps" / MAPS_RECORD, {**read_card(made / "model.pt"), "pixels": pixels})


def _classify(made: Path) -> dict[str, Any]:
    sources = [
        {"datalist": made / "seg" / DATALIST, "maps_dir": made / "maps/probabilities", "weights": made / "model.pt"}
    ]
    return ensure_classifier_prepared(made / "set", sources, made / "classifier", "50:25:25", 0, "predicted")


def test_a_classifier_s_list_of_data_that_changed_is_refused(segmented: Path) -> None:
    image = Path(_classify(segmented)["training"][0]["image"])
    _classify(segmented)
    _alter(image)
    with pytest.raises(UserError, match=rf"the data changed since .*{re.escape(image.name)} has other pixels"):
        _classify(segmented)
    _segment(segmented)  # the same weights again, as a training that never saw the image gives them
    with pytest.raises(UserError, match=r"datalist_classifier\.json: the data changed since it was made"):
        _classify(segmented)
    (segmented / "classifier/datalist_classifier.json").unlink()
    with pytest.raises(UserError, match=r"the data changed since .*maps was predicted; delete .*segmented again"):
        _classify(segmented)
