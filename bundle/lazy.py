# SPDX-License-Identifier: Apache-2.0
"""Names of a package that are imported when somebody asks for one: MONAI and ignite take seconds to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, names: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], list[str]]:
    """Return the ``__getattr__`` (PEP 562) and the ``__all__`` of a package whose names stand in its modules.

        __getattr__, __all__ = lazy_names(__name__, {"geometry": ["resize"], "load": ["LoadUltrasoundd"]})

    Args:
        package: its ``__name__``.
        names: module of the package -> what it hands on.
    """
    modules = {name: module for module, given in names.items() for name in given}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get, sorted(modules)
