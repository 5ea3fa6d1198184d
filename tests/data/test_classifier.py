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

from bundle.data.classifier import DATALIST, ensure_classifier_prepared, middle_threshold, name_sources
from bundle.data.splits import PARTS, oversample
from bundle.errors import InputError, UserError
from bundle.files import write_json
from bundle.networks.weights import write_weights

DATASET = "ab" * 32
SPLIT = "cd" * 32
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
        return ensure_classifier_prepared(self.dataset, [self.source()], self.output, **wanted)

    def source(self) -> dict[str, Any]:
        """The one segmenter."""
        datalist = self.prepared / "datalist_segmentation.json"
        return {"datalist": datalist, "maps_dir": self.maps / "probabilities", "weights": self.weights}


def write_segmenter(weights: Path, maps: Path, value: float = 0.0, **changes: Any) -> None:
    card = {"dataset_sha256": DATASET, "split": "15:5:80", "split_seed": 0, "threshold": 0.5, **changes}
    write_weights(weights, {"w": torch.full((1,), value)}, {"split_sha256": SPLIT, **card})
    write_json(maps / "segmenter.json", json.loads(weights.with_suffix(".json").read_text()))


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
            write_png(made.maps / "probabilities" / image, 128)
    header = {"name": "dots", "description": "", "synthetic": False, "source": "made here", "dataset_sha256": DATASET}
    header |= {"split": "15:5:80", "seed": 0, "split_sha256": SPLIT, "labels": {}}
    write_json(made.prepared / "datalist_segmentation.json", {**header, **lists})
    write_segmenter(made.weights, made.maps)
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
        assert record["probability"] == str(world.maps / "probabilities" / relative)
    text = (world.output / DATALIST).read_text()
    assert str(world.dataset.parent) not in text
    card = json.loads(world.weights.with_suffix(".json").read_text())
    assert json.loads(text)["segmenter_sha256"] == [card["sha256"]]


def test_records_say_where_the_segmenter_tells_that_there_is_no_lesion(world: World) -> None:
    write_segmenter(world.weights, world.maps, presence_points={"none_below": 0.4})
    record = world.maps / "segmenter.json"
    told = {"benign/benign (3).png": 0.39, "benign/benign (4).png": 0.4}
    write_json(record, {**json.loads(record.read_text()), "lesion_probability": told})
    datalist = world.datalist()
    found = {Path(entry["image"]).name for part in PARTS for entry in datalist[part] if entry.get("told_none")}
    assert found == {"benign (3).png"}
    datalist = world.datalist(none_below=0.41)  # in place of the card's
    found = {Path(entry["image"]).name for part in PARTS for entry in datalist[part] if entry.get("told_none")}
    assert found == {"benign (3).png", "benign (4).png"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "70:10:20"}, "split 70:10:20, but the datalist has 15:5:80"),
        ({"split_seed": 7}, "split_seed 7, but the datalist has 0"),
        ({"dataset_sha256": "ef" * 32}, "dataset_sha256 efef"),
        ({"split_sha256": "ef" * 32}, "split_sha256 efef"),
    ],
)
def test_maps_of_a_segmenter_of_another_split_seed_or_dataset_are_refused_by_name(
    world: World, change: dict[str, Any], words: str
) -> None:
    write_segmenter(world.weights, world.maps, **change)
    with pytest.raises(UserError, match=words) as caught:
        world.datalist()
    assert str(world.weights) in str(caught.value)
    assert not world.output.exists()


def test_another_segmenter_is_refused_also_where_the_datalist_stands_already(world: World) -> None:
    world.datalist()
    write_segmenter(world.weights, world.maps, value=1.0, split_seed=7)
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
    assert (datalist["masks"], datalist["segmenter_sha256"]) == ("oracle", [])


def test_an_oracles_datalist_does_not_serve_a_run_on_predicted_masks(world: World) -> None:
    oracle = replace(world, output=world.output.with_name("oracle_run"))
    oracle.datalist(masks="oracle")
    with pytest.raises(InputError, match="was made of ground-truth masks; give --masks oracle"):
        oracle.datalist()


@pytest.mark.parametrize("kind", ["maps", "dataset"])
def test_a_missing_map_or_image_is_named(world: World, kind: str) -> None:
    world.datalist()
    folder = world.maps / "probabilities" if kind == "maps" else world.dataset
    (folder / "benign" / "benign (9).png").unlink()
    with pytest.raises(InputError, match=r"benign \(9\)\.png: is named in the datalist but missing"):
        world.datalist()


