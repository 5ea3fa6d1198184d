# SPDX-License-Identifier: Apache-2.0
"""What the training configs name: handlers, batch preparation, checkpoints and the last step."""

from .bad_files import ReadFiles, ReportBadFiles, collate_readable
from .batch import PrepareBatch
from .checkpoint import Checkpoint, MovingAverage
from .consistency import Consistency
from .finish import finish_segmentation
from .finish_classifier import finish_classification
from .given import classifier_datalist_of, datalist_of, given_records, name_given_run, validation_dataset
from .handlers import History, ProgressBar, Reseed, ShareBuffers, StopEarly, StopOnNonFinite, shared
from .run import claim_folder, run_training
from .segment import segment_if_needed
from .teacher import load_teacher
from .tracking import ListOutput

__all__ = [
    "Checkpoint",
    "Consistency",
    "History",
    "ListOutput",
    "MovingAverage",
    "PrepareBatch",
    "ProgressBar",
    "ReadFiles",
    "ReportBadFiles",
    "Reseed",
    "ShareBuffers",
    "StopEarly",
    "StopOnNonFinite",
    "claim_folder",
    "classifier_datalist_of",
    "collate_readable",
    "datalist_of",
    "finish_classification",
    "finish_segmentation",
    "given_records",
    "load_teacher",
    "name_given_run",
    "run_training",
    "segment_if_needed",
    "shared",
    "validation_dataset",
]
