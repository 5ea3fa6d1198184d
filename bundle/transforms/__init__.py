# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms and batch augmentation of ours."""

from .augment import BatchAugmentation, RandomSpeckle, RandomWarp
from .load import LoadLesionMaskd, LoadUltrasoundd

__all__ = ["BatchAugmentation", "LoadLesionMaskd", "LoadUltrasoundd", "RandomSpeckle", "RandomWarp"]
