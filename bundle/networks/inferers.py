# SPDX-License-Identifier: Apache-2.0
"""MONAI inferers of ours."""

from __future__ import annotations

from monai.inferers import Inferer

from bundle.networks.autocast import Autocast


class AutocastInferer(Autocast, Inferer):
    """`Autocast` as MONAI's engines and configs take it."""
