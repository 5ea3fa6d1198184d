# SPDX-License-Identifier: Apache-2.0
"""What the training configs name: handlers, batch preparation, checkpoints and the last step."""

from .batch import PrepareBatch
from .checkpoint import Checkpoint, MovingAverage
from .finish import finish_segmentation
from .finish_classifier import finish_classification
from .handlers import History, ProgressBar, ReseedEachEpoch, ShuffleEachEpoch, StopEarly, StopOnNonFinite, shared

__all__ = [
    "Checkpoint",
    "History",
    "MovingAverage",
    "PrepareBatch",
    "ProgressBar",
    "ReseedEachEpoch",
    "ShuffleEachEpoch",
    "StopEarly",
    "StopOnNonFinite",
    "finish_classification",
    "finish_segmentation",
    "shared",
]
