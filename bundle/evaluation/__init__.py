# SPDX-License-Identifier: Apache-2.0
"""Scores with intervals, figures and reports."""

from .handler import SegmentationEvaluation

__all__ = ["SegmentationEvaluation"]
