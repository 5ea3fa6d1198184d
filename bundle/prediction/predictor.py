# SPDX-License-Identifier: Apache-2.0
"""The one class that users call: an image in, a finding out. No config is evaluated, no code comes from the weights.

    predictor = Predictor.from_folder("models")
    finding = predictor.predict("image.png")
    print(finding.probability, finding.lesion["long_axis_px"])

Research software, not a medical device.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.errors import UserError
from bundle.finding import Finding
from bundle.networks import build_from_card
from bundle.networks.autocast import Autocast
from bundle.networks.weights import CLASSIFIER, SEGMENTER, SMALL_SEGMENTER, load_weights, require_card, weights_file
from bundle.prediction.backends import AUTO, INT8, TORCH, BackendNetwork, fastest_first, require_backend, require_int8
from bundle.prediction.classify import LesionClassifier
from bundle.readers import UltrasoundImage, read_image, split_frame
from bundle.transforms.geometry import equalise, fit, restore
from bundle.transforms.lesion import split_presence

logger = logging.getLogger(__name__)

SEGMENTER_KEYS = ("architecture", "standardize", "spatial_size", "threshold")
CLASSIFIER_KEYS = ("architecture", "in_channels", "standardize")


class Predictor:
    """Segment, cut out and classify the lesion of a 2-D B-mode breast ultrasound image.

    Args:
        segmenter: weights file of the segmentation network, its card beside it.
        classifier: weights file of the classifier, its card beside it.
        device: where to run; by default a GPU where there is one.
        amp: mixed precision; by default wherever it is fast, but on a CPU with the backend ``auto``. False for float32,
            whose numbers are the same by every backend.
        explain: also say where the evidence for malignancy is, as ``finding.explanation``.
        allow_unverified: use weights that differ from the sha256 on their card; every finding then says so. The card
            itself is needed all the same, since it holds the settings.
        backend: what computes the networks, of `bundle.prediction.backends.BACKENDS`; all but ``torch`` run on the CPU
            alone and cannot explain. ``auto``: the fastest that is installed and runs.
        flip: average the segmenter's map with that of the mirror image, and the classifier's logit where its card says
            so; false takes half the time, see docs/scaling.md for what it costs.
        site: a ``site.json`` of `scripts/recalibrate.py`, fitted for these weights on an institution's own images.
        int8: both networks in 8-bit integers, by OpenVINO on the CPU; `amp` is then not looked at. They are quantised
            once, which takes half a minute, see `bundle.prediction.quantised`; docs/scaling.md has what it costs.

    Raises:
        UserError: a file is missing, differs from the sha256 on its card, or is of another network; the device
            is none of this machine; the backend is not installed or cannot do what is asked; or the site file was
            fitted for other weights.
    """

    def __init__(
        self,
        segmenter: str | os.PathLike[str],
        classifier: str | os.PathLike[str],
        device: torch.device | str | None = None,
        amp: bool | None = None,
        explain: bool = False,
        allow_unverified: bool = False,
        backend: str = TORCH,
        site: str | os.PathLike[str] | None = None,
        flip: bool = True,
        int8: bool = False,
    ) -> None:
        if int8:
            require_int8(backend)
            backend, amp = "openvino", False
        by_gpu = torch.cuda.is_available() and backend in (TORCH, AUTO)
        self.device = _usable(device or ("cuda" if by_gpu else "cpu"))
        on_cpu = self.device.type == "cpu"
        backends = fastest_first(on_cpu, explain) if backend == AUTO else (backend,)
        _check_backend(backends[0], self.device, explain)
        if amp is None and backend == AUTO and on_cpu:
            amp = False
        card = require_card(segmenter, SEGMENTER_KEYS)
        unet = build_from_card(card)
        card = load_weights(unet, segmenter, allow_unverified)
        classifier_card = require_card(classifier, (*CLASSIFIER_KEYS, "operating_points"))
        segnet = build_from_card(classifier_card)
        classifier_card = load_weights(segnet, classifier, allow_unverified)
        self.inferer = Autocast(self.device, amp=amp, flip=flip)
        size = classifier_card.get("spatial_size", (128, 128))
        shapes = ((1, *card["spatial_size"]), (classifier_card["in_channels"], *size))
        self.backend, self.segmenter, network = self._open(unet, segnet, shapes, backends)
        inferer = Autocast(self.device, amp=amp, flip=flip and classifier_card.get("flip", False))
        self.classifier = LesionClassifier(network, inferer, self.device, classifier_card, card, explain, site)
        self.size = (int(card["spatial_size"][0]), int(card["spatial_size"][1]))
        self.letterbox, self.clip_limit = bool(card.get("letterbox", False)), float(card.get("clahe", 0.0))
        # Whether several threads may predict at once: heat maps hook into the network, and a GPU is busy with one.
        self.concurrent = self.device.type == "cpu" and not explain
        self.int8 = int8
        if int8:
            from bundle.prediction.quantised import quantised  # with what draws phantoms

            both = quantised((unet, segnet), shapes, self, [card, classifier_card, flip])
            self.segmenter, self.classifier.network = both

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike[str],
        device: torch.device | str | None = None,
        amp: bool | None = None,
        explain: bool = False,
        allow_unverified: bool = False,
        backend: str = TORCH,
        small: bool = False,
        site: str | os.PathLike[str] | None = None,
        flip: bool = True,
        int8: bool = False,
    ) -> Predictor:
        """Take ``model.pt`` and ``model_classifier.pt``, with their cards, from a folder, or of a set in it.

        Args:
            folder: ``models``; or ``models/paper`` for ``models/paper_model.pt`` and its fellows, see `weights_file`.
            device, amp, explain, allow_unverified, backend, site, flip, int8: as the class takes them.
            small: the segmenter is ``model_small.pt``, for CPUs.
        """
        return cls(*weights_in(folder, small), device, amp, explain, allow_unverified, backend, site, flip, int8)

    @property
    def computed_by(self) -> dict[str, Any]:
        """What computes the networks, for reports: `backend`, `precision`, `flip`."""
        precision = "bfloat16" if self.inferer.amp and self.backend != "onnxruntime" else "float32"
        precision = INT8 if self.int8 else precision
        return {"backend": self.backend, "precision": precision, "flip": self.inferer.flip}

    def _open(
        self,
        segmenter: torch.nn.Module,
        classifier: torch.nn.Module,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        backends: Sequence[str],
    ) -> tuple[str, torch.nn.Module, torch.nn.Module]:
        """Open both networks by the first backend that can; returns its name and the two."""
        for backend, following in pairwise(backends):
            try:
                return backend, self._ready(segmenter, shapes[0], backend), self._ready(classifier, shapes[1], backend)
            except Exception as error:  # whatever an engine dislikes about this machine
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                logger.warning("backend %s does not run here (%s): %s is used", backend, reason, following)
        backend = backends[-1]
        return backend, self._ready(segmenter, shapes[0], backend), self._ready(classifier, shapes[1], backend)

    def _ready(self, network: torch.nn.Module, shape: tuple[int, ...], backend: str) -> torch.nn.Module:
        """Put a network on its device, or into another engine for images of one shape (C, H, W)."""
        if backend != TORCH:
            return BackendNetwork(network, shape, backend, self.inferer.amp)
        return network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def segment(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of lesion, (H, W) float32 in [0, 1], of grey pixels (H, W) in [0, 255]."""
        return self.examine(pixels)[0]

    @torch.no_grad()
    def examine(self, pixels: np.ndarray) -> tuple[np.ndarray, float | None]:
        """Return what `segment` does, and the probability that there is a lesion, see `split_presence`."""
        image = equalise(torch.from_numpy(np.asarray(pixels, np.float32) / 255.0)[None], self.clip_limit)
        seen = fit(image, self.size, self.letterbox)[None].to(self.device).contiguous(memory_format=torch.channels_last)
        probability, presence = split_presence(self.inferer(seen, self.segmenter).sigmoid()[0])
        (native,) = restore(torch.from_numpy(probability)[None], image.shape[-2:], self.letterbox).numpy()
        return native.clip(0, 1, out=native), presence

    def predict(
        self, image: str | os.PathLike[str] | np.ndarray | UltrasoundImage, frame: int | None = None
    ) -> Finding:
        """Return the finding of one image.

        Args:
            image: a file; or grey pixels (H, W), uint8 or float, in [0, 255]; or what `read_image` returned.
            frame: of a file of several, from 0.

        Raises:
            InputError: the file can not be used, or holds several frames and none is named.
            UserError: the array is not (H, W), or leaves [0, 255].
        """
        name = split_frame(image)[0] if isinstance(image, (str, os.PathLike)) else "array"
        read = _as_image(image, frame)
        if read.unusable is not None:
            return self.classifier.classify(name, read, None)
        return self.classifier.classify(name, read, *self.examine(read.tissue))


