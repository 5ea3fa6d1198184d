# SPDX-License-Identifier: Apache-2.0
"""From an image and its probability map to a `Finding`: crop, classify, calibrate, measure, decide, warn."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from bundle.evaluation.classification import name_point
from bundle.evaluation.conformal import conformal_call
from bundle.evaluation.fusion import calibrated_probability, check_fusion
from bundle.evaluation.uncertainty import outline_confidence
from bundle.finding import (
    ABSENT,
    AT_MARKS,
    DOUBTFUL,
    DOUBTFUL_OUTLINE,
    FOUND,
    NO_LESION,
    NONE_FOUND,
    UNUSABLE,
    Finding,
)
from bundle.networks.autocast import as_flag
from bundle.networks.site_file import apply_site
from bundle.networks.weights import doubtful_presence, none_below
from bundle.prediction.explain import ExplainMalignancy
from bundle.readers import UltrasoundImage
from bundle.transforms.calipers import calipers_at
from bundle.transforms.features import FEATURES, describe_lesion
from bundle.transforms.geometry import place_in_frame
from bundle.transforms.lesion import Box, LesionCrop, LesionRegion, find_lesion, quantise
from bundle.transforms.shape import measure_counts

PAIR = 2
"""Of caliper marks: what measures something; a single bright cross is as often a fibre."""


class LesionClassifier:
    """From an image and its lesion probability to a `Finding`: crop, classify, calibrate, measure, decide.

    The `Predictor` calls it, and the pipeline's config by way of `ClassifyLesiond`, so both say the same.

    Args:
        network: the classifier, in evaluation mode on its device.
        inferer: calls it.
        device: where it is.
        card: the classifier's card: crop, temperature and operating points, as its training recorded them.
        segmenter_card: the segmenter's, for the record; empty where it is not known.
        explain: also say where the evidence is, see `ExplainMalignancy`. ``true`` and ``false`` as text will do: a
            command line of MONAI makes text of them.
        site: a ``site.json``, whose temperature, operating points and limits replace those of the cards; every finding
            names it.

    Raises:
        UserError: explain is neither true nor false; the card is of an older version, see `check_fusion`; or the site
            file is of other weights.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        inferer: Callable[..., torch.Tensor],
        device: torch.device | str,
        card: Mapping[str, Any],
        segmenter_card: Mapping[str, Any],
        explain: bool | str = False,
        site: str | os.PathLike[str] | None = None,
    ) -> None:
        self.network, self.inferer, self.device = network, inferer, torch.device(device)
        check_fusion(card)
        self.models = {"segmenter": segmenter_card.get("sha256"), "classifier": card.get("sha256")}
        self.site: str | None = None
        if site is not None:
            told, segmenter_card, card = apply_site(site, segmenter_card, card)
            self.site, self.models["site"] = told.name, told.sha256
        self.card, self.segmenter_card = card, segmenter_card
        self.crop = LesionCrop(
            threshold=card.get("mask_threshold", 0.5),
            variant=card.get("variant", "crop+mask"),
            margin=card.get("margin", 0.25),
            spatial_size=card.get("spatial_size", (128, 128)),
        )
        self.warnings = _warnings_of_weights(card, segmenter_card)
        self.explain = ExplainMalignancy(network, self.crop) if as_flag("explain", explain) else None

    @torch.no_grad()
    def classify(
        self,
        name: str | os.PathLike[str],
        image: UltrasoundImage,
        probability: np.ndarray | None,
        presence: float | None = None,
    ) -> Finding:
        """Make the finding of one image: found in its tissue region, told in pixels of the whole frame.

        Nothing is classified but what is outlined: an image without contrast or tissue is unusable whatever the map
        says, and has an empty one; where `presence` is below the limit of the segmenter's card, see `none_below`, or
        where no pixel reaches the threshold, no lesion is found.

        Args:
            name: of the image.
            image: as it was read.
            probability: float in [0, 1], of lesion; of the whole frame (H, W), or of the region alone; None for an
                image that is unusable.
            presence: probability that there is a lesion at all; None where the segmenter does not tell.
        """
        if (reason := image.unusable) is not None:
            return self._without_outline(name, image, UNUSABLE, reason, np.zeros(image.tissue.shape, np.uint8))
        if probability is None:
            raise ValueError(f"{name}: a usable image needs its probability map")
        pixels = image.tissue
        frame_shape = image.pixels.shape
        if probability.shape == frame_shape:
            probability = image.cut(probability)
        levels = quantise(probability)
        region = find_lesion(levels, self.crop.threshold)
        if presence is not None and presence < none_below(self.segmenter_card):
            return self._without_outline(name, image, NONE_FOUND, ABSENT, levels, presence)
        if region.is_fallback:
            return self._without_outline(name, image, NONE_FOUND, NO_LESION, levels, presence)
        seen = self.crop.show(pixels, levels, region, white=255)[None].to(self.device)
        logit = float(self.inferer(seen, self.network).reshape(()))
        described = describe_lesion(pixels, levels, region, image.grey)
        features = [described[name] for name in FEATURES]
        calibrated = calibrated_probability(self.card, [logit], [features]).item()
        explanation = self.explain(seen, region) if self.explain else None
        confidence = outline_confidence(levels, region.mask)
        doubtful = confidence < (self.segmenter_card.get("doubtful_below") or 0)
        doubtful |= presence is not None and presence < doubtful_presence(self.segmenter_card)
        mask = place_in_frame(region.mask, frame_shape, image.box)
        measures = measure_counts(region.counts.moved(*image.box[:2]), _known(image.spacing_mm))
        return Finding(
            image=os.fspath(name),
            size=(frame_shape[0], frame_shape[1]),
            box=_shift(region.box, image),
            lesion={**measures, "contrast": described["surround_contrast"]},
            other_boxes=tuple(_shift(box, image) for box in region.others),
            lesion_state=DOUBTFUL if doubtful else FOUND,
            outline_confidence=confidence,
            probability_raw=float(expit(logit)),
            probability=calibrated,
            decisions=_decide(calibrated, self.card),
            call=conformal_call(calibrated, self.card["conformal"]) if self.card.get("conformal") else None,
            warnings=(*image.warnings, *_doubts(pixels, region, doubtful), *self.warnings),
            models=self.models,
            mask=mask,
            probability_map=place_in_frame(levels, frame_shape, image.box),
            explanation=None if explanation is None else place_in_frame(explanation, frame_shape, image.box),
            frame=image.frame,
            spacing_mm=_known(image.spacing_mm),
            lesion_probability=presence,
            site=self.site,
        )

    def _without_outline(
        self,
        name: str | os.PathLike[str],
        image: UltrasoundImage,
        state: str,
        reason: str,
        levels: np.ndarray,
        presence: float | None = None,
    ) -> Finding:
        frame_shape = image.pixels.shape
        return Finding(
            image=os.fspath(name),
            size=(frame_shape[0], frame_shape[1]),
            box=None,
            lesion=None,
            other_boxes=(),
            lesion_state=state,
            outline_confidence=None,
            probability_raw=None,
            probability=None,
            decisions=_decide(None, self.card),
            warnings=(*image.warnings, reason, *self.warnings),
            models=self.models,
            mask=np.zeros(frame_shape, dtype=bool),
            probability_map=place_in_frame(levels, frame_shape, image.box),
            frame=image.frame,
            spacing_mm=_known(image.spacing_mm),
            reason=reason,
            lesion_probability=presence,
            site=self.site,
        )


