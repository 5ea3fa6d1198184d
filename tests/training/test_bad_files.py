# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.bad_files: a file that goes bad is named, and skipped or the end of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset, DataLoader, Dataset
from PIL import Image

from bundle.errors import InputError, UserError
from bundle.training import ReadFiles, ReportBadFiles, collate_readable
from bundle.training.bad_files import SKIPPED
from bundle.transforms import LoadUltrasoundd


@pytest.fixture
def images(tmp_path: Path) -> list[dict[str, str]]:
    """Records of six small images; a test may spoil some."""
    records = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((8, 9), 40 * number, dtype=np.uint8)).save(path)
        records.append({"image": str(path)})
    return records


def _spoil(record: dict[str, str]) -> None:
    path = Path(record["image"])
    path.write_bytes(path.read_bytes()[:30])


def _run(
    records: list[dict[str, str]], folder: Path, policy: str, make: Callable[..., Any] = Dataset, num_workers: int = 0
) -> tuple[list[int], ReportBadFiles]:
    """Two epochs over the records in batches of 2; returns the batch sizes and the reporting handler."""
    dataset = make(records, ReadFiles([LoadUltrasoundd("image")], policy))
    loader = DataLoader(dataset, batch_size=2, num_workers=num_workers, collate_fn=collate_readable)
    sizes: list[int] = []
    engine = Engine(lambda _, batch: sizes.append(len(batch["image"])))
    report = ReportBadFiles(folder, Engine(lambda *_: None), policy)
    report.attach(engine)
    engine.run(loader, max_epochs=2)
    return sizes, report


@pytest.mark.parametrize("make", [Dataset, CacheDataset])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_leaves_the_bad_file_out_names_it_and_counts_it_once(
    images: list[dict[str, str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[..., Any],
    num_workers: int,
) -> None:
    _spoil(images[1])
    _spoil(images[4])
    sizes, report = _run(images, tmp_path, "skip", make, num_workers)
    assert sizes == [1, 2, 1] * 2
    bad = [images[1]["image"], images[4]["image"]]
    assert list(report.skipped) == bad
    assert [record["path"] for record in json.loads((tmp_path / SKIPPED).read_text())] == bad
    assert sum("skipped: " in text for text in caplog.messages) == 2
    assert any(text.startswith("2 files could not be read") for text in caplog.messages)


@pytest.mark.parametrize("make", [Dataset, CacheDataset])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_stopping_names_the_bad_file(
    images: list[dict[str, str]], tmp_path: Path, make: Callable[..., Any], num_workers: int
) -> None:
    _spoil(images[3])
    with pytest.raises((InputError, RuntimeError)) as error:  # MONAI's cache wraps it; the command line unwraps it
        _run(images, tmp_path, "stop", make, num_workers)
    cause: Any = error.value if isinstance(error.value, InputError) else error.value.__cause__
    assert isinstance(cause, InputError)
    assert cause.path == images[3]["image"]
    assert "\n" not in str(cause)


def test_good_files_leave_no_list(images: list[dict[str, str]], tmp_path: Path) -> None:
    sizes, report = _run(images, tmp_path, "skip")
    assert sizes == [2, 2, 2] * 2
    assert not report.skipped
    assert not (tmp_path / SKIPPED).exists()


def test_a_dataset_that_is_gone_ends_the_run_even_when_skipping(images: list[dict[str, str]], tmp_path: Path) -> None:
    for record in images:
        Path(record["image"]).unlink()
    with pytest.raises(UserError, match="no file of a whole batch can be read"):
        _run(images, tmp_path, "skip")


def test_an_error_that_is_no_bad_file_is_raised_as_it_is(images: list[dict[str, str]]) -> None:
    def broken_transform(_: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(RuntimeError) as error:
        ReadFiles([broken_transform], "skip")(images[0])
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_validation_batches_are_watched_too(images: list[dict[str, str]], tmp_path: Path) -> None:
    _spoil(images[0])
    evaluator = Engine(lambda *_: None)
    report = ReportBadFiles(tmp_path, evaluator, "skip")
    report.attach(Engine(lambda *_: None))
    dataset = Dataset(images, ReadFiles([LoadUltrasoundd("image")], "skip"))
    evaluator.run(DataLoader(dataset, batch_size=3, collate_fn=collate_readable))
    assert list(report.skipped) == [images[0]["image"]]


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    for make in (lambda: ReadFiles([], "ignore"), lambda: ReportBadFiles(tmp_path, Engine(lambda *_: None), "ignore")):
        with pytest.raises(UserError, match="stop, skip"):
            make()


def test_a_transform_works_on_the_rest_of_a_chain(images: list[dict[str, str]]) -> None:
    # CacheDataset runs the deterministic part first and the rest on what came out of it.
    chain = ReadFiles([LoadUltrasoundd("image"), lambda item: {"image": torch.as_tensor(item["image"]) + 1}])
    item = chain(images[0], end=1)
    assert float(chain(item, start=1)["image"].max()) == 1.0
