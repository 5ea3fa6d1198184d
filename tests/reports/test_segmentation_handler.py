# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.reports.segmentation_handler."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from bundle.errors import InputError, UserError
from bundle.files import to_csv
from bundle.networks.weights import write_weights
from bundle.outputs import WriteMaps
from bundle.reports import SegmentationEvaluation
from bundle.reports.segmentation_handler import refuse_another_split

DATALIST = {"name": "boxes", "dataset_sha256": "cd" * 32, "split": "15:5:80", "seed": 4, "synthetic": False}


def _records(folder: Path, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Images of different sizes; a box of 10×12 pixels, drawn in two mask files, is the lesion of all but normals."""
    records = []
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        shape = (30 + number, 40 + 2 * number)
        image, masks = folder / name / f"{name} ({number}).png", []
        Image.fromarray(np.full(shape, 100, np.uint8)).save(image)
        for part, columns in enumerate((slice(5, 11), slice(11, 17))):
            mask = np.zeros(shape, np.uint8)
            if name != "normal":
                mask[8:18, columns] = 255
            masks.append(str(folder / name / f"{name} ({number})_mask_{part}.png"))
            Image.fromarray(mask).save(masks[-1])
        records.append({"image": str(image), "label": masks, "class": name, "group": f"g{number}"})
    return records


def _engine(records: Sequence[dict[str, Any]], shift: int = 0) -> Engine:
    """An evaluator that finds every box, moved down by some rows; in normals it finds nothing."""

    def predict(_: Engine, batch: Sequence[dict[str, Any]]) -> list[dict[str, MetaTensor]]:
        items = []
        for record in batch:
            width, height = Image.open(record["image"]).size
            probability = torch.full((1, height, width), 0.2)
            if record["class"] != "normal":
                probability[:, 8 + shift : 18 + shift, 5:17] = 0.9
            image = MetaTensor(torch.zeros(1, 4, 4), meta={"filename_or_obj": record["image"]})
            items.append({"image": image, "pred": MetaTensor(probability)})
        return items

    return Engine(predict)


def _evaluate(
    tmp_path: Path, classes: Sequence[str], shift: int = 0, doubtful_below: float | None = None, **datalist: Any
) -> dict[str, Any]:
    records = _records(tmp_path / "data", classes)
    write_weights(tmp_path / "model.pt", {"w": torch.zeros(1)}, {"filters": [2, 4], "doubtful_below": doubtful_below})
    engine = _engine(records, shift)
    handler = SegmentationEvaluation(tmp_path / "out", records, 0.5, tmp_path / "model.pt", {**DATALIST, **datalist})
    handler.attach(engine)
    engine.run([records[:2], records[2:]])
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


CLASSES = ("benign", "malignant", "normal", "benign")


def test_a_perfect_prediction_scores_one_at_native_size(tmp_path: Path) -> None:
    metrics = _evaluate(tmp_path, CLASSES)
    assert metrics["lesions"]["dice"]["estimate"] == 1
    assert (metrics["lesions"]["cases"], metrics["normals"]["cases"]) == (3, 1)
    assert metrics["normals"]["false_positive_rate"]["estimate"] == 0


def test_a_box_moved_by_five_of_its_ten_rows_scores_half(tmp_path: Path) -> None:
    metrics = _evaluate(tmp_path, CLASSES, shift=5)
    assert metrics["lesions"]["dice"]["estimate"] == pytest.approx(0.5)
    assert metrics["lesions"]["iou"]["estimate"] == pytest.approx(1 / 3)


def test_the_result_tells_the_threshold_the_weights_and_the_data(tmp_path: Path) -> None:
    metrics = _evaluate(tmp_path, CLASSES)
    assert metrics["threshold"] == 0.5
    assert metrics["weights"]["filters"] == [2, 4]
    provenance = metrics["provenance"]
    assert provenance["weights_sha256"] == metrics["weights"]["sha256"]
    assert (provenance["dataset"], provenance["split"], provenance["split_seed"]) == ("boxes", "15:5:80", 4)
    assert provenance["dataset_sha256"] == "cd" * 32


def test_every_image_has_a_row(tmp_path: Path) -> None:
    _evaluate(tmp_path, CLASSES, shift=5)
    rows = list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [f"{name}/{name} ({i}).png" for i, name in enumerate(CLASSES)]
    assert [row["group"] for row in rows] == ["g0", "g1", "g2", "g3"]
    assert [row["dice"] for row in rows] == ["0.5", "0.5", "", "0.5"]


@pytest.mark.parametrize(("below", "doubtful"), [(0.95, 1.0), (0.85, 0.0)])
def test_doubtful_outlines_are_counted_by_the_limit_of_the_weights(
    tmp_path: Path, below: float, doubtful: float
) -> None:
    metrics = _evaluate(tmp_path, CLASSES, doubtful_below=below)
    assert metrics["doubt"]["below"] == below
    assert metrics["doubt"]["well_outlined"]["doubtful"]["estimate"] == doubtful
    assert metrics["doubt"]["normals"]["doubtful"]["estimate"] == 1.0  # nothing is outlined there
    assert "Outlines told as doubtful" in (tmp_path / "out" / "report.html").read_text()


def test_report_and_figures_are_written_whole(tmp_path: Path) -> None:
    _evaluate(tmp_path, CLASSES)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"metrics.json", "per_image.csv", "dice_histogram.png", "examples.png", "report.html"}
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "</html>" in report
    assert str(tmp_path) not in report


@pytest.mark.parametrize("synthetic", [False, True])
def test_results_of_the_phantom_are_marked(tmp_path: Path, synthetic: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert _evaluate(tmp_path, CLASSES, synthetic=synthetic)["synthetic"] is synthetic
    assert ("SYNTHETIC" in caplog.text) is synthetic
    assert ("SYNTHETIC" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")) is synthetic


@pytest.mark.parametrize("classes", [("normal", "normal", "normal"), ("benign",)])
def test_a_part_without_lesions_or_with_one_image_is_evaluated(
    tmp_path: Path, classes: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    metrics = _evaluate(tmp_path, classes)
    assert metrics["lesions"]["cases"] + metrics["normals"]["cases"] == len(classes)
    assert (tmp_path / "out" / "report.html").exists()


def test_a_second_run_replaces_the_rows_and_examples_of_the_first(tmp_path: Path) -> None:
    records = _records(tmp_path / "data", CLASSES)
    engine = _engine(records)
    handler = SegmentationEvaluation(tmp_path / "out", records, 0.5, tmp_path / "absent.pt", DATALIST)
    handler.attach(engine)
    for _ in range(2):
        engine.run([records])
        assert len(handler.rows) == 4
        assert len(handler.examples) == 3


def test_a_mask_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    records = _records(tmp_path / "data", CLASSES)
    Path(records[1]["label"][0]).write_bytes(b"")
    engine = _engine(records)
    SegmentationEvaluation(tmp_path / "out", records, 0.5, tmp_path / "absent.pt", DATALIST).attach(engine)
    with pytest.raises(InputError, match=r"malignant \(1\)_mask_0\.png"):
        engine.run([records])
    assert not (tmp_path / "out").exists()


def test_no_rows_make_an_empty_table() -> None:
    assert to_csv([]) == ""
    assert to_csv([{"a": 1, "b": None}]) == "a,b\r\n1,\r\n"


def test_weights_of_another_split_of_the_same_dataset_are_refused() -> None:
    card = {"dataset_sha256": "cd" * 32, "split_sha256": "11"}
    refuse_another_split(card, {**DATALIST, "split_sha256": "11"}, "model.pt")
    refuse_another_split(card, {**DATALIST, "split_sha256": "22", "dataset_sha256": "ef" * 32}, "model.pt")
    with pytest.raises(UserError, match=r"model\.pt: trained on another split of this dataset"):
        refuse_another_split(card, {**DATALIST, "split_sha256": "22"}, "model.pt")


def test_a_presence_channel_and_the_datasets_reach_rows_and_metrics(tmp_path: Path) -> None:
    records = _records(tmp_path / "data", ["benign", "normal", "malignant"])
    for record, name in zip(records, ("A", "A", "B"), strict=True):
        record |= {"dataset": name, "details": {"device": f"scanner {name}", "histology": "told nowhere"}}
    card = {"architecture": "LiteUNet", "presence_points": {"none_below": 0.5}}
    write_weights(tmp_path / "model.pt", {"w": torch.zeros(1)}, card)
    plain = _engine(records)
    presence = {record["image"]: value for record, value in zip(records, (0.9, 0.7, 0.3), strict=True)}

    def predict(engine: Engine, batch: Sequence[dict[str, Any]]) -> list[dict[str, MetaTensor]]:
        items = plain._process_function(engine, batch)
        for item, record in zip(items, batch, strict=True):
            head = torch.full_like(item["pred"], presence[record["image"]])
            head[:, :5] = 0  # outside the region of the frame that the network saw
            item["pred"] = MetaTensor(torch.cat([item["pred"].as_tensor(), head.as_tensor()]))
        return items

    engine = Engine(predict)
    SegmentationEvaluation(tmp_path / "out", records, 0.5, tmp_path / "model.pt", DATALIST).attach(engine)
    WriteMaps(tmp_path / "maps", [tmp_path / "data", tmp_path / "other"], tmp_path / "model.pt").attach(engine)
    engine.run([records])
    rows = list(csv.DictReader((tmp_path / "out" / "per_image.csv").read_text().splitlines()))
    told = [(row["dataset"], round(float(row["presence"]), 3), row["told_none"]) for row in rows]
    assert told == [("A", 0.9, "False"), ("A", 0.7, "False"), ("B", 0.3, "True")]
    assert [row["image"] for row in rows] == [
        "A/benign/benign (0).png",
        "A/normal/normal (1).png",
        "B/malignant/malignant (2).png",
    ]
    assert "histology" not in rows[0]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {name: part["lesions"]["cases"] for name, part in metrics["datasets"].items()} == {"A": 1, "B": 1}
    assert metrics["presence"]["lost"]["estimate"] == 0.5
    # The lesion that is told to be none has Dice 0 in every figure, and stands beside as its map outlines it.
    assert metrics["ungated"]["lesions"]["dice"]["estimate"] == 2 * metrics["lesions"]["dice"]["estimate"]
    assert metrics["lesions"]["missed"]["estimate"] == 0.5
    assert metrics["datasets"]["B"]["lesions"]["dice"]["estimate"] == 0
    assert metrics["datasets"]["B"]["ungated"]["lesions"]["dice"]["estimate"] > 0
    assert "The map alone" in (tmp_path / "out" / "report.html").read_text()
    assert set(metrics["device"]) == {"scanner A", "scanner B"}
    with Image.open(tmp_path / "maps/probabilities/data/benign/benign (0).png") as kept:
        assert np.asarray(kept).max() == round(0.9 * 255)
    record = json.loads((tmp_path / "maps/segmenter.json").read_text())
    assert len(record["pixels"]) == 3
    assert record["lesion_probability"]["data/malignant/malignant (2).png"] == pytest.approx(0.3)
