# SPDX-License-Identifier: Apache-2.0
"""What is done to images and maps: plain arithmetic, the same as MONAI transforms, and batch augmentation of ours."""

from bundle.lazy import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "annotation": ["ForMonaiLabeld"],
        "augment": ["BatchAugmentation", "ImageAugmentation", "RandomApply", "RandomSpeckle", "RandomWarp"],
        "dictionary": [
            *("CropLesiond", "DescribeLesiond", "EnhanceContrastd", "FitTod"),
            *("OutlineLesiond", "RemoveMarksd", "RestoreSized"),
        ],
        "features": ["FEATURES", "describe_lesion", "describe_shape"],
        "geometry": ["resize"],
        "lesion": ["LesionRegion", "find_lesion", "place_square", "quantise"],
        "load": ["LoadLesionMaskd", "LoadProbabilityd", "LoadUltrasoundd"],
        "marks": ["RandomMarks"],
        "shape": ["measure_lesion"],
        "windows": ["RandomWindows"],
    },
)
