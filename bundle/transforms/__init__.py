# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms and batch augmentation of ours."""

from .augment import BatchAugmentation, RandomSpeckle, RandomWarp
from .geometry import EnhanceContrastd, fit_to
from .load import LoadLesionMaskd, LoadUltrasoundd

__all__ = [
    "BatchAugmentation",
    "EnhanceContrastd",
    "LoadLesionMaskd",
    "LoadUltrasoundd",
    "RandomSpeckle",
    "RandomWarp",
    "fit_to",
]
