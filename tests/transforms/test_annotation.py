# SPDX-License-Identifier: Apache-2.0
"""Claims about the layout of masks for MONAI Label's writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from bundle.transforms import ForMonaiLabeld
from bundle.transforms.annotation import result_extension

HEIGHT, WIDTH = 6, 9


def _item(**request: Any) -> dict[str, Any]:
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
    mask[0, 1, 7] = 1
    meta = {"spatial_shape": np.asarray([HEIGHT, WIDTH])}
    return {"image": MetaTensor(torch.zeros(1, 4, 4), meta=meta), "pred": mask, **request}


def test_outside_the_server_a_mask_stays_as_it_is() -> None:
    item = _item()
    out = ForMonaiLabeld("pred")(item)
    assert out["pred"] is item["pred"]
    assert tuple(out["image"].meta["spatial_shape"]) == (HEIGHT, WIDTH)


def test_a_picture_becomes_w_by_h_and_the_server_has_nothing_to_resize() -> None:
    out = ForMonaiLabeld("pred")(_item(image_path="a.png"))
    assert out["pred"].shape == (WIDTH, HEIGHT)
    assert out["pred"][7, 1] == 1
    assert out["pred"].sum() == 1
    assert tuple(out["image"].meta["spatial_shape"]) == (WIDTH, HEIGHT)
    assert (out["result_extension"], out["result_dtype"]) == (".png", "uint8")


def test_a_volume_gets_one_slice_and_lies_where_its_image_lies(tmp_path: Path) -> None:
    out = ForMonaiLabeld("pred")(_item(image_path="a.png", result_extension=".nrrd"))
    assert out["pred"].shape == (WIDTH, HEIGHT, 1)
    assert np.allclose(out["pred"].affine, np.diag([-1, -1, 1, 1]))
    affine = np.diag([0.1, 0.2, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.zeros((WIDTH, HEIGHT, 1), np.uint8), affine), tmp_path / "a.nii.gz")
    out = ForMonaiLabeld("pred")(_item(image_path=str(tmp_path / "a.nii.gz")))
    assert np.allclose(out["pred"].affine, affine)


@pytest.mark.parametrize(
    ("image", "asked", "expected"),
    [
        ("a.png", None, ".png"),
        ("a.jpg", None, ".png"),
        ("a.dcm", None, ".png"),
        ("a.nii.gz", None, ".nii.gz"),
        ("a.png", ".nrrd", ".nrrd"),
        ("a.png", ".jpg", ".png"),
        ("a.NII", None, ".nii"),
    ],
)
def test_a_mask_is_never_written_as_jpeg(image: str, asked: str | None, expected: str) -> None:
    assert result_extension({"image_path": image, "result_extension": asked}) == expected
