# SPDX-License-Identifier: Apache-2.0
"""How fast images become findings: by every installed backend, the whole pipeline beside its bare networks."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bundle.data.phantom import make_phantom
from bundle.errors import UserError
from bundle.networks.autocast import has_fast_bfloat16
from bundle.prediction.ahead import at_once
from bundle.prediction.backends import AUTO, BACKENDS, TORCH, require_backend
from bundle.prediction.batch import Batch
from bundle.prediction.inputs import list_inputs
from bundle.prediction.predictor import Predictor
from bundle.provenance import describe_run
from bundle.readers import read_image

SIZES = ((400, 560), (500, 760))  # heights and widths of the images, about BUSI's
_Step = Callable[[], None]


def measure_inference(
    models: str | os.PathLike[str],
    *,
    backends: Sequence[str] = BACKENDS,
    images: int = 96,
    rounds: int = 5,
    sizes: tuple[tuple[int, int], tuple[int, int]] = SIZES,
) -> dict[str, Any]:
    """Time every backend in turns on the CPU, image by image, so that a drift of the machine hits all of them.

    "Bare" is what the networks alone need for an image: the segmenter on the image and its mirror image, the
    classifier once, on inputs that lie ready, one image after the other on all threads. "At once" is the same for
    several images at once, as a `Batch` has it. "Pipeline" is a `Batch` over PNG files that writes nothing: reading
    ahead, resizing, both networks, crop, measures, decisions. A first round of each warms up and is not counted.

    Args:
        models: folder of the weights.
        backends: to try; those that are not installed are left out, and listed.
        images: synthetic images per round; of a few, the start and the end of the pipeline take a part.
        rounds: that count.
        sizes: (lowest, highest) of their heights and widths.

    Returns:
        ready for JSON: `settings`, `runs` (per backend and precision: images/s as medians, `share` of the bare rate
        that the pipeline reaches, `share_at_once` of the rate at once, `bare_ratio` and `pipeline_ratio` to PyTorch in
        float32, `outside_cpu_ms`: CPU milliseconds of the pipeline an image outside networks and decoder), `rounds`,
        `provenance`.

    Raises:
        UserError: the weights cannot be used.
    """
    installed = [name for name in backends if name != AUTO and _is_installed(name)]
    precisions = (False, True) if has_fast_bfloat16("cpu") else (False,)
    kinds = [(TORCH, amp) for amp in precisions]
    kinds += [
        (name, amp) for name in installed for amp in precisions if name != TORCH and not _always_float32(name, amp)
    ]
    predictors = {kind: Predictor.from_folder(models, "cpu", amp=kind[1], backend=kind[0]) for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        make_phantom(Path(folder), counts={"benign": images - images // 2, "malignant": images // 2}, size_range=sizes)
        files = sorted(path for path in Path(folder).rglob("*).png"))
        steps = {
            _name(*kind): {
                "bare": _bare(predictor, images),
                "at_once": _bare_at_once(predictor, images),
                "pipeline": _pipeline(predictor, files),
            }
            for kind, predictor in predictors.items()
        }
        timings = [_round(steps, images) for _ in range(rounds + 1)][1:]
        outside = {name: _outside(kinds, files) for name, kinds in steps.items()}
    plain = predictors[TORCH, False]
    return {
        "settings": {
            "images": images,
            "sizes": [list(size) for size in sizes],
            "segmenter_input": list(plain.size),
            "threads": torch.get_num_threads(),
            "parameters": [_count(network) for network in (plain.segmenter, plain.classifier.network)],
            "versions": {name: version(name) for name in installed},
            "left_out": [name for name in backends if name not in (*installed, AUTO)],
        },
        "runs": [run | {"outside_cpu_ms": outside[run["name"]]} for run in _summarise(timings)],
        "rounds": timings,
        "provenance": describe_run(),
    }


def inference_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_inference`."""
    shares = f"{'share':>7}{'of those at once':>18}{'CPU ms outside':>16}"
    lines = [f"{'images/s':<24}{'networks':>10}{'×':>7}{'at once':>10}{'pipeline':>10}{'×':>7}{shares}"]
    lines += [
        f"{run['name']:<24}{run['bare_images_per_second']:>10.1f}{run['bare_ratio']:>7.2f}"
        f"{run['at_once_images_per_second']:>10.1f}{run['pipeline_images_per_second']:>10.1f}"
        f"{run['pipeline_ratio']:>7.2f}{run['share']:>7.0%}{run['share_at_once']:>18.0%}"
        f"{run['outside_cpu_ms']:>16.1f}"
        for run in result["runs"]
    ]
    lines += [f"not installed: {name}" for name in result["settings"]["left_out"]]
    return [*lines, f"{result['settings']['threads']} threads, medians of {len(result['rounds'])} rounds"]


