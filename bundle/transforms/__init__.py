# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms and batch augmentation of ours."""

from .augment import BatchAugmentation, ImageAugmentation, RandomSpeckle, RandomWarp
from .geometry import EnhanceContrastd, FitTod, RestoreSized, resize
from .load import LoadLesionMaskd, LoadUltrasoundd

__all__ = [
    "BatchAugmentation",
    "EnhanceContrastd",
    "FitTod",
    "ImageAugmentation",
    "LoadLesionMaskd",
    "LoadUltrasoundd",
    "RandomSpeckle",
    "RandomWarp",
    "RestoreSized",
    "resize",
]
