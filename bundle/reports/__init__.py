# SPDX-License-Identifier: Apache-2.0
"""Everything that draws or writes what was measured: figures, HTML, the evaluation handlers, generated pages."""

from .classification_handler import ClassificationEvaluation
from .segmentation_handler import SegmentationEvaluation

__all__ = ["ClassificationEvaluation", "SegmentationEvaluation"]