def _round(steps: dict[str, dict[str, _Step]], images: int) -> dict[str, dict[str, float]]:
    """Images per second of each run, once."""
    return {name: {kind: images / _seconds(step) for kind, step in kinds.items()} for name, kinds in steps.items()}


def _outside(steps: dict[str, _Step], files: Sequence[Path]) -> float:
    """CPU milliseconds an image, of all threads, that neither the networks nor the decoder takes; the least of three.

    What the threads of another engine take while they wait counts as the networks'.
    """

    def decode() -> None:
        for file in files:
            read_image(file)

    parts = [_cpu_seconds(steps["pipeline"]) - _cpu_seconds(steps["at_once"]) - _cpu_seconds(decode) for _ in range(3)]
    return round(1000 * min(parts) / len(files), 2)


def _cpu_seconds(step: _Step) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def _summarise(timings: Sequence[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    names = list(timings[0])
    medians = {
        name: {kind: statistics.median(timing[name][kind] for timing in timings) for kind in timings[0][name]}
        for name in names
    }
    base = medians[_name(TORCH, False)]
    runs = []
    for name, speed in medians.items():
        shares = [timing[name]["pipeline"] / timing[name]["bare"] for timing in timings]
        runs.append(
            {
                **{"name": name, "bare_images_per_second": speed["bare"]},
                **{
                    "at_once_images_per_second": speed["at_once"],
                    "share_at_once": speed["pipeline"] / speed["at_once"],
                },
                **{"pipeline_images_per_second": speed["pipeline"], "share": speed["pipeline"] / speed["bare"]},
                **{"share_range": [min(shares), max(shares)], "bare_ratio": speed["bare"] / base["bare"]},
                "pipeline_ratio": speed["pipeline"] / base["pipeline"],
            }
        )
    return runs


def _bare(predictor: Predictor, images: int) -> _Step:
    call = _networks(predictor)

    def run() -> None:
        for number in range(images):
            call(number)

    return run


def _bare_at_once(predictor: Predictor, images: int) -> _Step:
    call = _networks(predictor)

    def run() -> None:
        for _ in at_once(predictor, call, range(images)):
            pass

    return run


def _networks(predictor: Predictor) -> Callable[[int], None]:
    """Call both networks as for one image."""
    fitted = predictor.size
    crop = predictor.classifier.card.get("spatial_size", (128, 128))
    image = torch.rand(1, 1, *fitted).contiguous(memory_format=torch.channels_last)
    lesion = torch.rand(1, predictor.classifier.card["in_channels"], *crop)

    @torch.no_grad()
    def call(_: int) -> None:
        predictor.inferer(image, predictor.segmenter)
        predictor.classifier.inferer(lesion, predictor.classifier.network)

    return call


def _pipeline(predictor: Predictor, files: Sequence[Path]) -> _Step:
    inputs, _ = list_inputs(files, (), None)

    def run() -> None:
        for outcome in Batch(predictor, "").run(inputs):
            if outcome.error is not None:
                raise outcome.error

    return run


def _is_installed(backend: str) -> bool:
    try:
        require_backend(backend)
    except UserError:
        return False
    return True


def _always_float32(backend: str, amp: bool) -> bool:
    return backend == "onnxruntime" and amp


def _name(backend: str, amp: bool) -> str:
    return f"{backend}, {'bfloat16' if amp else 'float32'}"


def _count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _seconds(step: _Step) -> float:
    start = _clock()
    step()
    return _clock() - start


def _clock() -> float:
    return time.perf_counter()
