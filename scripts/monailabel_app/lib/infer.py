# SPDX-License-Identifier: Apache-2.0
"""The model of the MONAI Label app: one image in; a mask, and what is said about it, out."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.transform.post import FindContoursd
from monailabel.transform.writer import PolygonWriter
from monailabel.utils.others.generic import device_list, name_to_device
from PIL import Image

from bundle.errors import UserError
from bundle.finding import NOT_A_DEVICE, Finding
from bundle.networks.weights import CLASSIFIER, SEGMENTER, card_path, weights_file
from bundle.prediction.predictor import Predictor
from bundle.transforms.annotation import VOLUMES, result_extension

logger = logging.getLogger(__name__)

LABELS = {"lesion": 1}
POLYGONS = ("asap", "dsa", "json")
SMALLEST_POLYGON = 10  # pixels; the server's own limit of 80 is meant for cells on whole slides
PATIENCE = 5.0  # seconds: a training publishes weights and card one after the other


class FindLesion(InferTask):
    """Segment and classify with the `Predictor`, so the numbers are those of scripts/predict.py.

    Weights are loaded strictly, after their sha256 was compared with their card, and again whenever a file of the
    models folder changed.

    Args:
        models: folder of both weights and their cards, or a set in it, see `weights_file`.
        site: a ``site.json`` fitted for these weights.
    """

    def __init__(self, models: Path, site: Path | None = None) -> None:
        super().__init__(
            InferType.SEGMENTATION,
            LABELS,
            dimension=2,
            description=f"Lesion of a 2-D breast ultrasound image, benign or malignant. {NOT_A_DEVICE}",
            config={"device": device_list()},
        )
        self.models, self.site = models, site
        self._loaded: dict[str, tuple[tuple[int, ...], Predictor]] = {}

    def is_valid(self) -> bool:
        """Whether both weights are there."""
        return all(file.is_file() for file in self.weights())

    def get_path(self, validate: bool = True) -> str:
        """The segmenter's weights, for the server's download of a model."""
        return str(self.weights()[0])

    def weights(self) -> tuple[Path, Path]:
        """The files of segmenter and classifier."""
        return weights_file(self.models, SEGMENTER), weights_file(self.models, CLASSIFIER)

    def predictor(self, device: Any = None) -> Predictor:
        """The predictor on a device, as clients name it, with the weights that are there now.

        Raises:
            UserError: they cannot be loaded, or belong to another network.
        """
        place = name_to_device(device)
        deadline = time.monotonic() + PATIENCE
        while True:
            state = self._state()
            if place in self._loaded and self._loaded[place][0] == state:
                return self._loaded[place][1]
            try:
                self._loaded[place] = (state, Predictor.from_folder(self.models, place, site=self.site))
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _state(self) -> tuple[int, ...]:
        weights = self.weights()
        files = [*weights, *map(card_path, weights), *([self.site] if self.site else [])]
        return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Answer one request with the mask's file and the result as JSON."""
        start = time.monotonic()
        path = str(request["image"])
        finding = self.predictor(request.get("device")).predict(path)
        shared = {"label_names": LABELS, "class": _class_of(finding), "finding": _as_json(finding)}
        shared["latencies"] = {"total": round(time.monotonic() - start, 3)}
        if request.get("output") in POLYGONS:
            file, result = write_polygons(finding.mask, request)
            return file, {**result, **shared}
        extension = result_extension({**request, "image_path": path})
        return write_label(finding.mask, path, extension), {**shared, "prediction": _scores_of(finding)}


def write_label(mask: np.ndarray, source: str, extension: str) -> str:
    """Write a mask (H, W) bool as 0 and 1, a picture as PNG, a volume with the place in space of its source.

    Args:
        mask: of the lesion.
        source: the image's file, as ITK places it.
        extension: of the result.

    Returns:
        path of a temporary file, which the server removes.
    """
    with tempfile.NamedTemporaryFile(suffix=extension, delete=False) as file:
        path = file.name
    if extension not in VOLUMES:
        Image.fromarray(mask.astype(np.uint8)).save(path)
        return path
    label = SimpleITK.GetImageFromArray(mask.astype(np.uint8)[None])
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(source)
    reader.ReadImageInformation()
    plane = 2 if reader.GetDimension() == 2 else 3
    direction = np.eye(3)
    stored = np.asarray(reader.GetDirection()).reshape((reader.GetDimension(),) * 2)
    direction[:plane, :plane] = stored[:plane, :plane]
    label.SetSpacing((*reader.GetSpacing()[:plane], 1.0)[:3])
    label.SetOrigin((*reader.GetOrigin()[:plane], 0.0)[:3])
    label.SetDirection(direction.ravel().tolist())
    SimpleITK.WriteImage(label, path, useCompression=True)
    return path


def write_polygons(mask: np.ndarray, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Draw a mask (H, W) bool as polygons in pixels (x, y): XML for QuPath, JSON for the Digital Slide Archive or CVAT.

    Returns:
        a temporary file, None for JSON; and the result's JSON.
    """
    # The whole image is looked at whichever part of it a client names, so the points are those of the whole image.
    data = {**request, "location": [0, 0], "size": [mask.shape[1], mask.shape[0]], "pred": mask.T.astype(np.uint8)}
    data["min_poly_area"] = min(SMALLEST_POLYGON, request.get("min_poly_area", SMALLEST_POLYGON))
    drawn = FindContoursd(keys="pred", labels=LABELS, min_positive=1)(data)
    file, result = PolygonWriter(label="pred", json="result")(drawn)
    return file, result


def _class_of(finding: Finding) -> str | None:
    """None where nothing is outlined, so that nothing was classified."""
    decision: str | None = finding.decisions["probability 0.5"]["decision"]
    return decision


def _scores_of(finding: Finding) -> list[dict[str, Any]]:
    """Both classes as MONAI Label writes a classification; empty where nothing was classified."""
    if finding.probability is None:
        return []
    scores = {"benign": 1 - finding.probability, "malignant": finding.probability}
    return [{"idx": i, "label": name, "score": score} for i, (name, score) in enumerate(scores.items())]


def _as_json(finding: Finding) -> dict[str, Any]:
    """The finding as scripts/predict.py writes it; the server's folders are not the client's business."""
    return {**finding.as_dict(), "image": Path(finding.image).name}
