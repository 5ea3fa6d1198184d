# SPDX-License-Identifier: Apache-2.0
"""What this room does as a MONAI dictionary transform, for configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.transforms import Transform

from bundle.prediction.classify import LesionClassifier
from bundle.readers import read_image, split_frame
from bundle.transforms.lesion import split_presence


class ClassifyLesiond(LesionClassifier, Transform):
    """`LesionClassifier` as one of the transforms after the segmenter."""

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Add ``data["finding"]``; needs ``image`` with its file in the metadata, and ``probability`` (C, H, W), see
        `split_presence`. A map that was read from a file has one channel; what the head said stands beside it then, as
        ``lesion_probability``."""
        path = str(data["image"].meta["filename_or_obj"])
        probability, presence = split_presence(data["probability"])
        presence = data.get("lesion_probability") if presence is None else presence
        return {**data, "finding": self.classify(split_frame(path)[0], read_image(path), probability, presence)}
