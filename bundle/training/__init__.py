# SPDX-License-Identifier: Apache-2.0
"""What the training configs name: handlers, batch preparation, checkpoints and the last step."""

from bundle.lazy import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "bad_files": ["ReadFiles", "ReportBadFiles", "collate_readable"],
        "batch": ["PrepareBatch"],
        "checkpoint": ["Checkpoint", "MovingAverage"],
        "consistency": ["Consistency"],
        "finish": ["finish_segmentation"],
        "finish_classifier": ["finish_classification"],
        "given": ["classifier_datalist_of", "datalist_of", "given_records", "name_given_run", "validation_dataset"],
        "handlers": ["History", "ProgressBar", "Reseed", "ShareBuffers", "StopEarly", "StopOnNonFinite", "shared"],
        "loss": ["LesionLoss", "SmoothedCrossEntropy"],
        "run": ["claim_folder", "run_training"],
        "sampler": ["balanced_sampler"],
        "segment": ["segment_if_needed"],
        "start": ["start_from", "take_settings"],
        "teacher": ["load_teacher"],
        "tracking": ["ListOutput"],
    },
)
