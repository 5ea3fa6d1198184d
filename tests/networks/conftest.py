# SPDX-License-Identifier: Apache-2.0
"""Claims that every network keeps are asked of each of its variants."""

from __future__ import annotations

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the claims of a class its variants, as ``variant`` or, of those that are exported to ONNX, ``exported``."""
    for name in ("variant", "exported"):
        if name in metafunc.fixturenames and metafunc.cls is not None:
            metafunc.parametrize(name, getattr(metafunc.cls, f"{name}s"))
