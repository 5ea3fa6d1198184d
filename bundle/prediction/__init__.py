# SPDX-License-Identifier: Apache-2.0
"""From image files to findings: `Predictor` for one image, `batch` for many, `archive` for very many."""

from .classify import ClassifyLesiond
from .predictor import Predictor

__all__ = ["ClassifyLesiond", "Predictor"]
