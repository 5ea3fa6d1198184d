# SPDX-License-Identifier: Apache-2.0
"""What this bundle costs beside nnU-Net's 2-D plan for the same images: a training step, and one image predicted."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.benchmarks.inference import SIZES
from bundle.benchmarks.training import bare_step
from bundle.benchmarks.training_config import PHANTOM, open_config, plainly, settings_of
from bundle.data.phantom import make_phantom
from bundle.data.walk import choose_images, files_below
from bundle.errors import InputError, UserError
from bundle.prediction.backends import AUTO
from bundle.prediction.predictor import Predictor
from bundle.provenance import describe_run
from bundle.readers import read_image

OURS, THEIRS = "ours", "nnU-Net"
BUSI = 647  # images of BUSI with a lesion
_SIDE = Path(__file__).with_name("nnunet_side.py")
_Took = Mapping[str, float]
_Ask = Callable[[str], _Took]


def measure_nnunet(
    python: str | os.PathLike[str],
    models: str | os.PathLike[str],
    config: Sequence[str | os.PathLike[str]],
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    overrides: Mapping[str, Any] | None = None,
    steps: int = 2,
    images: int = 5,
) -> dict[str, Any]:
    """Time training steps and predictions of nnU-Net's plan and of this bundle in turns, on the CPU in float32.

    Both steps are bare: forward, loss, backward and optimizer on a batch that lies ready, of the size that each trains
    with. nnU-Net predicts as it does by default, mirrored along both axes; ours finds, outlines and classifies the
    lesion. Both begin with the pixels in memory and end with a mask of the image's size.

    Args:
        python: of an environment with nnunetv2; it imports nothing of this bundle.
        models: folder of our weights.
        config: of our training, merged in this order.
        sizes: (H, W) of the images that nnU-Net plans for; about BUSI's by default.
        overrides: config id -> value, of our training.
        steps: of nnU-Net's training, which take minutes each; the first is not left out.
        images: that each predicts, after one that does not count.

    Returns:
        ready for JSON: `settings`, with nnU-Net's `plan`; `runs`, of each `parameters`, `batch_size`, `input`, and as
        medians the seconds and CPU seconds `step_seconds_per_image`, `step_cpu_seconds_per_image`,
        `seconds_per_image` and `cpu_seconds_per_image`; `ratios`, theirs to ours, of the CPU seconds; `provenance`.

    Raises:
        UserError: a file is missing or cannot be used, or nnU-Net's side fails.
    """
    sizes = sizes or _draw_sizes()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, _other_side(python, sizes) as (plan, ask):
        step, settings = _our_step(config, Path(folder), dict(overrides or {}))
        predictor = Predictor.from_folder(models, "cpu", amp=False, backend=AUTO)
        middle = [int(np.median(lengths)) for lengths in zip(*sizes, strict=True)]
        pixels = np.random.default_rng(0).integers(0, 255, middle).astype(np.uint8)
        for task in (step, lambda: predictor.predict(pixels)):
            task()
        ask("image")
        took: dict[str, dict[str, list[_Took]]] = {OURS: {"step": [], "image": []}, THEIRS: {"step": [], "image": []}}
        for _ in range(images):
            took[OURS]["image"].append(_time(lambda: predictor.predict(pixels)))
            took[THEIRS]["image"].append(ask("image"))
        for _ in range(steps):
            took[OURS]["step"] += [_time(step) for _ in range(5)]
            took[THEIRS]["step"].append(ask("step"))
    networks = (predictor.size, settings["parameters"], settings["batch_size"])
    runs = [
        _summarise(OURS, took[OURS], *networks),
        _summarise(THEIRS, took[THEIRS], plan["patch_size"], plan["parameters"], plan["batch_size"]),
    ]
    return {
        "settings": {
            **{"ours": settings, "plan": plan, "image": middle, "images_planned_for": len(sizes)},
            **{"threads": torch.get_num_threads(), "computed_by": predictor.computed_by},
        },
        "runs": runs,
        "ratios": {name: runs[1][name] / runs[0][name] for name in runs[0] if "cpu_seconds" in name},
        "rounds": took,
        "provenance": describe_run(),
    }


def nnunet_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_nnunet`."""
    lines = [
        f"{'':<10}{'M param.':>9}{'input':>11}{'batch':>7}{'CPU s/image and step':>22}{'CPU s/image predicted':>23}"
    ]
    lines += [
        f"{run['name']:<10}{run['parameters'] / 1e6:>9.2f}{'×'.join(map(str, run['input'])):>11}{run['batch_size']:>7}"
        f"{run['step_cpu_seconds_per_image']:>22.3f}{run['cpu_seconds_per_image']:>23.3f}"
        for run in result["runs"]
    ]
    ratios = result["ratios"]
    return [
        *lines,
        f"{'ratio':<37}{ratios['step_cpu_seconds_per_image']:>22.0f}{ratios['cpu_seconds_per_image']:>23.0f}",
    ]


