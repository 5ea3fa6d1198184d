# SPDX-License-Identifier: Apache-2.0
"""Which images an epoch shows: balanced over the datasets and their classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import WeightedRandomSampler

NORMAL = "normal"


def draw_weights(records: Sequence[Mapping[str, Any]], normal_share: float = 0.1) -> list[float]:
    """How often each record is drawn, as a probability.

    Lesions: each dataset by the square root of its number of images, so that a small hospital is seen oftener than its
    size, without its few images being learnt by heart; inside a dataset each class alike. Images without a lesion:
    their share in all, each dataset by the square root likewise.

    Args:
        records: with "class", and, of several datasets, "dataset".
        normal_share: of images without a lesion, where there are any.
    """
    places = [(record["class"] == NORMAL, record.get("dataset", ""), record["class"]) for record in records]
    images, datasets = Counter(places), Counter(place[:2] for place in places)
    classes = Counter(place[:2] for place in images)
    roots = {dataset: math.sqrt(count) for dataset, count in datasets.items()}
    total = {normal: sum(root for (kind, _), root in roots.items() if kind == normal) for normal in (False, True)}
    share = normal_share if total[True] else 0.0
    shares = {True: share if total[False] else 1.0, False: 1 - share}
    return [
        shares[place[0]] * roots[place[:2]] / total[place[0]] / classes[place[:2]] / images[place] for place in places
    ]


def balanced_sampler(
    records: Sequence[Mapping[str, Any]], normal_share: float = 0.1, balanced: bool | None = None
) -> WeightedRandomSampler | None:
    """A sampler that draws by `draw_weights`, with replacement, as many images as there are; None to shuffle instead.

    It draws from torch's global generator, so a reseeded epoch draws the same again.

    Args:
        records: of the training part.
        normal_share: as `draw_weights` takes it.
        balanced: None to balance where the records are of several datasets.
    """
    several = len({record.get("dataset", "") for record in records}) > 1
    if not (several if balanced is None else balanced):
        return None
    return WeightedRandomSampler(draw_weights(records, normal_share), len(records))
