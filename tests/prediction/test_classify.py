# SPDX-License-Identifier: Apache-2.0
"""Claims about bundle.prediction.classify."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from bundle.errors import UserError
from bundle.finding import ABSENT, AT_MARKS, DOUBTFUL_OUTLINE, MAPS, NO_LESION, Finding
from bundle.networks import SegNet
from bundle.prediction.dictionary import ClassifyLesiond
from bundle.readers import UltrasoundImage

LOGIT = 1.2
POINTS = [{"sensitivity_wish": 0.9, "threshold": 0.7}, {"sensitivity_wish": 0.95, "threshold": 0.6}]
CARD: dict[str, Any] = {"sha256": "c" * 64, "spatial_size": [16, 16], "temperature": 2.0, "operating_points": POINTS}
SEGMENTER = {"sha256": "5" * 64}
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.float32)
IMAGE = UltrasoundImage(PIXELS, None, ())


def _classify(
    probability: np.ndarray, seen: list[torch.Tensor] | None = None, pixels: np.ndarray = PIXELS, **changes: Any
) -> Finding:
    """The finding of a classifier whose logit is always the same."""
    segmenter_card = changes.pop("segmenter_card", SEGMENTER)
    spacing, warnings = changes.pop("spacing_mm", None), changes.pop("warnings", ())
    presence = changes.pop("presence", None)
    region = changes.pop("region", None)

    def infer(image: torch.Tensor, _: torch.nn.Module) -> torch.Tensor:
        if seen is not None:
            seen.append(image)
        return torch.full((1, 1), LOGIT)

    step = ClassifyLesiond(torch.nn.Identity(), infer, "cpu", {**CARD, **changes}, segmenter_card)
    return step.classify("a.png", UltrasoundImage(pixels, spacing, tuple(warnings), region), probability, presence)


@pytest.fixture
def box() -> np.ndarray:
    """A lesion in rows 10 to 20, columns 30 to 50."""
    probability = np.zeros((40, 60), np.float32)
    probability[10:20, 30:50] = 0.9
    return probability


def test_the_probability_is_calibrated_and_the_decisions_follow_the_card(box: np.ndarray) -> None:
    finding = _classify(box)
    assert finding.probability_raw == pytest.approx(expit(LOGIT), abs=1e-7)
    assert finding.probability == pytest.approx(expit(LOGIT / 2), abs=1e-7)  # 0.646
    assert finding.decisions == {
        "probability 0.5": {"threshold": 0.5, "decision": "malignant"},
        "sensitivity 0.90": {"threshold": 0.7, "decision": "benign"},
        "sensitivity 0.95": {"threshold": 0.6, "decision": "malignant"},
    }


@pytest.mark.parametrize(
    ("benign", "malignant", "call"),
    [(0.5, 0.6, "malignant"), (0.3, 0.9, "benign"), (0.3, 0.6, "unsure"), (0.9, 0.9, "unsure")],
)
def test_the_call_is_the_only_class_left_or_unsure(box: np.ndarray, benign: float, malignant: float, call: str) -> None:
    limits = {"coverage": 0.9, "benign": benign, "malignant": malignant}
    assert _classify(box, conformal=limits).call == call  # of probability 0.646


def test_a_card_without_prediction_sets_makes_no_call(box: np.ndarray) -> None:
    assert _classify(box).call is None


def test_a_probability_at_the_threshold_is_malignant(box: np.ndarray) -> None:
    probability = _classify(box).probability
    points = [{"sensitivity_wish": 0.9, "threshold": probability}]
    assert _classify(box, operating_points=points).decisions["sensitivity 0.90"]["decision"] == "malignant"


def test_the_lesion_is_measured_at_native_size(box: np.ndarray) -> None:
    finding = _classify(box, spacing_mm=(0.1, 0.2))
    assert (finding.size, finding.box) == ((40, 60), (10, 30, 20, 50))
    assert finding.lesion["area_px"] == 200
    assert finding.lesion["area_mm2"] == pytest.approx(4.0)
    assert np.array_equal(finding.mask, box > 0)
    assert np.array_equal(finding.probability_map, np.where(box > 0, 230, 0))
    assert (finding.lesion_state, finding.reason, finding.lesion_probability) == ("found", None, None)
    assert finding.warnings == ()


@pytest.mark.parametrize("grey", [60, 150, 220])
def test_the_contrast_is_how_much_brighter_the_surroundings_are(box: np.ndarray, grey: int) -> None:
    pixels = np.where(box > 0, grey, 150) + np.random.default_rng(0).integers(-30, 31, (40, 60))
    dark, bright = np.percentile(pixels, [1, 99])
    lesion = _classify(box, pixels=pixels.astype(np.float32)).lesion
    assert lesion["contrast"] == pytest.approx((150 - grey) / (bright - dark), abs=0.1)


def test_unknown_spacing_gives_no_millimetres(box: np.ndarray) -> None:
    for spacing in (None, (math.nan, math.nan)):
        assert not [key for key in _classify(box, spacing_mm=spacing).lesion if "mm" in key]


def test_the_dict_is_strict_json_without_the_maps(box: np.ndarray) -> None:
    content = _classify(box, warnings=["said by the reader"]).as_dict()
    assert not set(MAPS) & content.keys()
    again = json.loads(json.dumps(content, allow_nan=False))
    assert again["models"] == {"segmenter": "5" * 64, "classifier": "c" * 64}
    assert "not a medical device" in again["notice"]
    assert again["warnings"] == ["said by the reader"]
    assert len(json.dumps(content)) < 3000


def _has_no_outline(finding: Finding, state: str, reason: str) -> None:
    assert (finding.lesion_state, finding.reason) == (state, reason)
    nothing = ("box", "lesion", "outline_confidence", "probability", "probability_raw", "call")
    assert [getattr(finding, name) for name in nothing] == [None] * 6
    assert {point["decision"] for point in finding.decisions.values()} == {None}
    assert not finding.mask.any()
    assert finding.mask.shape == finding.probability_map.shape == finding.size
    assert json.loads(json.dumps(finding.as_dict(), allow_nan=False))["schema_version"] == 2


@pytest.mark.parametrize("factor", [0.5, 0.3, 0.0])
def test_a_map_below_the_threshold_shows_no_lesion_and_nothing_is_classified(box: np.ndarray, factor: float) -> None:
    seen: list[torch.Tensor] = []
    limits = {"coverage": 0.9, "benign": 0.5, "malignant": 0.6}
    finding = _classify(box * factor, seen, conformal=limits, segmenter_card={**SEGMENTER, "doubtful_below": 0.8})
    _has_no_outline(finding, "none found", NO_LESION)
    assert finding.warnings == (NO_LESION,)
    assert seen == []


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_without_contrast_is_unusable_whatever_its_map_says(box: np.ndarray, level: int) -> None:
    seen: list[torch.Tensor] = []
    step = ClassifyLesiond(torch.nn.Identity(), lambda x, _: (seen.append(x), x.new_zeros(1, 1))[1], "cpu", CARD, {})
    finding = step.classify("a.png", UltrasoundImage(np.full((40, 60), level, np.float32), None, ("w",)), box)
    _has_no_outline(finding, "unusable", str(finding.reason))
    assert "no contrast" in str(finding.reason)
    assert not finding.probability_map.any()
    assert finding.warnings[:2] == ("w", finding.reason)
    assert seen == []


@pytest.mark.parametrize(("presence", "state"), [(0.29, "none found"), (0.3, "found"), (None, "found")])
def test_a_segmenter_that_tells_of_a_lesions_presence_is_believed_at_the_limit_of_its_card(
    box: np.ndarray, presence: float | None, state: str
) -> None:
    card = {**SEGMENTER, "presence_points": {"none_below": 0.3}}
    finding = _step(card).classify("a.png", IMAGE, box, presence)
    assert (finding.lesion_state, finding.lesion_probability) == (state, presence)
    if state == "none found":
        _has_no_outline(finding, state, ABSENT)
        assert finding.probability_map.any()  # what the network saw stays to be looked at
    assert _step(SEGMENTER).classify("a.png", IMAGE, box, presence).lesion_state == "found"


@pytest.mark.parametrize(("marks", "warned"), [(0, False), (1, False), (2, True)])
def test_a_pair_of_calipers_at_the_outline_is_warned_of(box: np.ndarray, marks: int, warned: bool) -> None:
    pixels = np.random.default_rng(0).uniform(40, 80, box.shape).astype(np.float32)
    rows, columns = np.nonzero(box > 0.5)
    for column in (columns.min(), columns.max())[:marks]:
        row = int(rows.mean())
        pixels[row, max(0, column - 5) : column + 6] = pixels[max(0, row - 5) : row + 6, column] = 255
    finding = _step(SEGMENTER).classify("a.png", UltrasoundImage(pixels, None, ()), box)
    assert (AT_MARKS in finding.warnings) is warned


def _step(segmenter_card: dict[str, Any]) -> ClassifyLesiond:
    return ClassifyLesiond(torch.nn.Identity(), lambda x, _: x.new_zeros(1, 1), "cpu", CARD, segmenter_card)


@pytest.mark.parametrize("change", ["older grey levels", "unknown feature"])
def test_a_card_of_features_in_other_units_is_refused_when_it_is_opened(change: str) -> None:
    fusion = {"features": ["grey_mean"] if change == "older grey levels" else ["is_fallback"]}
    with pytest.raises(UserError, match=r"scripts/refit_classifier\.py"):
        ClassifyLesiond(torch.nn.Identity(), _infer, "cpu", {**CARD, "fusion": fusion}, SEGMENTER)


@pytest.mark.parametrize(("limit", "told"), [(0.95, True), (0.85, False), (None, False)])
def test_an_outline_below_the_limit_of_its_segmenter_is_doubtful(
    box: np.ndarray, limit: float | None, told: bool
) -> None:
    finding = _classify(box, segmenter_card={**SEGMENTER, "doubtful_below": limit})
    assert finding.outline_confidence == pytest.approx(0.9, abs=1 / 255)
    assert (DOUBTFUL_OUTLINE in finding.warnings) is told
    assert finding.lesion_state == ("doubtful" if told else "found")
    assert finding.as_dict()["outline_confidence"] == finding.outline_confidence


@pytest.mark.parametrize(("presence", "state"), [(0.19, "none found"), (0.21, "doubtful"), (0.41, "found")])
def test_a_lesion_between_the_limits_of_any_hospital_and_of_its_own_is_doubtful(
    box: np.ndarray, presence: float, state: str
) -> None:
    points = {"none_below": 0.2, "on_validation": {"none_below": 0.4}}
    finding = _classify(box, presence=presence, segmenter_card={**SEGMENTER, "presence_points": points})
    assert finding.lesion_state == state
    assert (DOUBTFUL_OUTLINE in finding.warnings) is (state == "doubtful")
    plain = {**SEGMENTER, "presence_points": {"none_below": 0.2}}
    assert _classify(box, presence=0.21, segmenter_card=plain).lesion_state == "found"


def test_further_regions_are_named_and_counted(box: np.ndarray) -> None:
    box[30:34, 2:9] = 0.8
    finding = _classify(box)
    assert finding.other_boxes == ((30, 2, 34, 9),)
    assert any(warning.startswith("1 further region") for warning in finding.warnings)


def test_what_is_found_in_a_region_is_told_in_pixels_of_the_whole_frame(box: np.ndarray) -> None:
    region = (5, 20, 38, 58)
    outside = box.copy()
    outside[30:34, 2:9] = 0.8  # beyond the region: a ruler or a logo
    outside[30:34, 40:50] = 0.8
    seen: list[torch.Tensor] = []
    finding = _classify(outside, seen, region=region)
    assert (finding.size, finding.box) == ((40, 60), (10, 30, 20, 50))
    assert finding.other_boxes == ((30, 40, 34, 50),)
    assert finding.lesion["centroid_px"] == [14.5, 39.5]
    assert np.array_equal(finding.mask, box > 0)
    assert finding.probability_map.shape == (40, 60)
    assert not finding.probability_map[:, :20].any()
    of_region = _classify(outside[5:38, 20:58], region=region)
    assert of_region == finding
    assert np.array_equal(of_region.probability_map, finding.probability_map)


def test_the_classifier_sees_the_same_whether_a_region_was_cut_before_or_is_named(box: np.ndarray) -> None:
    named: list[torch.Tensor] = []
    cut: list[torch.Tensor] = []
    _classify(box, named, region=(5, 20, 25, 58))
    step = ClassifyLesiond(torch.nn.Identity(), lambda x, _: (cut.append(x), x.new_zeros(1, 1))[1], "cpu", CARD, {})
    step.classify("a.png", UltrasoundImage(PIXELS[5:25, 20:58], None, ()), box[5:25, 20:58])
    assert torch.equal(named[0], cut[0])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"synthetic": True}, "SYNTHETIC"),
        ({"segmenter_card": {**SEGMENTER, "synthetic": True}}, "SYNTHETIC"),
        ({"masks": "oracle"}, "ORACLE"),
        ({"segmenter_sha256": "6" * 64}, "another segmenter"),
        ({"segmenter_card": {}}, "not known which segmenter"),
    ],
)
def test_weights_that_deserve_a_warning_give_one(box: np.ndarray, changes: dict[str, Any], word: str) -> None:
    assert [word in warning for warning in _classify(box, **changes).warnings] == [True]


def test_the_classifier_that_knows_its_segmenter_does_not_warn(box: np.ndarray) -> None:
    assert _classify(box, segmenter_sha256="5" * 64, masks="predicted").warnings == ()


@pytest.mark.parametrize(("variant", "channels"), [("masked", 1), ("crop", 1), ("crop+mask", 2)])
def test_the_classifier_sees_what_its_card_says(box: np.ndarray, variant: str, channels: int) -> None:
    seen: list[torch.Tensor] = []
    _classify(box, seen, variant=variant, spatial_size=[20, 30])
    assert seen[0].shape == (1, channels, 20, 30)
    assert seen[0].dtype == torch.float32
    assert 0 <= seen[0].min() < seen[0].max() <= 1


@pytest.fixture
def network() -> SegNet:
    torch.manual_seed(0)
    return SegNet(in_channels=2, filters=(4, 8), decoder=False).eval()


def _infer(image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
    return network(image)


def test_an_explanation_changes_nothing_else(box: np.ndarray, network: SegNet) -> None:
    plain = ClassifyLesiond(network, _infer, "cpu", CARD, SEGMENTER).classify("a.png", IMAGE, box)
    explained = ClassifyLesiond(network, _infer, "cpu", CARD, SEGMENTER, explain=True).classify("a.png", IMAGE, box)
    assert explained == plain
    assert explained.as_dict() == plain.as_dict()
    assert plain.explanation is None
    assert explained.explanation is not None
    assert (explained.explanation.shape, explained.explanation.dtype) == (PIXELS.shape, np.uint8)


@pytest.mark.parametrize(("given", "wanted"), [(False, 0), ("false", 0), (True, 2), ("true", 2), ("True", 2)])
def test_only_who_asks_for_explanations_pays_for_them(network: SegNet, given: bool | str, wanted: int) -> None:
    """Grad-CAM needs a hook forwards and one backwards; a command line gives text in place of a bool."""
    ClassifyLesiond(network, _infer, "cpu", CARD, SEGMENTER, explain=given)
    assert len(network.feature_map._forward_hooks) + len(network.feature_map._backward_hooks) == wanted


def test_another_word_for_explain_is_a_users_mistake(network: SegNet) -> None:
    with pytest.raises(UserError, match="explain: 'yes' must be true or false"):
        ClassifyLesiond(network, _infer, "cpu", CARD, SEGMENTER, explain="yes")
