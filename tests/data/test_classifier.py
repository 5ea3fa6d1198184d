# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.data.classifier."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bundle.data.classifier import DATALIST, ensure_classifier_prepared
from bundle.data.splits import PARTS, oversample
from bundle.errors import InputError, UserError
from bundle.files import write_json
from bundle.weights import write_weights

DATASET = "ab" * 32
SHARED = "shared"  # a group of two images


@dataclass(frozen=True)
class World:
    """A dataset of tiny images, its segmentation datalist, a segmenter and its maps."""

    dataset: Path
    prepared: Path
    maps: Path
    weights: Path
    output: Path

    def datalist(self, **changes: Any) -> dict[str, Any]:
        """What the classifier's configs ask for."""
        wanted: dict[str, Any] = {"split": "60:10:30", "seed": 0, "masks": "predicted", **changes}
        return ensure_classifier_prepared(
            self.dataset, self.prepared / "datalist_segmentation.json", self.maps, self.output, self.weights, **wanted
        )


def write_segmenter(weights: Path, value: float = 0.0, **changes: Any) -> None:
    card = {"dataset_sha256": DATASET, "split": "15:5:80", "split_seed": 0, "threshold": 0.5, **changes}
    write_weights(weights, {"w": torch.full((1,), value)}, card)


def write_png(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(*(tmp_path / name for name in ("data", "prepared", "maps", "model.pt", "run")))
    lists: dict[str, list[dict[str, Any]]] = {f"{part}{kind}": [] for part in PARTS for kind in ("", "_normal")}
    for label, number in (("benign", 20), ("malignant", 14), ("normal", 4)):
        for index in range(number):
            image, mask = f"{label}/{label} ({index}).png", f"{label}/{label} ({index})_mask.png"
            part = ("training", "validation")[index] if index < 2 else "test"
            group = SHARED if label != "normal" and index in (5, 6) else image
            record = {"image": image, "label": [mask], "class": label, "group": f"{label[0]}{group}"}
            lists[part + ("_normal" if label == "normal" else "")].append(record)
            write_png(made.dataset / image, 90 + index)
            write_png(made.dataset / mask, 255)
            write_png(made.maps / image, 128)
    header = {"name": "dots", "description": "", "synthetic": False, "source": "made here", "dataset_sha256": DATASET}
    header |= {"split": "15:5:80", "seed": 0, "fold": None, "labels": {}}
    write_json(made.prepared / "datalist_segmentation.json", {**header, **lists})
    write_segmenter(made.weights)
    return made


def test_only_lesions_of_the_segmenters_test_part_reach_the_classifier(world: World) -> None:
    datalist = world.datalist()
    used = Counter(Path(record["image"]).relative_to(world.dataset).as_posix() for p in PARTS for record in datalist[p])
    segmentation = json.loads((world.prepared / "datalist_segmentation.json").read_text())
    assert used == Counter(record["image"] for record in segmentation["test"])
    assert len(used) == 18 + 12
    sizes = {part: Counter(record["class"] for record in datalist[part]) for part in PARTS}
    assert sizes["training"] == {"benign": 11, "malignant": 7}
    assert all(sizes[part]["benign"] and sizes[part]["malignant"] for part in PARTS)


@pytest.mark.parametrize("seed", range(8))
def test_no_group_crosses_parts(world: World, seed: int) -> None:
    datalist = world.datalist(seed=seed)
    parts = [{record["group"] for record in datalist[part]} for part in PARTS]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert sum(record["group"] == f"b{SHARED}" for part in PARTS for record in datalist[part]) == 2


def test_labels_are_zero_for_benign_and_one_for_malignant(world: World) -> None:
    datalist = world.datalist()
    records = [record for part in PARTS for record in datalist[part]]
    assert {(record["class"], record["label"]) for record in records} == {("benign", 0.0), ("malignant", 1.0)}
    assert all(f"/{record['class']}/" in record["image"] for record in records)


def test_records_name_predicted_maps_and_the_file_holds_relative_paths(world: World) -> None:
    datalist = world.datalist()
    for record in datalist["test"]:
        relative = Path(record["image"]).relative_to(world.dataset)
        assert record["probability"] == str(world.maps / relative)
    text = (world.output / DATALIST).read_text()
    assert str(world.dataset.parent) not in text
    card = json.loads(world.weights.with_suffix(".json").read_text())
    assert json.loads(text)["segmenter_sha256"] == card["sha256"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "70:10:20"}, "split 70:10:20, but the datalist has 15:5:80"),
        ({"split_seed": 7}, "split_seed 7, but the datalist has 0"),
        ({"dataset_sha256": "cd" * 32}, "dataset_sha256 cdcd"),
    ],
)
def test_maps_of_a_segmenter_of_another_split_seed_or_dataset_are_refused_by_name(
    world: World, change: dict[str, Any], words: str
) -> None:
    write_segmenter(world.weights, **change)
    with pytest.raises(UserError, match=words) as caught:
        world.datalist()
    assert str(world.weights) in str(caught.value)
    assert not world.output.exists()