def test_no_maps_at_all_names_the_first(world: World) -> None:
    shutil.rmtree(world.maps / "probabilities")
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


@pytest.mark.parametrize("where", ["segmenter", "classifier"])
def test_a_split_that_near_duplicates_cross_is_refused(world: World, where: str) -> None:
    given = {}
    if where == "segmenter":
        file = world.prepared / "datalist_segmentation.json"
        write_json(file, {**json.loads(file.read_text()), "split": "65:5:30 by image"})
    else:
        given["split"] = "60:10:30 by image"
    with pytest.raises(UserError, match=r"by image.*near duplicates cross"):
        world.datalist(**given)


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


def test_maps_that_another_segmenter_made_are_refused(world: World) -> None:
    write_json(world.maps / "segmenter.json", {"sha256": "00"})
    with pytest.raises(InputError, match="holds the maps of another segmenter"):
        world.datalist()
    (world.maps / "segmenter.json").unlink()
    with pytest.raises(InputError, match="nothing tells which segmenter made the maps; segment the images"):
        world.datalist()


FOLDS = 3


def _cross_fit(world: World, folds: int = FOLDS) -> dict[str, Any]:
    """Give each fold a segmenter, its datalist and its maps; then ask for the classifier's datalist."""
    plain = json.loads((world.prepared / "datalist_segmentation.json").read_text())
    lesions = [record for part in PARTS for record in plain[part]]
    for fold in range(FOLDS):
        run, prepared = world.output.parent / f"run_fold{fold}", world.output.parent / f"prepared_fold{fold}"
        split = {"split": f"fold {fold} of {FOLDS}", "split_sha256": f"{fold}" * 64}
        # Groups are dealt out by their number, so that both images of the shared group meet in one fold.
        groups = sorted({record["group"] for record in lesions})
        parts = [[r for r in lesions if groups.index(r["group"]) % FOLDS == (fold + i) % FOLDS] for i in range(FOLDS)]
        lists = {"test": parts[0], "validation": parts[1][:2], "training": parts[1][2:] + parts[2]}
        write_json(prepared / "datalist_segmentation.json", {**plain, **lists, **split})
        write_segmenter(run / "model.pt", run / "predictions", value=fold, threshold=0.3 + 0.1 * fold, **split)
        for record in lesions:
            write_png(run / "predictions" / "probabilities" / record["image"], 100 + fold)
    sources = name_sources(world.output.parent / "run", world.output.parent / "prepared", folds)
    return ensure_classifier_prepared(world.dataset, sources, world.output, "60:10:30", 0, "predicted")


def test_cross_fitting_uses_every_lesion_once_with_the_map_of_a_segmenter_that_never_saw_it(world: World) -> None:
    datalist = _cross_fit(world)
    records = [record for part in PARTS for record in datalist[part]]
    assert len({record["image"] for record in records}) == len(records) == 34
    for record in records:
        fold = int(np.asarray(Image.open(record["probability"]))[0, 0]) - 100
        folder = world.output.parent / f"prepared_fold{fold}"
        tested = json.loads((folder / "datalist_segmentation.json").read_text())["test"]
        assert Path(record["image"]).relative_to(world.dataset).as_posix() in {case["image"] for case in tested}
    assert len(datalist["segmenter_sha256"]) == FOLDS
    assert datalist["segmentation_split"] == "3 folds"
    assert _cross_fit(world) == datalist


def test_too_few_of_the_folds_are_refused_once_the_datalist_stands(world: World) -> None:
    _cross_fit(world)
    with pytest.raises(InputError, match="was made from more segmenters than are given"):
        _cross_fit(world, folds=2)


def test_the_same_fold_twice_is_refused(world: World) -> None:
    with pytest.raises(UserError, match="in the test part of two segmenters"):
        ensure_classifier_prepared(world.dataset, [world.source()] * 2, world.output, "60:10:30", 0, "predicted")


def test_the_threshold_of_cross_fitted_masks_is_the_median_of_the_segmenters(world: World) -> None:
    _cross_fit(world)
    sources = name_sources(world.output.parent / "run", world.output.parent / "prepared", FOLDS)
    assert middle_threshold(sources) == pytest.approx(0.4)
    assert middle_threshold(name_sources("nowhere", "nowhere")) == 0.5
