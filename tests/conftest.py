# SPDX-License-Identifier: Apache-2.0
"""What several tests share: the repository root, a small phantom, and running a command as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: the tests run in a process per core, each on small pictures, and threads get in their way.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

# Converted networks are kept from one run to the next, but not among the user's own.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / "breast-ultrasound-bundle-tests")

# MLflow reports its use to its makers, from its import on.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import pytest
import warm

ROOT = Path(__file__).resolve().parents[1]
warm.forget_power_cuts()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root, which is the bundle root."""
    return ROOT


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of 26 small non-square images."""
    from bundle.data.phantom import make_phantom

    folder = tmp_path_factory.mktemp("data") / "phantom"
    counts = {"benign": 12, "malignant": 10, "normal": 4}
    make_phantom(folder, counts=counts, size_range=((60, 80), (90, 120)))
    return folder


@pytest.fixture(scope="session")
def run_bundle() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m monai.bundle run …` in the repository root and return the finished process."""

    def run(*words: object, launcher: tuple[str, ...] = (), timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", *(launcher or ("-m",)), "monai.bundle", "run", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": ""}
        if not launcher:
            return warm.run(command, ROOT, environment, timeout)
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture(scope="session")
def write_models() -> Callable[..., Path]:
    """Write a random small segmenter and classifier with their cards into a folder, as training leaves them."""
    import torch

    from bundle.networks import SegNet, UNet
    from bundle.networks.weights import flat_state_dict, sha256_of, write_weights

    def write(folder: Path, bias: float = 0.0, **classifier_card: object) -> Path:
        """The bias is added to the segmenter's logits: -4 keeps it from finding anything."""
        torch.manual_seed(1)
        segmenter = UNet(filters=(4, 8))
        torch.nn.init.constant_(segmenter.head.bias, bias)  # type: ignore[arg-type]
        network = SegNet(in_channels=2, filters=(4, 8), decoder=False, batch_norm=True, standardize=True)
        common = {"filters": [4, 8], "batch_norm": True, "standardize": True, "synthetic": False}
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(
            folder / "model.pt",
            flat_state_dict(segmenter),
            {**common, "context": 0, "spatial_size": [48, 64], "letterbox": False, "clahe": 0.0, "threshold": 0.5},
        )
        points = [
            {"sensitivity_wish": 0.9, "threshold": 1e-9, "sensitivity": 1.0, "specificity": 0.0},
            {"sensitivity_wish": 0.95, "threshold": 1.0, "sensitivity": 0.0, "specificity": 1.0},
        ]
        card = {
            **{**common, "in_channels": 2, "decoder": False, "variant": "crop+mask", "margin": 0.25},
            **{"mask_threshold": 0.5, "spatial_size": [32, 32], "temperature": 2.0, "operating_points": points},
            **{"masks": "predicted", "segmenter_sha256": sha256_of(folder / "model.pt"), **classifier_card},
        }
        write_weights(folder / "model_classifier.pt", flat_state_dict(network), card)
        return folder

    return write


@pytest.fixture(scope="session")
def write_lite_models(write_models: Callable[..., Path]) -> Callable[..., Path]:
    """Write random small Lite networks with their cards into a folder, as configs/lite_*.yaml leave them."""
    import torch

    from bundle.files import read_json
    from bundle.networks import build_from_card, network_settings
    from bundle.networks.weights import card_path, flat_state_dict, sha256_of, write_weights

    def write(folder: Path, presence_bias: float = 0.0, none_below: float = 0.5, synthetic: bool = False) -> Path:
        """The bias is added to the presence head's logit: with -4 it tells of no lesion, with 4 of one."""
        write_models(folder)
        torch.manual_seed(1)
        narrow = {"width": 0.25, "pretrained": True, "standardize": True}
        settings = {"decoder_channels": [8, 8, 8, 8, 4], "presence": True}
        card = network_settings("LiteUNet", **narrow, **settings)
        segmenter = build_from_card(card)
        torch.nn.init.constant_(segmenter.presence_head.bias, presence_bias)  # type: ignore[union-attr,arg-type]
        told = {"spatial_size": [48, 64], "threshold": 0.5, "letterbox": False, "clahe": 0.0, "synthetic": synthetic}
        card |= {**told, "presence_points": {"none_below": none_below, "most_lost": 0.05}}
        write_weights(folder / "model.pt", flat_state_dict(segmenter), card)
        path = folder / "model_classifier.pt"
        written = read_json(card_path(path))
        known = {key: value for key, value in written.items() if key not in ("sha256", "filters", "decoder")}
        settings = network_settings("LiteSegNet", **narrow, in_channels=2)
        known["segmenter_sha256"] = [sha256_of(folder / "model.pt")]
        write_weights(path, flat_state_dict(build_from_card(settings)), {**known, **settings, "synthetic": synthetic})
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_models(write_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random small weights for both stages, for the Predictor; not to be written to."""
    return write_models(tmp_path_factory.mktemp("models"))