def test_another_segmenter_is_refused_also_where_the_datalist_stands_already(world: World) -> None:
    world.datalist()
    write_segmenter(world.weights, value=1.0, split_seed=7)
    with pytest.raises(InputError, match="was made with segmenter_sha256"):
        world.datalist()


def test_a_segmenter_without_its_card_or_with_a_classifiers_is_refused(world: World) -> None:
    card = world.weights.with_suffix(".json")
    write_json(card, {"sha256": "ab", "temperature": 1.0})
    with pytest.raises(UserError, match="card of another network"):
        world.datalist()
    card.unlink()
    with pytest.raises(UserError, match=r"no card \(model\.json\)"):
        world.datalist()
    with pytest.raises(UserError, match="need the weights of the segmenter"):
        replace(world, weights=None).datalist()  # type: ignore[arg-type]


def test_ground_truth_is_refused_unless_the_output_folder_says_oracle(world: World) -> None:
    with pytest.raises(UserError, match="'oracle'"):
        world.datalist(masks="oracle")
    assert not world.output.exists()
    datalist = replace(world, output=world.output.with_name("oracle_run")).datalist(masks="oracle")
    (mask,) = datalist["test"][0]["probability"]
    assert mask == datalist["test"][0]["image"].replace(".png", "_mask.png")
    assert (datalist["masks"], datalist["segmenter_sha256"]) == ("oracle", None)


def test_an_oracles_datalist_does_not_serve_a_run_on_predicted_masks(world: World) -> None:
    oracle = replace(world, output=world.output.with_name("oracle_run"))
    oracle.datalist(masks="oracle")
    with pytest.raises(InputError, match="was made with masks oracle, not predicted"):
        oracle.datalist()


@pytest.mark.parametrize("kind", ["maps", "dataset"])
def test_a_missing_map_or_image_is_named(world: World, kind: str) -> None:
    world.datalist()
    (getattr(world, kind) / "benign" / "benign (9).png").unlink()
    with pytest.raises(InputError, match=r"benign \(9\)\.png: is named in the datalist but missing"):
        world.datalist()


def test_no_maps_at_all_names_the_first(world: World) -> None:
    shutil.rmtree(world.maps)
    with pytest.raises(InputError, match="segment again"):
        world.datalist()


@pytest.mark.parametrize("change", [{"split": "50:20:30"}, {"seed": 3}])
def test_a_folder_of_another_split_or_seed_is_refused(world: World, change: dict[str, Any]) -> None:
    world.datalist()
    with pytest.raises(InputError, match="was made with"):
        world.datalist(**change)


def test_the_same_call_again_gives_the_same_and_leaves_the_file_alone(world: World) -> None:
    first, written = world.datalist(), (world.output / DATALIST).stat().st_mtime_ns
    assert world.datalist() == first
    assert (world.output / DATALIST).stat().st_mtime_ns == written


def test_a_split_that_leaves_a_class_out_is_refused_before_training(world: World) -> None:
    file = world.prepared / "datalist_segmentation.json"
    content = json.loads(file.read_text())
    content["test"] = [record for record in content["test"] if record["class"] == "benign"]
    write_json(file, content)
    with pytest.raises(UserError, match="no malignant image is left for training"):
        world.datalist()


def test_a_file_that_is_no_classifiers_datalist_is_refused(world: World) -> None:
    write_json(world.output / DATALIST, {"training": []})
    with pytest.raises(InputError, match="lacks masks"):
        world.datalist()


def test_an_unknown_source_of_masks_is_refused(world: World) -> None:
    with pytest.raises(UserError, match="give one of predicted, oracle"):
        world.datalist(masks="truth")


def test_oversampling_balances_the_training_part_with_its_own_images_only(world: World) -> None:
    datalist = world.datalist()
    more = oversample(datalist["training"], seed=0)
    assert Counter(record["class"] for record in more) == {"benign": 11, "malignant": 11}
    assert {record["image"] for record in more} == {record["image"] for record in datalist["training"]}