def _shift(box: Box, image: UltrasoundImage) -> Box:
    """Express a box of the tissue region in pixels of the whole frame."""
    top, left = image.box[:2]
    return box[0] + top, box[1] + left, box[2] + top, box[3] + left


def _known(spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if spacing_mm is None or not all(map(math.isfinite, spacing_mm)) else spacing_mm


def _decide(probability: float | None, card: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    points = {"probability 0.5": 0.5}
    points |= {name_point(point["sensitivity_wish"]): point["threshold"] for point in card["operating_points"]}
    return {
        name: {"threshold": threshold, "decision": None if probability is None else _call(probability >= threshold)}
        for name, threshold in points.items()
    }


def _call(reached: bool) -> str:
    return "malignant" if reached else "benign"


def _doubts(pixels: np.ndarray, region: LesionRegion, doubtful: bool) -> list[str]:
    found = [DOUBTFUL_OUTLINE] if doubtful else []
    if len(calipers_at(pixels, region.mask, PAIR)) >= PAIR:
        found.append(AT_MARKS)
    if region.others:
        found.append(f"{len(region.others)} further region(s) reach the threshold; only the largest was classified")
    return found


def _warnings_of_weights(card: Mapping[str, Any], segmenter_card: Mapping[str, Any]) -> list[str]:
    """What every finding of these weights says."""
    found = []
    if not segmenter_card:
        found.append("it is not known which segmenter made the probability map")
    elif card.get("segmenter_sha256") and not any(
        # Of a cross-fitted classifier also the segmenter of the same recipe that it is shipped with.
        segmenter_card.get("sha256") in card.get(key, ())
        for key in ("segmenter_sha256", "paired_with")
    ):
        found.append("the classifier was trained on the masks of another segmenter")
    if card.get("unverified") or segmenter_card.get("unverified"):
        found.append("UNVERIFIED: the weights are not those that their card describes")
    if card.get("masks") == "oracle":
        found.append("ORACLE: the classifier was trained on ground-truth masks, which no new image has")
    if card.get("synthetic") or segmenter_card.get("synthetic"):
        found.append("SYNTHETIC: the weights were trained on a phantom and say nothing about patients")
    return found
