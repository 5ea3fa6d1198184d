# SPDX-License-Identifier: Apache-2.0
"""The layouts of datasets that are known, each by a module of its own. docs/datasets.md describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundle.data.breast_usg import is_breast_layout, list_breast
from bundle.data.bus_bra import is_bus_bra_layout, list_bus_bra
from bundle.data.bus_uclm import contradicts, is_bus_uclm_layout, list_bus_uclm
from bundle.data.busi import is_busi_layout, list_busi
from bundle.data.cases import Listed
from bundle.data.stu import is_stu_layout, list_stu
from bundle.errors import InputError


@dataclass(frozen=True)
class Layout:
    """How a dataset's folder is recognised and listed.

    Args:
        detect: whether a folder is laid out so; looks at names only.
        list_cases: the images, sorted, and what is wrong with single ones; no image is opened.
        contradicts: why a mask's file and a class cannot both be right, or None; it may open the mask.
        fits_masks: a mask of another size than its image is brought to the image's size instead of being refused.
        seeks_marks: most lesions carry calipers that no table tells of; those that are found are flagged.
    """

    detect: Callable[[Path], bool]
    list_cases: Callable[[Path], tuple[list[Listed], list[InputError]]]
    contradicts: Callable[[Path, str], str | None] | None = None
    fits_masks: bool = False
    seeks_marks: bool = False


LAYOUTS = {
    "bus-bra": Layout(is_bus_bra_layout, list_bus_bra, seeks_marks=True),
    "breast": Layout(is_breast_layout, list_breast),
    "bus-uclm": Layout(is_bus_uclm_layout, list_bus_uclm, contradicts),
    "stu": Layout(is_stu_layout, list_stu, fits_masks=True),
    "busi": Layout(is_busi_layout, list_busi),
}
"""By name, in the order in which they are tried."""
