# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.networks.site_file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import InputError
from bundle.networks.site_file import LONGEST_NAME, apply_site, fusion_digest, read_site
from bundle.networks.weights import recorded_settings

SEGMENTER = {"sha256": "5" * 64, "threshold": 0.4, "doubtful_below": 0.9}
CLASSIFIER: dict[str, Any] = {
    "sha256": "c" * 64,
    "fusion": None,
    "temperature": 1.0,
    "margin": 0.3,
}
POINTS = [{"sensitivity_wish": 0.9, "threshold": 0.2}]
SETS = {"coverage": 0.9, "benign": 0.1, "malignant": 0.2}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        content = {
            **{"schema_version": 1, "name": "St. Anna", "images": {"pixels": "aa bb"}},
            "segmenter": {"sha256": "5" * 64, "doubtful_below": 0.7, "presence_points": {"none_below": 0.3}},
            "classifier": {
                **{"sha256": "c" * 64, "fusion_sha256": None, "temperature": 2.5},
                **{"operating_points": POINTS, "conformal": SETS},
            },
        }
        for name, value in changes.items():
            content[name] = {**content[name], **value} if isinstance(value, dict) else value
        (tmp_path / "site.json").write_text(json.dumps(content))
        return tmp_path / "site.json"

    return write


def test_what_a_site_fitted_replaces_the_cards_and_nothing_else(write: Callable[..., Path]) -> None:
    site, segmenter, classifier = apply_site(write(), SEGMENTER, CLASSIFIER)
    assert (site.name, len(site.sha256), site.pixels) == ("St. Anna", 64, {"aa", "bb"})
    assert segmenter == {**SEGMENTER, "doubtful_below": 0.7, "presence_points": {"none_below": 0.3}}
    assert classifier == {**CLASSIFIER, "temperature": 2.5, "operating_points": POINTS, "conformal": SETS}
    assert SEGMENTER["doubtful_below"] == 0.9


def test_a_config_without_a_classifier_takes_the_segmenters_part(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(SEGMENTER))
    defaults = {"threshold": 0.5, "presence_points": {}}
    plain = recorded_settings(tmp_path / "model.pt", defaults)
    assert plain == {"threshold": 0.4, "presence_points": {}}
    fitted = recorded_settings(tmp_path / "model.pt", defaults, write())
    assert fitted == {"threshold": 0.4, "presence_points": {"none_below": 0.3}}
    with pytest.raises(InputError, match="another segmenter"):
        recorded_settings(tmp_path / "model.pt", defaults, write(segmenter={"sha256": "0" * 64}))


@pytest.mark.parametrize("network", ["segmenter", "classifier"])
def test_the_site_file_of_another_model_is_refused_in_one_line(write: Callable[..., Path], network: str) -> None:
    with pytest.raises(InputError, match=f"fitted for another {network} ") as caught:
        apply_site(write(**{network: {"sha256": "0" * 64}}), SEGMENTER, CLASSIFIER)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="in use unknown"):
        apply_site(write(), {}, CLASSIFIER)


def test_a_card_whose_features_were_fitted_anew_has_other_logits(write: Callable[..., Path]) -> None:
    card = {**CLASSIFIER, "fusion": {"features": ["solidity"], "intercept": 0.5}}
    with pytest.raises(InputError, match="fitted anew"):
        apply_site(write(), SEGMENTER, card)
    apply_site(write(classifier={"fusion_sha256": fusion_digest(card)}), SEGMENTER, card)
    again = {**card, "fusion": {"features": ["solidity"], "intercept": 0.6}}
    assert fusion_digest(again) != fusion_digest(card)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"schema_version": None},
        {"images": None},
        {"classifier": {"temperature": 0.0}},
        {"classifier": {"temperature": "2"}},
        {"classifier": {"temperature": True}},
        {"classifier": {"operating_points": [{"sensitivity_wish": 0.9, "threshold": 1.5}]}},
        {"classifier": {"operating_points": [{"threshold": 0.5}]}},
        {"classifier": {"conformal": {"coverage": 0.9}}},
        {"segmenter": {"doubtful_below": float("nan")}},
        {"segmenter": {"presence_points": {"none_below": -0.1}}},
        {"segmenter": {"presence_points": 0.5}},
        {"segmenter": []},
    ],
)
def test_a_file_that_says_what_no_calibration_can_be_is_refused(
    write: Callable[..., Path], changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"recalibrate\.py"):
        read_site(write(**changes))


def test_a_file_that_is_cut_off_or_missing_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write()
    file.write_text(file.read_text()[:-20])
    for path in (file, tmp_path / "none.json"):
        with pytest.raises(InputError, match=r"recalibrate\.py"):
            read_site(path)


def test_a_name_is_one_printable_line(write: Callable[..., Path]) -> None:
    name = read_site(write(name="St.\nAnna\x1b[31m" + "a" * 200)).name
    assert name.isprintable()
    assert len(name) == LONGEST_NAME
