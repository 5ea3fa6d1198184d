# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms and batch augmentation of ours."""

from .annotation import ForMonaiLabeld
from .augment import BatchAugmentation, ImageAugmentation, RandomSpeckle, RandomWarp
from .features import FEATURES, DescribeLesiond, describe_lesion, describe_shape
from .geometry import EnhanceContrastd, FitTod, RestoreSized, resize
from .lesion import CropLesiond, LesionRegion, LoadProbabilityd, find_lesion, place_square, quantise
from .load import LoadLesionMaskd, LoadUltrasoundd
from .marks import RandomMarks, RemoveMarksd
from .shape import measure_lesion
from .windows import RandomWindows

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
    "RandomMarks",
    "RandomSpeckle",
    "RandomWarp",
    "RandomWindows",
    "RemoveMarksd",
    "RestoreSized",
    "describe_lesion",
    "describe_shape",
    "find_lesion",
    "measure_lesion",
    "place_square",
    "quantise",
    "resize",
]
