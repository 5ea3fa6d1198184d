# SPDX-License-Identifier: Apache-2.0
"""Active learning: how sure the networks are of each image that nobody labelled, and which one to ask for next."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from bundle.errors import UserError
from bundle.evaluation.uncertainty import class_entropy, outline_entropy
from bundle.finding import UNUSABLE
from bundle.networks.weights import read_card
from bundle.readers import read_mask
from bundle.transforms.lesion import find_lesion
from lib.infer import FindLesion

logger = logging.getLogger(__name__)

SCORED_BY = "scored_by"
SERVED_AGAIN = 24 * 3600.0
"""Seconds after which an image that was asked for, and not labelled, may be asked for again."""


class ScoreUncertainty(ScoringMethod):
    """Write `outline_entropy` and `class_entropy`, in bits, into the information of each image without a final label.

    Images that the present weights scored already are passed over, so the server may run this as often as it likes.

    Args:
        lesion: the model.
    """

    def __init__(self, lesion: FindLesion) -> None:
        super().__init__("Entropy of the lesion's outline and of its class, in bits")
        self.lesion = lesion

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what is new; return how many images were scored, passed over, and unreadable with the reason."""
        models = models_of(self.lesion)
        scored, skipped, failed = 0, 0, {}
        for image in datastore.get_unlabeled_images():
            if datastore.get_image_info(image).get(SCORED_BY) == models:
                skipped += 1
                continue
            try:
                finding = self.lesion.predictor(request.get("device")).predict(datastore.get_image_uri(image))
            except UserError as error:
                logger.warning("%s is not scored: %s", image, error)
                failed[image] = str(error)
                continue
            if finding.lesion_state == UNUSABLE:
                failed[image] = str(finding.reason)
                continue
            # Where nothing is outlined, the most probable region is what to ask about; of its class nothing is known.
            box = finding.box or find_lesion(finding.probability_map).box
            entropies = {
                "outline_entropy": outline_entropy(finding.probability_map / 255, box),
                "class_entropy": class_entropy(0.5 if finding.probability is None else finding.probability),
            }
            datastore.update_image_info(image, {**entropies, SCORED_BY: models})
            scored += 1
        return {"scored": scored, "skipped": skipped, "failed": failed}


class ScoreAgreement(ScoringMethod):
    """Write `dice` into the information of each image with a final label: the model's mask against the annotator's.

    Args:
        lesion: the model.
    """

    def __init__(self, lesion: FindLesion) -> None:
        super().__init__("Dice of the model's mask with the submitted one")
        self.lesion = lesion

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Return the Dice of each image, None where both masks are empty; what can not be used is told in the log."""
        dice: dict[str, float | None] = {}
        for image in datastore.get_labeled_images():
            try:
                truth = read_mask(datastore.get_label_uri(image, DefaultLabelTag.FINAL))
                found = self.lesion.predictor(request.get("device")).predict(datastore.get_image_uri(image)).mask
            except UserError as error:
                logger.warning("%s is not compared: %s", image, error)
                continue
            if truth.shape != found.shape:
                logger.warning("%s is not compared: its label has %s pixels, it %s", image, truth.shape, found.shape)
                continue
            both = int(truth.sum() + found.sum())
            dice[image] = 2 * int((truth & found).sum()) / both if both else None
            datastore.update_image_info(image, {"dice": dice[image]})
        return dice


class MostUncertain(Strategy):
    """Ask for the image with the highest entropy that was not asked for within a day.

    Images that the present weights have not scored come after those that they have.

    Args:
        key: name of the score in the images' information.
        lesion: the model, whose weights must be those that scored.
        what: that is uncertain.
    """

    def __init__(self, key: str, lesion: FindLesion, what: str) -> None:
        super().__init__(f"The image where the networks are least sure of {what}")
        self.key = key
        self.lesion = lesion

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the next image's `id` and its score; None when every image is labelled."""
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        if not images:
            return None
        models, now = models_of(self.lesion), time.time()

        def rank(image: str) -> tuple[bool, bool, float, str]:
            info = datastore.get_image_info(image)
            served = info.get("strategy", {}).get(request["strategy"], {}).get("ts", 0)
            known = info.get(SCORED_BY) == models
            return now - served < SERVED_AGAIN, not known, -info.get(self.key, 0.0) if known else 0.0, image

        chosen = min(images, key=rank)
        return {"id": chosen, self.key: datastore.get_image_info(chosen).get(self.key)}


def models_of(lesion: FindLesion) -> str:
    """Which weights a score is of: the first digits of both checksums."""
    cards = [read_card(weights) for weights in lesion.weights()]
    return "+".join(str(card.get("sha256"))[:12] for card in cards)
