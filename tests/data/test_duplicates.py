# SPDX-License-Identifier: Apache-2.0
"""Claims about near duplicates."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from bundle.data.cases import Case
from bundle.data.check import check_dataset
from bundle.data.duplicates import find_pairs, group_near_duplicates


def _picture(seed: int) -> Image.Image:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(200, 260)), 4)
    scaled = (noise - noise.min()) / np.ptp(noise) * 255
    return Image.fromarray(scaled.astype(np.uint8))


def _cases(folder: Path, pictures: dict[str, Image.Image], patients: dict[str, str] | None = None) -> list[Case]:
    for name, picture in pictures.items():
        picture.save(folder / name, quality=80)
    return [Case(name, (), "benign", (patients or {}).get(name), sha256=name) for name in pictures]


def test_resaved_scaled_cropped_and_marked_copies_stand_in_one_group(tmp_path: Path) -> None:
    original = _picture(0)
    marked = np.asarray(original).copy()
    marked[60:64, 40:120] = marked[40:90, 80:83] = 255
    pictures = {
        "a.png": original,
        "b.jpg": original,
        "c.png": original.resize((390, 260)),
        "d.png": original.crop((3, 2, 258, 198)),
        "e.png": Image.fromarray(marked),
        "f.png": Image.fromarray((np.asarray(original) * 0.8 + 20).astype(np.uint8)),
    }
    assert set(group_near_duplicates(_cases(tmp_path, pictures), tmp_path).values()) == {"g0001"}


def test_unlike_pictures_stay_alone(tmp_path: Path) -> None:
    cases = _cases(tmp_path, {f"{seed:02d}.png": _picture(seed) for seed in range(30)})
    groups = group_near_duplicates(cases, tmp_path)
    assert groups == {f"{seed:02d}.png": f"g{seed + 1:04d}" for seed in range(30)}


def test_group_names_do_not_depend_on_the_order_of_the_cases(tmp_path: Path) -> None:
    cases = _cases(tmp_path, {f"{place}.png": _picture(place // 2) for place in range(6)})
    assert group_near_duplicates(cases, tmp_path) == group_near_duplicates(cases[::-1], tmp_path)


def test_duplicate_joins_the_patients_that_share_it(tmp_path: Path) -> None:
    pictures = {
        "a.png": _picture(0),
        "b.png": _picture(1),
        "c.png": _picture(1),
        "d.png": _picture(2),
        "e.png": _picture(3),
    }
    patients = {"a.png": "P1", "b.png": "P1", "c.png": "P2", "d.png": "P2", "e.png": "P3"}
    groups = group_near_duplicates(_cases(tmp_path, pictures, patients), tmp_path)
    assert groups == {"a.png": "g0001", "b.png": "g0001", "c.png": "g0001", "d.png": "g0001", "e.png": "g0002"}


def test_evidence_tells_equal_pixels_from_alike_ones(tmp_path: Path) -> None:
    cases = _cases(tmp_path, {"a.png": _picture(0), "b.png": _picture(0)})
    same = [Case(case.image, (), "benign", sha256="s") for case in cases]
    assert [pair.evidence for pair in find_pairs(same, tmp_path)] == ["equal pixels"]
    assert [pair.evidence for pair in find_pairs(cases, tmp_path)] == ["alike (0 of 512 bits)"]


@pytest.mark.slow
@pytest.mark.skipif("BUSI_DIR" not in os.environ, reason="set BUSI_DIR to the folder Dataset_BUSI_with_GT")
def test_busi_holds_the_groups_that_were_seen_by_eye() -> None:
    folder = Path(os.environ["BUSI_DIR"])
    groups = group_near_duplicates(check_dataset(folder).cases, folder)
    sizes = np.unique(list(groups.values()), return_counts=True)[1]
    assert (int((sizes > 1).sum()), int(sizes[sizes > 1].sum()), int(sizes.max())) == (147, 337, 7)
    assert groups["benign/benign (433).png"] == groups["malignant/malignant (145).png"]
