# SPDX-License-Identifier: Apache-2.0
"""What our U-Net costs beside networks of MONAI of about its size: parameters, operations, seconds, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from bundle.networks import PEERS, Peer, UNet
from bundle.networks.peers import OURS
from bundle.provenance import describe_run


def measure_peers(
    *,
    spatial_size: Sequence[int] = (128, 128),
    batch_size: int = 8,
    filters: Sequence[int] = (16, 32, 64, 128),
    rounds: int = 7,
    iterations: int = 6,
) -> dict[str, Any]:
    """Time a training step and the inference of one image of every network in turns, in float32 on the CPU.

    A step is forward, Dice and cross-entropy loss, backward and AdamW on a fixed random batch. A first round warms up
    and is not counted.

    Args:
        spatial_size: (H, W) of the images, multiples of 16.
        batch_size: of the training steps; inference takes one image at a time.
        filters: of our U-Net.
        rounds: that count.
        iterations: of each kind per round.

    Returns:
        ready for JSON: `settings`, `runs` (per network its `parameters`, `macs` of the convolutions for one image,
        `seconds_per_step` and `seconds_per_image` as medians, `step_memory_mib` and `image_memory_mib`: the most that
        PyTorch held at once beyond the weights), `provenance`.
    """
    torch.manual_seed(0)
    networks: dict[str, torch.nn.Module] = {OURS: UNet(filters=filters, dropout=0.1, instance_norm=True)}
    networks |= {name: Peer(name) for name in PEERS}
    images = torch.rand(batch_size, 1, *spatial_size)
    labels = (torch.rand_like(images) > 0.9).float()
    work = {name: (_step(network, images, labels), _infer(network, images[:1])) for name, network in networks.items()}
    timings: list[dict[str, tuple[float, float]]] = []
    for _ in range(rounds + 1):
        timings.append(
            {name: (_time(step, iterations), _time(infer, iterations)) for name, (step, infer) in work.items()}
        )
    runs = []
    for name, (step, infer) in work.items():
        seconds = [statistics.median(timing[name][kind] for timing in timings[1:]) for kind in (0, 1)]
        runs.append(
            {
                **{"name": name, "parameters": sum(p.numel() for p in networks[name].parameters())},
                **{"macs": _count_macs(infer), "seconds_per_step": seconds[0], "seconds_per_image": seconds[1]},
                **{"step_memory_mib": peak_memory_mib(step), "image_memory_mib": peak_memory_mib(infer)},
            }
        )
    return {
        "settings": {
            **{"spatial_size": list(spatial_size), "batch_size": batch_size, "filters": list(filters)},
            **{"rounds": rounds, "iterations": iterations, "threads": torch.get_num_threads()},
        },
        "runs": runs,
        "provenance": describe_run(),
    }


def peers_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_peers`."""
    lines = [f"{'':<14}{'M param.':>9}{'GMAC':>7}{'ms/step':>9}{'MiB':>7}{'ms/image':>10}{'MiB':>7}"]
    lines += [
        f"{run['name']:<14}{run['parameters'] / 1e6:>9.2f}{run['macs'] / 1e9:>7.2f}"
        f"{run['seconds_per_step'] * 1e3:>9.0f}{run['step_memory_mib']:>7.0f}"
        f"{run['seconds_per_image'] * 1e3:>10.1f}{run['image_memory_mib']:>7.1f}"
        for run in result["runs"]
    ]
    return lines


def peak_memory_mib(action: Callable[[], None]) -> float:
    """Return the most memory in MiB that an action's tensors took at once on the CPU, beyond what was held before.

    PyTorch's profiler counts it, so it does not depend on what else the process does. What a library allocates past
    PyTorch is not in it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        action()
    held = peak = 0
    result = record.profiler.kineto_results
    changes = (event for event in result.events() if event.name() == "[memory]")
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def _step(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, loss = images.contiguous(memory_format=torch.channels_last), DiceCELoss(sigmoid=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        network.train()
        optimizer.zero_grad()
        loss(network(images), labels).backward()
        optimizer.step()

    return step


def _infer(network: torch.nn.Module, image: torch.Tensor) -> Callable[[], None]:
    image = image.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def infer() -> None:
        network.eval()
        network(image)

    return infer


def _count_macs(infer: Callable[[], None]) -> int:
    """Multiply-accumulates of one call; PyTorch counts two operations for each."""
    with FlopCounterMode(display=False) as counter:
        infer()
    return counter.get_total_flops() // 2


def _time(action: Callable[[], None], iterations: int) -> float:
    start = time.perf_counter()
    for _ in range(iterations):
        action()
    return (time.perf_counter() - start) / iterations