def weights_in(folder: str | os.PathLike[str], small: bool = False) -> tuple[Path, Path]:
    """The weights files of segmenter and classifier in a folder of models, or of a set in it, see `weights_file`."""
    return weights_file(folder, SMALL_SEGMENTER if small else SEGMENTER), weights_file(folder, CLASSIFIER)


def _as_image(image: str | os.PathLike[str] | np.ndarray | UltrasoundImage, frame: int | None) -> UltrasoundImage:
    if isinstance(image, UltrasoundImage):
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, frame)
    try:
        pixels = np.asarray(image, dtype=np.float32)
    except (TypeError, ValueError):
        raise UserError(f"{type(image).__name__}: no array of numbers; give grey pixels (H, W) in [0, 255]") from None
    if pixels.ndim != 2 or not pixels.size:
        raise UserError(f"array of shape {pixels.shape}: give grey pixels (H, W) in [0, 255]")
    if not (pixels.min() >= 0 and pixels.max() <= 255):  # written so that NaN fails as well
        raise UserError(f"array from {pixels.min():g} to {pixels.max():g}: give grey pixels (H, W) in [0, 255]")
    if np.asarray(image).dtype.kind == "f" and 0 < pixels.max() <= 1:
        raise UserError(
            f"array of fractions up to {pixels.max():g}: give grey pixels (H, W) in [0, 255], not in [0, 1]"
        )
    return UltrasoundImage(pixels, None, ())


def _check_backend(backend: str, device: torch.device, explain: bool) -> None:
    if backend != TORCH and device.type != "cpu":
        raise UserError(f"backend '{backend}' runs on the CPU alone; give the device cpu, or the backend {TORCH}")
    if backend != TORCH and explain:
        raise UserError(f"backend '{backend}' has no gradients to explain with; use the backend {TORCH}")
    require_backend(backend)


def _usable(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):  # thirty kinds of device follow
            reason = "is no kind of device"
        raise UserError(f"device '{device}': {reason}; give cpu, or a GPU of this machine, such as cuda:0") from None
