# SPDX-License-Identifier: Apache-2.0
"""Both networks in 8-bit integers, by OpenVINO's post-training quantisation (NNCF), kept in the user's cache folder.

What a network's layers hold while it looks at calibration images says how their numbers are cut into 256 levels. The
calibration images are phantoms, so no patient's image is needed; their price in Dice and AUROC stands in
docs/scaling.md. The standardisation of the image stays in floating point: cut into levels before it, a dark image has
few.

NNCF runs in a process of its own (`quantise_process`): it changes the logging of the process that imports it, and would
report its use over the network.
"""

from __future__ import annotations

import hashlib
import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bundle.data.phantom import VERSION, make_phantom
from bundle.errors import UserError
from bundle.files import to_json
from bundle.prediction.backends import QUANTISED, EngineNetwork, open_openvino
from bundle.prediction.converted import converted, kept, network_key

logger = logging.getLogger(__name__)

NAMES = ("segmenter", "classifier")
COUNTS = {"benign": 10, "malignant": 10, "normal": 4}  # twice as many moved Dice by less than 0.002 on 60 images
SIZES = ((200, 280), (250, 380))  # heights and widths
_PROCESS = Path(__file__).with_name("quantise_process.py")
_Pair = tuple[torch.nn.Module, torch.nn.Module]
_Shapes = tuple[Sequence[int], Sequence[int]]


class Predicts(Protocol):
    """A predictor, as far as is needed here: it calls two networks, one after the other."""

    segmenter: torch.nn.Module
    classifier: Any

    def predict(self, image: Path) -> object:
        """Predict one file."""


def quantised(
    networks: _Pair, shapes: _Shapes, predictor: Predicts, settings: object
) -> tuple[EngineNetwork, EngineNetwork]:
    """Return segmenter and classifier in 8 bits, out of the cache where they are there, else quantised and kept.

    Args:
        networks: both, on the CPU, in evaluation mode.
        shapes: (C, H, W) of what each will see.
        predictor: calls them in floating point, to see what they are given.
        settings: ready for JSON; what else that depends on.

    Raises:
        UserError: they cannot be quantised.
    """
    about = [COUNTS, SIZES, VERSION, settings, *(version(name) for name in QUANTISED)]
    digest = hashlib.sha256(to_json(about).encode())
    for network, shape in zip(networks, shapes, strict=True):
        digest.update(network_key(network, (1, *shape)).encode())
    for file in (Path(__file__), _PROCESS):
        digest.update(file.read_bytes())
    content = kept(f"{digest.hexdigest()}.int8", lambda: _quantise(networks, shapes, predictor))
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        segmenter, classifier = (
            EngineNetwork(open_openvino(parts.read(f"{name}.xml"), False, parts.read(f"{name}.bin")), "openvino", shape)
            for name, shape in zip(NAMES, shapes, strict=True)
        )
    return segmenter, classifier


def _quantise(networks: _Pair, shapes: _Shapes, predictor: Predicts) -> bytes:
    logger.warning("Both networks are quantised to 8 bits, once for these weights; it takes half a minute or so")
    with tempfile.TemporaryDirectory(prefix="quantise-") as name:
        folder = Path(name)
        make_phantom(folder / "phantom", counts=COUNTS, size_range=SIZES)
        seen = _look(predictor, sorted((folder / "phantom").rglob("*).png")))
        for number, (part, inputs) in enumerate(zip(NAMES, seen, strict=True)):
            if not inputs:
                raise UserError(
                    "precision 'int8': the segmenter finds no lesion in any calibration image, so nothing is known of "
                    "the classifier's numbers; use another precision"
                )
            np.save(folder / f"{part}.npy", np.concatenate(inputs))
            (folder / f"{part}.onnx").write_bytes(converted(networks[number], (1, *shapes[number])))
        _run_nncf(folder)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as parts:
            for file in sorted([*folder.glob("*.xml"), *folder.glob("*.bin")]):
                parts.write(file, file.name)
        return content.getvalue()


class _Recorder(torch.nn.Module):
    """A network that keeps what it is given."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[np.ndarray] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image.numpy().copy())
        return torch.as_tensor(self.network(image))


def _look(predictor: Predicts, files: Sequence[Path]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What segmenter and classifier are given when files are predicted, each (1, C, H, W) float32."""
    recorders = _Recorder(predictor.segmenter), _Recorder(predictor.classifier.network)
    predictor.segmenter, predictor.classifier.network = recorders
    try:
        for file in files:
            predictor.predict(file)
    finally:
        predictor.segmenter, predictor.classifier.network = (recorder.network for recorder in recorders)
    return recorders[0].seen, recorders[1].seen


def _run_nncf(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(_PROCESS), str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"precision 'int8': NNCF could not quantise these networks ({reason}); use another precision")
