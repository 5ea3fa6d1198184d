# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.audit.marks and scripts/audit_marks.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.audit.marks import _beside, audit_marks
from bundle.data.datalists import DATALIST, load_datalist
from bundle.data.phantom import make_phantom
from bundle.data.prepare import prepare
from bundle.networks import LiteUNet, network_settings
from bundle.networks.weights import flat_state_dict, write_weights
from scripts.audit_marks import main


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marks")
    counts = {"benign": 8, "malignant": 6, "normal": 8}
    make_phantom(folder / "set", counts=counts, size_range=((520, 530), (520, 540)))
    prepare(folder / "set", folder / "prepared", split="25:25:50")
    return folder


@pytest.fixture
def records(prepared: Path) -> list[dict[str, Any]]:
    datalist = load_datalist(prepared / "prepared" / DATALIST, prepared / "set")
    return [*datalist["test"], *datalist["test_normal"]]


def _bright(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels > 215)


def test_a_segmenter_that_outlines_calipers_is_found_out(records: list[dict[str, Any]]) -> None:
    result = audit_marks(records, lambda pixels: (_bright(pixels), int(_bright(pixels).sum()) > 20))
    assert (result["normals"]["images"], result["lesions"]["images"]) == (4, 7)
    assert 1 <= result["crops"]["images"] <= 7
    assert result["crops"]["made"]["estimate"] > 0
    assert result["normals"]["after"]["estimate"] >= 0.75
    assert result["normals"]["made"]["estimate"] >= 0.5
    assert result["lesions"]["same"]["estimate"] == 0
    assert result["lesions"]["dice"]["estimate"] < 0.5


def test_a_segmenter_that_looks_at_tissue_alone_passes(records: list[dict[str, Any]]) -> None:
    def segment(pixels: np.ndarray) -> tuple[np.ndarray, bool]:
        outlined = np.zeros(pixels.shape, bool)
        outlined[30:60, 40:80] = True
        return outlined, False

    result = audit_marks(records, segment)
    assert result["normals"]["made"]["estimate"] == 0
    assert result["lesions"]["same"]["estimate"] == 1


def test_calipers_stand_at_the_lesion_in_the_one_picture_and_elsewhere_in_the_other(
    records: list[dict[str, Any]],
) -> None:
    seen: list[np.ndarray] = []

    def segment(pixels: np.ndarray) -> tuple[np.ndarray, bool]:
        seen.append(pixels)
        return np.zeros(pixels.shape, bool), False

    audit_marks(records[:1], segment)
    assert len(seen) in (2, 4)  # without, or with, tissue beside the lesion
    assert np.abs(seen[0] - seen[1]).max() > 50
    assert [int(_bright(pixels).sum() > 0) for pixels in seen[:2]] == [1, 1]


def test_tissue_beside_a_lesion_holds_nothing_of_it() -> None:
    pixels, lesion = np.zeros((100, 120), np.float32), np.zeros((100, 120), bool)
    lesion[10:30, 20:60] = True
    pixels[lesion] = 255
    window = _beside(pixels, lesion)
    assert window is not None
    assert (window.shape, window.max()) == ((70, 120), 0)
    lesion[30:90, 50:110] = True
    assert _beside(pixels, lesion) is None
    assert _beside(pixels, lesion & False) is None


def test_the_command_asks_about_the_test_part_of_the_weights_own_split(prepared: Path, tmp_path: Path) -> None:
    settings = network_settings("LiteUNet", width=0.25, decoder_channels=[8, 8, 8, 4, 4], presence=True)
    network = LiteUNet(**{key: value for key, value in settings.items() if key != "architecture"})
    datalist = json.loads((prepared / "prepared" / DATALIST).read_text())
    origin = {key: datalist[key] for key in ("dataset_sha256", "split_sha256")}
    card = {**settings, "spatial_size": [32, 32], "threshold": 0.5, "presence_points": {"none_below": 0.4}, **origin}
    write_weights(tmp_path / "model.pt", flat_state_dict(network), card)
    words = [str(prepared / "set"), "--prepared_dir", str(prepared / "prepared"), "--images", "3"]
    words += ["--weights", str(tmp_path / "model.pt"), "--output", str(tmp_path / "marks.json")]
    assert main(words) == 0
    result = json.loads((tmp_path / "marks.json").read_text())
    assert result["normals"]["images"] == result["lesions"]["images"] == 3
    assert result["synthetic"] is True
    write_weights(tmp_path / "model.pt", flat_state_dict(network), {**card, "split_sha256": "another"})
    assert main(words) == 2
