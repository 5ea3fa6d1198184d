# SPDX-License-Identifier: Apache-2.0
"""Scores with intervals, figures and reports."""

from .classification_handler import ClassificationEvaluation
from .handler import SegmentationEvaluation

__all__ = ["ClassificationEvaluation", "SegmentationEvaluation"]
