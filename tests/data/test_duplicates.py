# SPDX-License-Identifier: Apache-2.0
"""Claims about near duplicates."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter, map_coordinates
from threadpoolctl import threadpool_info

from bundle.data.cases import Case
from bundle.data.check import check_dataset
from bundle.data.duplicates import _in_threads, find_pairs, group_near_duplicates
from bundle.data.phantom import make_phantom


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


def test_evidence_tells_equal_pixels_frames_and_patients_apart(tmp_path: Path) -> None:
    cases = _cases(tmp_path, {"a.png": _picture(0), "b.png": _picture(0)})
    same = [Case(case.image, (), "benign", sha256="s") for case in cases]
    assert [pair.evidence for pair in find_pairs(same, tmp_path)] == ["equal pixels"]
    assert [pair.evidence.split(" (")[0] for pair in find_pairs(cases, tmp_path)] == ["same frame"]
    cases = _cases(tmp_path, {"a.png": _picture(0), "b.png": _picture(1)}, {"a.png": "P1", "b.png": "P1"})
    assert [pair.evidence for pair in find_pairs(cases, tmp_path)] == ["same patient"]


def test_pictures_without_content_stay_alone(tmp_path: Path) -> None:
    pictures = {f"{grey}.png": Image.new("L", (80, 60), grey) for grey in (0, 90, 255)}
    pictures["tiny.png"] = Image.new("L", (1, 1), 9)
    assert len(set(group_near_duplicates(_cases(tmp_path, pictures), tmp_path).values())) == 4


def test_libraries_start_no_threads_within_the_threads_that_compare() -> None:
    before, blas = cv2.getNumThreads(), threadpool_info()
    seen = _in_threads(lambda _: (cv2.getNumThreads(), _blas_threads()), range(8), "Looking", "time")
    assert {(1, (1,))} == set(seen)
    assert (cv2.getNumThreads(), threadpool_info()) == (before, blas)


def _blas_threads() -> tuple[int, ...]:
    return tuple({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})


def test_one_picture_or_none_needs_no_pair(tmp_path: Path) -> None:
    assert find_pairs([], tmp_path) == []
    assert find_pairs(_cases(tmp_path, {"a.png": _picture(0)}), tmp_path) == []


def _crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.16 * width), round(0.05 * height), round(0.98 * width), round(0.88 * height)))


def _scale(image: Image.Image) -> Image.Image:
    return image.resize((round(0.8 * image.width), round(0.8 * image.height)), Image.Resampling.BICUBIC)


def _compress(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Image.open(buffer).convert("L")


def _caption(image: Image.Image) -> Image.Image:
    image = image.copy()
    draw = ImageDraw.Draw(image)
    draw.text((12, image.height - 34), "RIGHT BREAST", fill=255, font_size=20)
    for x, y in ((0.3, 0.4), (0.7, 0.5)):
        x, y = round(x * image.width), round(y * image.height)
        draw.line((x - 6, y, x + 6, y), fill=255)
        draw.line((x, y - 6, x, y + 6), fill=255)
    return image


def _gamma(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.rint(255 * (np.asarray(image) / 255) ** 0.6).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": _crop,
    "scaled": _scale,
    "compressed": _compress,
    "captioned": _caption,
    "gamma": _gamma,
    "mirrored": ImageOps.mirror,
    "all": lambda image: _gamma(_caption(_compress(_scale(_crop(image))))),
}


def _plant(folder: Path, counts: dict[str, int], sources: int) -> dict[str, set[str]]:
    """Make a phantom and change copies of some images, with their masks, under new names in both classes."""
    make_phantom(folder, counts=counts, size_range=((150, 240), (200, 300)))
    planted: dict[str, set[str]] = {}
    for number in range(1, sources + 1):
        label, other = ("benign", "malignant") if number % 2 else ("malignant", "benign")
        source = f"{label}/{label} ({number}).png"
        planted[source] = {source}
        for place, (name, change) in enumerate(CHANGES.items()):
            # Odd and even changes go to different classes, and no name tells the source.
            target = f"{(label, other)[place % 2]}/x{number:02d}{name}.png"
            image = change(Image.open(folder / source))
            image.save(folder / target)
            mask = np.zeros((image.height, image.width), np.uint8)
            mask[image.height // 3 : image.height // 2, image.width // 3 : image.width // 2] = 255
            Image.fromarray(mask).save(folder / target.replace(".png", "_mask.png"))
            planted[source].add(target)
    return planted


def _check_planted(folder: Path, planted: dict[str, set[str]]) -> None:
    groups = group_near_duplicates(check_dataset(folder).cases, folder)
    members: dict[str, set[str]] = {}
    for image, group in groups.items():
        members.setdefault(group, set()).add(image)
    together = {frozenset(images) for images in members.values() if len(images) > 1}
    assert together == {frozenset(images) for images in planted.values()}


def test_planted_copies_are_all_found_and_no_distinct_phantoms_merged(tmp_path: Path) -> None:
    planted = _plant(tmp_path / "set", {"benign": 35, "malignant": 25, "normal": 10}, sources=6)
    _check_planted(tmp_path / "set", planted)


@pytest.mark.slow
def test_planted_copies_are_found_among_500_distinct_phantoms(tmp_path: Path) -> None:
    planted = _plant(tmp_path / "set", {"benign": 250, "malignant": 200, "normal": 50}, sources=30)
    _check_planted(tmp_path / "set", planted)


def test_images_that_share_only_text_stay_alone(tmp_path: Path) -> None:
    make_phantom(tmp_path / "set", counts={"normal": 10}, size_range=((200, 200), (260, 260)))
    pictures = {}
    for number, path in enumerate(sorted((tmp_path / "set/normal").glob("*).png"))):
        # Every third is dark, and every third shows nothing else.
        image = ImageEnhance.Brightness(Image.open(path)).enhance((1, 0.2, 0)[number % 3])
        draw = ImageDraw.Draw(image)
        for line, text in enumerate(("RIGHT BREAST", "12 O'CLOCK 3 CM FN", "GENERAL HOSPITAL")):
            draw.text((20, 100 + 30 * line), text, fill=255, font_size=24)
        pictures[f"{number}.png"] = image
    assert find_pairs(_cases(tmp_path, pictures), tmp_path) == []


def test_moved_probe_shows_the_same_scene(tmp_path: Path) -> None:
    make_phantom(tmp_path / "set", counts={"benign": 8}, size_range=((200, 200), (260, 260)))
    pictures = {}
    rng = np.random.default_rng(0)
    for number in range(8):
        image = np.asarray(Image.open(tmp_path / f"set/benign/benign ({number + 1}).png"), dtype=np.float64)
        pictures[f"{number}a.png"] = Image.fromarray(image.astype(np.uint8))
        # Tissue is displaced by a few pixels, differently at each place, and half of the speckle is new.
        row, column = (gaussian_filter(rng.normal(size=image.shape), 25) for _ in range(2))
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        moved = map_coordinates(image, [y + 2 * row / row.std(), x + 8 + 2 * column / column.std()], order=1)
        noise = gaussian_filter(rng.normal(size=image.shape), 1)
        moved = gaussian_filter(moved, 1) * (1 + 0.35 * noise / noise.std())
        pictures[f"{number}b.png"] = Image.fromarray(np.clip(moved, 0, 255).astype(np.uint8))
    groups = group_near_duplicates(_cases(tmp_path, pictures), tmp_path)
    assert groups == {f"{number}{letter}.png": f"g{number + 1:04d}" for number in range(8) for letter in "ab"}


@pytest.mark.slow
@pytest.mark.skipif("BUSI_DIR" not in os.environ, reason="set BUSI_DIR to the folder Dataset_BUSI_with_GT")
def test_busi_holds_the_groups_that_were_seen_by_eye() -> None:
    folder = Path(os.environ["BUSI_DIR"])
    groups = group_near_duplicates(check_dataset(folder).cases, folder)
    sizes = np.unique(list(groups.values()), return_counts=True)[1]
    # A few scenes near the border may fall either way with another build of OpenCV.
    assert 155 <= (sizes > 1).sum() <= 159
    assert 360 <= sizes[sizes > 1].sum() <= 372
    for label, *numbers in (
        ("benign", 204, 206, 249, 282, 303),
        ("malignant", 95, 96, 97),
        ("malignant", 11, 113),
        ("malignant", 120, 122),
    ):
        assert len({groups[f"{label}/{label} ({number}).png"] for number in numbers}) == 1
    assert groups["benign/benign (433).png"] == groups["malignant/malignant (145).png"]
