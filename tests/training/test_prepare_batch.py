# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.training.batch."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor

from bundle.training import PrepareBatch
from bundle.training.batch import as_plain_tensor, file_names


def _loader(batch_size: int) -> DataLoader:
    items = [
        {
            "image": MetaTensor(torch.full((1, 4, 6), float(number)), meta={"filename_or_obj": f"{number}.png"}),
            "label": torch.full((1, 4, 6), number % 2, dtype=torch.uint8),
        }
        for number in range(3)
    ]
    return DataLoader(Dataset(items), batch_size=batch_size)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None])
def test_a_batch_becomes_two_plain_float_tensors(device: torch.device | str | None) -> None:
    image, label = PrepareBatch()(next(iter(_loader(3))), device)
    assert type(image) is torch.Tensor
    assert type(label) is torch.Tensor
    assert (image.shape, image.dtype, label.shape, label.dtype) == ((3, 1, 4, 6), torch.float32) * 2
    assert image[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert label[:, 0, 0, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_layout_is_the_asked_one(channels_last: bool) -> None:
    batch = {"image": torch.rand(2, 3, 4, 6), "label": torch.zeros(2, 1, 4, 6)}
    image, _ = PrepareBatch(channels_last=channels_last)(batch, "cpu")
    assert image.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert image.is_contiguous() is not channels_last


def test_augmentation_sees_image_and_label_together() -> None:
    batch = next(iter(_loader(2)))
    image, label = PrepareBatch(augment=lambda image, label: (image.flip(-1) + 1, 1 - label))(batch, "cpu")
    assert image[:, 0, 0, 0].tolist() == [1, 2]
    assert label[:, 0, 0, 0].tolist() == [1, 0]
    # The cached originals stay as they are.
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1]


def test_dropping_metadata_does_not_copy() -> None:
    image = MetaTensor(torch.zeros(2, 2))
    as_plain_tensor(image)[0, 0] = 5
    assert float(image[0, 0]) == 5


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_files_of_a_batch_are_named(batch_size: int) -> None:
    assert file_names(next(iter(_loader(batch_size)))) == [f"{number}.png" for number in range(batch_size)]


def test_images_without_a_file_have_no_name() -> None:
    assert file_names({"image": torch.zeros(1, 1, 2, 2)}) == []
    assert file_names({"image": MetaTensor(torch.zeros(1, 1, 2, 2))}) == []
    assert file_names({}) == []
