# SPDX-License-Identifier: Apache-2.0
"""Write both networks in other formats, and prove that each file computes what the network does.

A file holds the network alone: probabilities of lesion and the crop, calibration and decisions of a `Finding` need
what the card beside the weights says.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.errors import UserError
from bundle.files import make_folder, sha256_of, write_atomically, write_json
from bundle.networks.onnx import to_onnx
from bundle.networks.weights import CLASSIFIER, SEGMENTER, read_card, weights_file
from bundle.prediction.predictor import Predictor

MAX_DIFFERENCE = 1e-4
"""Between the outputs of a network and of its export; above it the export is refused."""
BATCHES = (1, 3)
"""Sizes that an export is tried with; it is made with batch 2."""

Network = Callable[[torch.Tensor], torch.Tensor]


def export_networks(
    models_dir: str | os.PathLike[str], output_dir: str | os.PathLike[str], formats: list[str] | None = None
) -> list[dict[str, Any]]:
    """Export segmenter and classifier; each file is written, loaded again, run and compared.

    Args:
        models_dir: holds ``model.pt`` and ``model_classifier.pt`` with their cards.
        output_dir: gets ``model.ts``, ``model.onnx`` …, and ``exports.json``.
        formats: of `FORMATS`; all by default.

    Returns:
        one entry per file, as in ``exports.json``: name, format, sha256, sha256 of the weights, input shape, largest
        difference of a logit, whether that is within `MAX_DIFFERENCE`. A file that is not is removed.

    Raises:
        UserError: weights or cards can not be used, or a package that a format needs is not installed.
    """
    make_folder(output_dir)
    predictor = Predictor.from_folder(models_dir, device="cpu", amp=False)
    networks = {SEGMENTER: predictor.segmenter, CLASSIFIER: predictor.classifier.network}
    entries = []
    for file, network in networks.items():
        plain = network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        card = read_card(weights_file(models_dir, file))
        shape = (int(card.get("in_channels", 1)), *card["spatial_size"])
        for name in formats or list(FORMATS):
            path = Path(output_dir) / f"{Path(file).stem}.{FORMATS[name][0]}"
            difference = _export(plain, shape, path, FORMATS[name][1])
            good = difference <= MAX_DIFFERENCE
            entries.append(
                {
                    **{"file": path.name, "format": name, "sha256": sha256_of(path)},
                    **{"weights_sha256": card.get("sha256"), "input": ["batch", *shape]},
                    **{"largest_difference": difference, "ok": good},
                }
            )
            if not good:
                path.unlink()
    write_json(Path(output_dir) / "exports.json", {"exports": entries, "max_difference": MAX_DIFFERENCE})
    return entries


def _export(
    network: torch.nn.Module,
    shape: tuple[int, ...],
    path: Path,
    write_and_load: Callable[[torch.nn.Module, torch.Tensor, Path], Network],
) -> float:
    """Write one file under a temporary name, compare it, give it its name; returns the largest difference."""
    partial = path.with_name(f"{path.stem}.tmp.{path.suffix.lstrip('.')}")
    generator = torch.Generator().manual_seed(0)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporters, about their own future
            exported = write_and_load(network, torch.rand((2, *shape), generator=generator), partial)
            difference = 0.0
            for batch in BATCHES:
                image = torch.rand((batch, *shape), generator=generator)
                apart = (exported(image) - network(image)).abs().nan_to_num(nan=torch.inf)
                difference = max(difference, float(apart.max()))
        write_atomically(path, partial.read_bytes())
        return difference
    finally:
        partial.unlink(missing_ok=True)


def _torchscript(network: torch.nn.Module, image: torch.Tensor, path: Path) -> Network:
    torch.jit.script(network).save(str(path))
    loaded: Network = torch.jit.load(str(path))
    return loaded


def _onnx(network: torch.nn.Module, image: torch.Tensor, path: Path) -> Network:
    onnxruntime = _require("onnxruntime", "onnx", "onnxruntime", "onnxscript")[0]
    path.write_bytes(to_onnx(network, image, any_batch=True))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: torch.Tensor) -> torch.Tensor:
        (logit,) = session.run(None, {"image": image.numpy().astype(np.float32)})
        return torch.from_numpy(logit)

    return run


def _torch_export(network: torch.nn.Module, image: torch.Tensor, path: Path) -> Network:
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.export.save(torch.export.export(network, (image,), dynamic_shapes=({0: batch},)), str(path))
    loaded: Network = torch.export.load(str(path)).module()
    return loaded


def _safetensors(network: torch.nn.Module, image: torch.Tensor, path: Path) -> Network:
    safetensors = _require("safetensors.torch")[0]
    safetensors.save_file({name: value.contiguous() for name, value in network.state_dict().items()}, str(path))
    fresh = copy.deepcopy(network)
    for value in fresh.state_dict().values():
        value.zero_()
    fresh.load_state_dict(safetensors.load_file(str(path)))
    return fresh


FORMATS: dict[str, tuple[str, Callable[[torch.nn.Module, torch.Tensor, Path], Network]]] = {
    "torchscript": ("ts", _torchscript),
    "onnx": ("onnx", _onnx),
    "torch.export": ("pt2", _torch_export),
    "safetensors": ("safetensors", _safetensors),
}
"""The suffix of each format, and what writes a file of it and loads it again."""


def _require(*modules: str) -> list[Any]:
    import importlib

    try:
        return [importlib.import_module(name) for name in modules]
    except ImportError as error:
        raise UserError(
            f"this format needs {error.name}; pip install -r requirements-export.txt, or leave it out with --formats"
        ) from None
