# SPDX-License-Identifier: Apache-2.0
"""The trainers of the MONAI Label app: the bundle's own training configs on what was submitted."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.tasks.train.bundle import BundleConstants, BundleTrainTask

from bundle.data.classifier import TARGETS
from bundle.errors import UserError
from bundle.files import sha256_of
from bundle.networks.weights import CLASSIFIER, SEGMENTER, read_card
from bundle.outputs.png import write_probability
from lib.infer import FindLesion

logger = logging.getLogger(__name__)

DIAGNOSIS = "diagnosis"
"""Key of an image's information that holds its class: PUT /datastore/image/info with {"diagnosis": "benign"}."""


class _OwnConfig(BundleConstants):
    """Another training config of the bundle than train.json, and whether it has an overlay for several GPUs."""

    def __init__(self, config: str, multi_gpu: Sequence[str]) -> None:
        self.config, self.multi_gpu = config, multi_gpu

    def configs(self) -> Sequence[str]:
        return [self.config]

    def multi_gpu_configs(self) -> Sequence[str]:
        return self.multi_gpu


class _Trainer(BundleTrainTask):
    """MONAI Label's bundle trainer, bound to its own weights and to the settings that those were trained with.

    Args:
        root: of the bundle.
        conf: of the app.
        weights: name of the file in `models` that it starts from and publishes to.
        settings: config id -> key of the card that it must equal, or the weights would not fit.
        constants: names of the config files.
    """

    def __init__(
        self, root: str, conf: dict[str, str], weights: str, settings: Mapping[str, str], constants: BundleConstants
    ) -> None:
        super().__init__(root, conf, const=constants, load_strict=True)
        self.weights, self.settings = weights, settings

    def config(self) -> dict[str, Any]:
        """What a client may set."""
        return {**super().config(), "model_filename": [self.weights]}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; the former weights are kept under ``models/versions``."""
        # Clients send back every option; an empty run_id would make MONAI run every list of the config.
        wanted = {key: value for key, value in request.items() if key != "run_id" or value}
        super().__call__({**wanted, "model_filename": self.weights}, datastore)
        card = read_card(Path(self.bundle_path) / "models" / self.weights)
        return {"model": self.weights, "sha256": card.get("sha256"), "validation": card.get("validation")}

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[dict[str, Any]]) -> None:
        # MONAI Label cannot train from scratch: it looks for a file named None.
        train_handlers[:] = [handler for handler in train_handlers if handler["_target_"] != "CheckpointLoader"]
        if pretrained:
            super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        card = read_card(Path(self.bundle_path) / "models" / self.weights)
        overrides.update({id_: card[key] for id_, key in self.settings.items() if key in card})
        return overrides


class SegmentationTrainer(_Trainer):
    """Train the segmenter on the final labels of the studies."""

    def __init__(self, root: str, conf: dict[str, str]) -> None:
        network = ("architecture", "filters", "instance_norm", "decoder_channels", "width", "presence")
        plain = (*network, "spatial_size", "letterbox", "clahe")
        nested = ("batch_norm", "context", "standardize")
        settings = {**{key: key for key in plain}, **{f"network_def#{key}": key for key in nested}}
        constants = _OwnConfig("train.json", ["multi_gpu_train.json"])
        super().__init__(root, conf, SEGMENTER, settings, constants)

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Datastore) -> list[dict[str, Any]]:
        records = super()._fetch_datalist(request, datastore)
        if not records:
            raise UserError("no image has a final label; submit one, or PUT it to /datastore/label, then train")
        return records


class ClassificationTrainer(_Trainer):
    """Train the classifier on the images whose `diagnosis` is known, with the lesions that the segmenter finds.

    Args:
        root: of the bundle.
        conf: of the app.
        lesion: the model, whose segmenter makes the probability maps.
    """

    def __init__(self, root: str, conf: dict[str, str], lesion: FindLesion) -> None:
        plain = ("architecture", "filters", "decoder", "width", "variant", "margin", "spatial_size")
        settings = {**{key: key for key in plain}, "network_def#standardize": "standardize"}
        super().__init__(root, conf, CLASSIFIER, settings, _OwnConfig("train_classifier.json", []))
        self.lesion = lesion

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; on one device, since the classifier has no overlay for several GPUs."""
        return super().__call__({**request, "multi_gpu": False}, datastore)

    def _fetch_datalist(self, request: Mapping[str, Any], datastore: Datastore) -> list[dict[str, Any]]:
        maps = Path(self.bundle_path) / "runs" / "monailabel_maps"
        predictor = self.lesion.predictor(request.get("device"))
        segmenter = sha256_of(self.lesion.weights()[0])[:12]
        records, seen = [], []
        for image in sorted(datastore.list_images()):
            label = _diagnosis_of(image, datastore)
            if label is None:
                continue
            try:
                path = datastore.get_image_uri(image)
                probability = predictor.predict(path).probability_map
            except UserError as error:
                logger.warning("%s is left out: %s", image, error)
                continue
            file = maps / segmenter / f"{sha256_of(path)[:16]}.png"
            write_probability(probability / 255, file)
            records.append({"image": path, "probability": str(file), "label": TARGETS[label]})
            seen += [image] if datastore.get_label_by_image_id(image, DefaultLabelTag.FINAL) else []
        for name, target in TARGETS.items():
            count = sum(record["label"] == target for record in records)
            if count < 2:
                raise UserError(
                    f"{count} images are {name}; the classifier needs two or more of each class, one to train on and "
                    f'one to calibrate with: PUT {{"{DIAGNOSIS}": "{name}"}} to /datastore/image/info'
                )
        if seen and read_card(self.lesion.weights()[0]).get("name") == "records given by a tool":
            logger.warning("The segmenter may have trained on %d of these images: their maps are too good", len(seen))
        return records

    def _partition_datalist(
        self, datalist: Sequence[Mapping[str, Any]], request: Mapping[str, Any], shuffle: bool = False
    ) -> tuple[list[Any], list[Any]]:
        """Leave a share of each class, and at least one image, for the calibration."""
        share = min(0.5, max(0.0, float(request.get("val_split", 0.2))))
        training: list[Any] = []
        validation: list[Any] = []
        for target in TARGETS.values():
            members = [record for record in datalist if record["label"] == target]
            random.Random(0).shuffle(members)
            count = max(1, round(share * len(members)))
            validation += members[:count]
            training += members[count:]
        return training, validation

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides["segmenter"] = str(self.lesion.weights()[0])
        return super()._update_overrides(overrides)


def _diagnosis_of(image: str, datastore: Datastore) -> str | None:
    """The class of an image; None where it is not told, or normal, which is neither."""
    told = datastore.get_image_info(image).get(DIAGNOSIS)
    label = str(told).strip().lower()
    if told is None or label == "normal":
        return None
    if label not in TARGETS:
        raise UserError(f"{image}: its {DIAGNOSIS} is '{told}'; allowed are {', '.join(TARGETS)} and normal")
    return label
