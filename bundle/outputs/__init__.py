# SPDX-License-Identifier: Apache-2.0
"""What the bundle writes: masks, overlays, tables, atomically."""

from .findings import WriteFindings
from .handler import WriteMaps, WriteMasks

__all__ = ["WriteFindings", "WriteMaps", "WriteMasks"]