def sizes_of(folder: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """(H, W) of every image of a dataset's folder."""
    files, _ = choose_images(files_below(Path(folder)))
    return [read_image(file).pixels.shape for file in files]


def _draw_sizes() -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    return [(int(rng.integers(*SIZES[0])), int(rng.integers(*SIZES[1]))) for _ in range(BUSI)]


def _our_step(
    config: Sequence[str | os.PathLike[str]], folder: Path, overrides: dict[str, Any]
) -> tuple[Callable[[], None], dict[str, Any]]:
    make_phantom(folder / "data", counts=PHANTOM, size_range=((96, 128), (96, 128)))
    parser = open_config(config, folder / "data", folder, {**overrides, "train#inferer#amp": False}, 1, 1)
    trainer = plainly(lambda: parser.get_parsed_content("train#trainer"))
    return bare_step(parser, trainer), settings_of(parser)


def _summarise(
    name: str, took: Mapping[str, Sequence[_Took]], size: Sequence[int], parameters: int, batch: int
) -> dict[str, Any]:
    def median(kind: str, key: str) -> float:
        return statistics.median(entry[key] for entry in took[kind])

    return {
        **{"name": name, "parameters": parameters, "input": list(size), "batch_size": batch},
        **{f"step_{key}_per_image": median("step", key) / batch for key in ("seconds", "cpu_seconds")},
        **{f"{key}_per_image": median("image", key) for key in ("seconds", "cpu_seconds")},
    }


@contextlib.contextmanager
def _other_side(
    python: str | os.PathLike[str], sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[dict[str, Any], _Ask]]:
    """Start nnU-Net's side; yields its plan, and what asks it for a step or an image."""
    if not Path(python).is_file():
        mend = "python -m venv .venv-nnunet; .venv-nnunet/bin/pip install -r requirements-nnunet.txt"
        raise InputError(python, "no such Python", mend)
    with tempfile.TemporaryFile("w+") as log:
        words = [os.fspath(python), str(_SIDE)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        with subprocess.Popen(words, text=True, **pipes) as process:  # type: ignore[call-overload]

            def ask(line: str) -> dict[str, Any]:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(line + "\n")
                    process.stdin.flush()
                answer = process.stdout.readline()
                if not answer:
                    log.seek(0)
                    told = (log.read().strip().splitlines() or ["nothing"])[-1]
                    raise UserError(f"{python}: nnU-Net's side ended, and said: {told}")
                answered: dict[str, Any] = json.loads(answer)
                return answered

            try:
                request = {"sizes": [list(size) for size in sizes], "threads": torch.get_num_threads()}
                yield ask(json.dumps(request)), ask
            finally:
                process.kill()  # it has nothing to save


def _time(task: Callable[[], object]) -> dict[str, float]:
    start, cpu_start = time.monotonic(), time.process_time()
    task()
    return {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu_start}
