# SPDX-License-Identifier: Apache-2.0
"""Cases in groups, and what hypothesis draws of them, for the claims about splits."""

from __future__ import annotations

from hypothesis import strategies as st

from bundle.data.cases import Case
from bundle.data.split_names import parse_ratio

LABELS = ("benign", "malignant", "normal")

pure_groups = st.lists(
    st.tuples(st.sampled_from(LABELS), st.integers(1, 7)).map(lambda drawn: [drawn[0]] * drawn[1]),
    min_size=1,
    max_size=60,
)
mixed_groups = st.lists(st.lists(st.sampled_from(LABELS), min_size=1, max_size=5), min_size=1, max_size=60)
ratios = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 90)).map(
    lambda drawn: parse_ratio(":".join(map(str, drawn)))
)
seeds = st.integers(0, 2**32)


def cases_of(groups: list[list[str]]) -> list[Case]:
    """One group per list, one case per label in it."""
    return [
        Case(f"{number:04d}_{place}.png", (), label, group=f"g{number:04d}")
        for number, labels in enumerate(groups)
        for place, label in enumerate(labels)
    ]
