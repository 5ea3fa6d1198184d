# SPDX-License-Identifier: Apache-2.0
"""What an institution has fitted on its own images in place of what the cards of the weights say.

Temperature, operating points and limits are fitted where weights are made and hold there. ``site.json``, which
`bundle.prediction.site_calibration` writes, has those of another hospital: for each network the entries of its card
that it replaces, and the sha256 of the weights that they were fitted for.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundle.errors import InputError
from bundle.files import read_json, sha256_of

SITE_VERSION = 1
SEGMENTER_FIELDS = ("doubtful_below", "presence_points")
CLASSIFIER_FIELDS = ("temperature", "operating_points", "conformal")
"""What a site may fit: entries of either card, under the same names."""
LONGEST_NAME = 64  # a DICOM text of one line
_MEND = "make it anew with scripts/recalibrate.py"


@dataclass(frozen=True)
class Site:
    """A ``site.json`` that was read.

    Args:
        name: of the institution, or of the set that it was fitted on.
        sha256: of the file.
        segmenter, classifier: ``sha256`` of the weights, and the entries of their card that are replaced; of the
            classifier also ``fusion_sha256``, see `fusion_digest`.
        pixels: the first digits of the checksums of the images that it was fitted on, see
            `bundle.data.training_sets`.
    """

    name: str
    sha256: str
    segmenter: Mapping[str, Any]
    classifier: Mapping[str, Any]
    pixels: frozenset[str]


def read_site(path: str | os.PathLike[str]) -> Site:
    """Read and check a ``site.json``.

    Raises:
        InputError: it cannot be read, is of another version, or says what no calibration can be.
    """
    content = read_json(path, _MEND)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SITE_VERSION:
        raise InputError(path, f"is no site file of version {SITE_VERSION} (schema_version {version})", _MEND)
    try:
        segmenter = _patch(content["segmenter"], SEGMENTER_FIELDS)
        classifier = _patch(content["classifier"], (*CLASSIFIER_FIELDS, "fusion_sha256"))
        _check(segmenter, classifier)
        name, pixels = (
            _one_line(str(content["name"])),
            frozenset(str(content["images"]["pixels"]).split()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"is damaged ({error})", _MEND) from error
    return Site(name, sha256_of(path), segmenter, classifier, pixels)


def apply_site(
    path: str | os.PathLike[str], segmenter_card: Mapping[str, Any], classifier_card: Mapping[str, Any]
) -> tuple[Site, dict[str, Any], dict[str, Any]]:
    """Return the site and both cards with what it has fitted in place of theirs.

    Args:
        path: of the ``site.json``.
        segmenter_card, classifier_card: of the weights in use.

    Raises:
        InputError: as `read_site`; or it was fitted for other weights.
    """
    site = read_site(path)
    replaced = [
        _replace(path, "segmenter", segmenter_card, site.segmenter, SEGMENTER_FIELDS),
        _replace(path, "classifier", classifier_card, site.classifier, CLASSIFIER_FIELDS),
    ]
    if site.classifier["fusion_sha256"] != fusion_digest(classifier_card):
        reason = "was fitted before the features of the classifier's card were fitted anew"
        raise InputError(path, reason, _MEND)
    return site, replaced[0], replaced[1]


def apply_site_to_segmenter(path: str | os.PathLike[str], card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a segmenter's card with what a site has fitted in place of it, where no classifier is in use.

    Raises:
        InputError: as `apply_site`.
    """
    return _replace(path, "segmenter", card, read_site(path).segmenter, SEGMENTER_FIELDS)


def _replace(
    path: str | os.PathLike[str],
    network: str,
    card: Mapping[str, Any],
    patch: Mapping[str, Any],
    fields: tuple[str, ...],
) -> dict[str, Any]:
    if card.get("sha256") != patch["sha256"]:
        reason = f"was fitted for another {network} (sha256 {patch['sha256'][:12]}…, in use {_short(card)})"
        mend = "give the weights it was fitted for, or fit these with scripts/recalibrate.py"
        raise InputError(path, reason, mend)
    return {**card, **{key: patch[key] for key in fields if key in patch}}


def fusion_digest(card: Mapping[str, Any]) -> str | None:
    """The sha256 of what a classifier's card joins the network with; None for the network alone.

    With the weights it tells whose logits were calibrated: a card can be fitted anew without new weights.
    """
    fusion = card.get("fusion")
    return None if fusion is None else hashlib.sha256(json.dumps(fusion, sort_keys=True).encode()).hexdigest()


def _one_line(text: str) -> str:
    """Printable and short: it goes into tables, pages and DICOM."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:LONGEST_NAME]


def _short(card: Mapping[str, Any]) -> str:
    return f"{str(card['sha256'])[:12]}…" if card.get("sha256") else "unknown"


def _patch(content: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {"sha256": str(content["sha256"]), **{key: content[key] for key in fields if key in content}}


def _check(segmenter: Mapping[str, Any], classifier: Mapping[str, Any]) -> None:
    """Raise a ValueError for a number that is none of its kind."""
    if "temperature" in classifier and not (0 < _number(classifier["temperature"]) < math.inf):
        raise ValueError(f"temperature {classifier['temperature']}")
    shares = [
        point[key] for point in classifier.get("operating_points", []) for key in ("sensitivity_wish", "threshold")
    ]
    shares += [classifier["conformal"][key] for key in ("coverage", "benign", "malignant") if "conformal" in classifier]
    shares += [segmenter["doubtful_below"]] if "doubtful_below" in segmenter else []
    shares += [segmenter["presence_points"]["none_below"]] if "presence_points" in segmenter else []
    for share in shares:
        if not 0 <= _number(share) <= 1:
            raise ValueError(f"{share} is not between 0 and 1")
    if "fusion_sha256" not in classifier:
        raise ValueError("fusion_sha256 is missing")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is no number")
    return float(value)
