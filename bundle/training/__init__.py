# SPDX-License-Identifier: Apache-2.0
"""What the training configs name: handlers, batch preparation, checkpoints and the last step."""

from .batch import PrepareBatch
from .checkpoint import Checkpoint
from .finish import finish_segmentation
from .handlers import History, ProgressBar, ReseedEachEpoch, StopOnNonFinite
from .weights import LoadWeights, load_weights, recorded_settings

__all__ = [
    "Checkpoint",
    "History",
    "LoadWeights",
    "PrepareBatch",
    "ProgressBar",
    "ReseedEachEpoch",
    "StopOnNonFinite",
    "finish_segmentation",
    "load_weights",
    "recorded_settings",
]
