# SPDX-License-Identifier: Apache-2.0
"""How far a finding depends on how grey values were stored: other depths, ranges and offsets, and other gammas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bundle.audit.marks import dice_of
from bundle.errors import UserError
from bundle.finding import Finding
from bundle.readers import read_image

DECISION = 0.5


class Variant(NamedTuple):
    """A way to store grey values: 255 · (grey / 255) ** gamma · factor + offset, as a file of this ending and type."""

    ending: str
    dtype: str
    factor: float = 1
    offset: float = 0
    gamma: float = 1

    def store(self, grey: np.ndarray) -> np.ndarray:
        """Return the values (H, W) that the file holds, of grey values (H, W) in [0, 255]."""
        values = 255 * (grey / 255) ** self.gamma * self.factor + self.offset
        return (values if self.dtype == "float32" else np.round(values)).astype(self.dtype)


VARIANTS: Mapping[str, Variant] = {
    **{f"fractions, × 1/{divisor}": Variant(".tif", "float32", 1 / divisor) for divisor in (2, 4, 8, 16)},
    "fractions, × 1/16, + 100": Variant(".tif", "float32", 1 / 16, 100),
    "16 bits, × 257/16": Variant(".png", "uint16", 257 / 16),
    "8 bits, × 1/4": Variant(".png", "uint8", 1 / 4),
    "8 bits, × 1/16": Variant(".png", "uint8", 1 / 16),
    **{f"gamma {gamma}": Variant(".tif", "float32", gamma=gamma) for gamma in (0.8, 1.25)},
}


def audit_grey(images: Iterable[str | Path], predict: Callable[[str], Finding], folder: Path) -> dict[str, Any]:
    """Store pictures in other ways and compare the findings with those of their plain 8-bit PNG.

    Args:
        images: files.
        predict: from a file to its finding.
        folder: where the variants are written, each over the former one.

    Returns:
        A dict ready for JSON: `images`, and for each of `VARIANTS` the `compared` ones (both probabilities are there),
        `refused` files, `states` that changed, `difference_max` and `difference_mean` of P(malignant), `flips` of the
        decision at `DECISION`, and `dice_min` between the outlines; None where nothing was compared.
    """
    pairs: dict[str, list[tuple[Finding, Finding | None]]] = {name: [] for name in VARIANTS}
    for image in images:
        grey = np.clip(np.round(read_image(str(image)).tissue), 0, 255)
        plain = _predict(grey.astype(np.uint8), folder / "plain.png", predict)
        if plain is None or plain.probability is None:
            continue
        for name, variant in VARIANTS.items():
            pairs[name].append((plain, _predict(variant.store(grey), folder / f"variant{variant.ending}", predict)))
    counts = {len(found) for found in pairs.values()}
    return {"images": max(counts, default=0), "variants": {name: _compare(found) for name, found in pairs.items()}}


def _predict(values: np.ndarray, file: Path, predict: Callable[[str], Finding]) -> Finding | None:
    Image.fromarray(values).save(file)
    try:
        return predict(str(file))
    except UserError:
        return None


def _compare(pairs: list[tuple[Finding, Finding | None]]) -> dict[str, Any]:
    told = [(plain, other) for plain, other in pairs if other is not None]
    both = [
        (plain, other, plain.probability, other.probability)
        for plain, other in told
        if plain.probability is not None and other.probability is not None
    ]
    apart = [abs(first - second) for *_, first, second in both]
    return {
        "compared": len(both),
        "refused": len(pairs) - len(told),
        "states": sum(plain.lesion_state != other.lesion_state for plain, other in told),
        "difference_max": max(apart, default=None),
        "difference_mean": float(np.mean(apart)) if apart else None,
        "flips": sum((first >= DECISION) != (second >= DECISION) for *_, first, second in both),
        "dice_min": min((dice_of(plain.mask, other.mask) for plain, other, *_ in both), default=None),
    }
