# SPDX-License-Identifier: Apache-2.0
"""The last step of an inference inside MONAI Label: a mask laid out as its writer expects it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

VOLUMES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd")
"""Formats of volumes; every other mask becomes a PNG, since JPEG would damage its values."""

PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Where a picture lies in space (RAS): columns to the left, rows to the back, as ITK and 3D Slicer place a PNG."""


class ForMonaiLabeld(MapTransform):
    """Turn masks (1, H, W) of a MONAI Label request into what its writer takes; other items pass unchanged.

    A request is known by its ``image_path``, which the server adds. Its writer wants W×H for a picture and (W, H, 1)
    with an affine for a volume, and writes whatever else it gets without complaint: (1, H, W) becomes a picture one
    pixel wide. The server's own last step resizes to the image's ``meta["spatial_shape"]``, so that is set alike.

    Args:
        keys: of masks, 0 and 1.
        image_key: of the image that they belong to.
    """

    def __init__(self, keys: KeysCollection, image_key: Hashable = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Lay out each mask under the keys; say which file format and type to write it in."""
        out = dict(data)
        if "image_path" not in out:
            return out
        extension = result_extension(out)
        image = out[self.image_key]
        for key in self.key_iterator(out):
            mask = torch.as_tensor(out[key])[0].T.contiguous().to(torch.uint8)
            if extension in VOLUMES:
                if _is_upside_down(str(out["image_path"])):
                    mask = mask.flip(1)  # back to the order of the file that the client lays it over
                mask = MetaTensor(mask[..., None], affine=torch.from_numpy(_affine_of(str(out["image_path"]))))
            image.meta["spatial_shape"] = np.asarray(mask.shape)
            out[key] = MetaTensor(mask)  # the server's scoring sums it by NumPy, which a plain tensor refuses
        return {**out, "result_extension": extension, "result_dtype": "uint8"}


def result_extension(request: Mapping[Any, Any]) -> str:
    """The file format of the mask: what the client asked for, else the image's own, where it can hold a mask."""
    for name in (request.get("result_extension"), request.get("image_path")):
        if name:
            return next((volume for volume in VOLUMES if str(name).lower().endswith(volume)), ".png")
    return ".png"


def _is_upside_down(path: str) -> bool:
    from bundle.readers import NIFTI, is_upside_down, kind_of

    return kind_of(path) == NIFTI and is_upside_down(path)


def _affine_of(path: str) -> np.ndarray:
    """Where an image lies, (4, 4) RAS: as a NIfTI file says, else as a picture."""
    if not path.lower().endswith((".nii", ".nii.gz")):
        return PICTURE_AFFINE
    import nibabel

    image: Any = nibabel.load(path)
    return np.asarray(image.affine, dtype=np.float64)
