# SPDX-License-Identifier: Apache-2.0
"""From image files to findings: `Predictor` for one image, `batch` for many, `archive` for very many."""

from bundle.lazy import lazy_names

__getattr__, __all__ = lazy_names(__name__, {"dictionary": ["ClassifyLesiond"], "predictor": ["Predictor"]})
