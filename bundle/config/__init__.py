# SPDX-License-Identifier: Apache-2.0
"""Guarding and checking configs. Importing this loads neither torch nor MONAI."""

from .guard import (
    OUTSIDE_IDS,
    WORK_IDS,
    find_config,
    nearest,
    one_line_errors,
    print_any_text,
    refuse_unknown_ids,
    unused_ids,
    walk,
)

__all__ = [
    "OUTSIDE_IDS",
    "WORK_IDS",
    "find_config",
    "nearest",
    "one_line_errors",
    "print_any_text",
    "refuse_unknown_ids",
    "unused_ids",
    "walk",
]
