# SPDX-License-Identifier: Apache-2.0
"""Claims about runs on records that a tool puts into the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from monai.data import Dataset

from bundle.errors import UserError
from bundle.files import write_json
from bundle.training import classifier_datalist_of, datalist_of, name_given_run, validation_dataset

TARGET = {"_target_": "bundle.training.given_records", "id_": "train#dataset#data"}


def _given(data: Any) -> Any:
    config = {"given": TARGET, "records": [{"image": "x"}], "train": {"dataset": {"data": data}}}
    return ConfigParser(config).get_parsed_content("given")


def test_records_are_given_where_a_list_stands_in_place_of_the_expression() -> None:
    assert _given("@records") is None
    assert _given([{"image": "a.png", "label": "b.png"}]) == [{"image": "a.png", "label": "b.png"}]


def test_an_empty_list_is_nothing_to_train_on() -> None:
    with pytest.raises(RuntimeError) as wrapped:
        _given([])
    assert isinstance(wrapped.value.__cause__, UserError)
    assert "label images first" in str(wrapped.value.__cause__)


def test_a_run_is_named_by_its_files_and_by_where_it_starts(tmp_path: Path) -> None:
    image, weights = tmp_path / "a.png", tmp_path / "model.pt"
    image.write_bytes(b"one")
    records = [{"image": str(image), "label": [str(image)]}]
    first = name_given_run(records, weights)
    assert first == name_given_run([dict(records[0])], weights)
    image.write_bytes(b"two")
    second = name_given_run(records, weights)
    weights.write_bytes(b"weights")
    names = {first, second, name_given_run(records, weights)}
    assert len(names) == 3
    assert name_given_run(None, weights) is None


def test_nothing_is_prepared_for_given_records() -> None:
    datalist = datalist_of([{"image": "a", "label": "b"}], dataset_dir="/nowhere", prepared_dir="/nowhere")
    assert datalist["training"] == [{"image": "a", "label": "b"}]
    assert datalist["validation"] == []
    assert datalist["synthetic"] is False
    assert datalist["split"] is None


def test_a_classifier_needs_both_classes_and_the_segmenter_of_its_maps(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    write_json(weights.with_suffix(".json"), {"sha256": "abc"})
    both = [{"image": "a", "probability": "p", "label": label} for label in (0.0, 1.0)]
    assert classifier_datalist_of(both, weights)["segmenter_sha256"] == ["abc"]
    with pytest.raises(UserError, match="no malignant image"):
        classifier_datalist_of(both[:1], weights)
    with pytest.raises(UserError, match="name the weights"):
        classifier_datalist_of(both, None)


def test_training_images_stand_in_where_none_is_left_for_validation(caplog: pytest.LogCaptureFixture) -> None:
    training = Dataset([{"image": 1}])
    assert validation_dataset([], dict, training) is training
    assert "those of its training images" in caplog.text
    assert validation_dataset([{"image": 2}], dict, training, progress=False)[0] == {"image": 2}
