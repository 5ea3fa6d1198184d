# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms and batch augmentation of ours."""

from .annotation import ForMonaiLabeld
from .augment import BatchAugmentation, ImageAugmentation, RandomSpeckle, RandomWarp
from .features import FEATURES, DescribeLesiond, describe_lesion, describe_shape
from .geometry import EnhanceContrastd, FitTod, RestoreSized, resize
from .lesion import CropLesiond, LesionRegion, LoadProbabilityd, find_lesion, place_square, quantise
from .load import LoadLesionMaskd, LoadUltrasoundd
from .shape import measure_lesion

__all__ = [
    "FEATURES",
    "BatchAugmentation",
    "CropLesiond",
    "DescribeLesiond",
    "EnhanceContrastd",
    "FitTod",
    "ForMonaiLabeld",
    "ImageAugmentation",
    "LesionRegion",
    "LoadLesionMaskd",
    "LoadProbabilityd",
    "LoadUltrasoundd",
    "RandomSpeckle",
    "RandomWarp",
    "RestoreSized",
    "describe_lesion",
    "describe_shape",
    "find_lesion",
    "measure_lesion",
    "place_square",
    "quantise",
    "resize",
]
