# SPDX-License-Identifier: Apache-2.0
"""Everything that draws or writes what was measured: figures, HTML, the evaluation handlers, generated pages."""

from bundle.lazy import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "classification_handler": ["ClassificationEvaluation"],
        "segmentation_handler": ["SegmentationEvaluation"],
    },
)
