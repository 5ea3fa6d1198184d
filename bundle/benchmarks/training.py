# SPDX-License-Identifier: Apache-2.0
"""How fast a config trains beside its bare network."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from bundle.benchmarks.training_config import opened_config, plainly, settings_line, settings_of_run
from bundle.provenance import describe_run


def measure_training(
    config: Sequence[str | os.PathLike[str]],
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    rounds: int = 6,
    iterations: int = 12,
) -> dict[str, Any]:
    """Time the training loop of a config and its bare network in turns, so that a drift of the machine hits both.

    One bare round is `iterations` times forward, loss, backward and optimizer step on a fixed random batch. One loop
    round is a whole epoch of as many iterations of the config's own engine, from the end of the epoch before it to the
    end of its last handler: loader, augmentation, per-iteration handlers, checkpoint. Both share batch shape, device,
    memory layout and precision. A first round of each warms up and is not counted.

    Args:
        config: config files, merged in this order.
        dataset_dir: images to train on; a small synthetic phantom by default. The training list is repeated or cut to
            fill the epoch.
        overrides: config id -> value, such as ``{"spatial_size": [256, 256]}``.
        rounds: of each kind that count.
        iterations: per round; BUSI's 15 % in batches of 8 make epochs of 12.

    Returns:
        ready for JSON: `settings`, `rounds` (images/s of each), `runs` (`name` and `images_per_second`, a median),
        `bare_images_per_second` and `loop_images_per_second` (the same), their quotient `ratio`, `ratio_range` (lowest
        and highest round), `provenance`.

    Raises:
        UserError: a file is missing, or the config or the dataset can not be used.
    """
    with opened_config(config, dataset_dir, overrides or {}, rounds, iterations) as parser:
        trainer = plainly(lambda: parser.get_parsed_content("train#trainer"))
        step = bare_step(parser, trainer)

        def bare_round() -> None:
            for _ in range(iterations):
                step()

        timings = alternate(parser, trainer, {"bare": bare_round}, rounds, iterations)
        bare, loop = (statistics.median(entry[kind] for entry in timings) for kind in ("bare", "loop"))
        ratios = [entry["loop"] / entry["bare"] for entry in timings]
        return {
            "settings": settings_of_run(parser, config, dataset_dir, overrides or {}, iterations),
            "rounds": timings,
            "runs": [{"name": name, "images_per_second": rate} for name, rate in (("bare", bare), ("loop", loop))],
            "bare_images_per_second": bare,
            "loop_images_per_second": loop,
            "ratio": loop / bare,
            "ratio_range": [min(ratios), max(ratios)],
            "provenance": describe_run(),
        }


def training_lines(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of a result of `measure_training`."""
    lowest, highest = result["ratio_range"]
    return [
        settings_line(result),
        f"{'images/s':>24}{'of the bare network':>22}",
        f"{'bare network':<14}{result['bare_images_per_second']:>10.1f}{1:>22.0%}",
        f"{'training loop':<14}{result['loop_images_per_second']:>10.1f}{result['ratio']:>22.0%}",
        f"medians of {len(result['rounds'])} rounds; single rounds: {lowest:.0%} to {highest:.0%}",
    ]


def alternate(
    parser: ConfigParser,
    trainer: SupervisedTrainer,
    others: Mapping[str, Callable[[], None]],
    rounds: int,
    iterations: int,
) -> list[dict[str, float]]:
    """Run epochs of a config's loop, and a round of each of the others, in turns; the first of each does not count.

    Args:
        parser, trainer: of `open_config`, which fixes the rounds and the iterations of an epoch.
        others: name -> what runs as many iterations of batches as large.
        rounds, iterations: as `open_config` took them.

    Returns:
        the images/s of each round, by name; those of the loop are named ``loop``.
    """
    device = torch.device(parser.get_parsed_content("device"))
    images = iterations * int(parser.get_parsed_content("batch_size"))
    timings: list[dict[str, float]] = []
    started = 0.0

    def take_turns(engine: Engine) -> None:
        # The last handler of an epoch: the loop's clock stops here, and starts here again after the others' rounds.
        nonlocal started
        now = _clock(device)
        if engine.state.epoch > 1:
            timings[-1]["loop"] = images / (now - started)
        else:
            for run in others.values():
                run()
        if engine.state.epoch > rounds:
            return
        timings.append({})
        started = _clock(device)
        for name, run in others.items():
            run()
            began, started = started, _clock(device)
            timings[-1][name] = images / (started - began)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, take_turns)
    plainly(trainer.run)
    return timings


def bare_step(parser: ConfigParser, trainer: SupervisedTrainer) -> Callable[[], None]:
    """Return one training step of the config's network, loss and optimizer without anything around them."""
    device = torch.device(parser.get_parsed_content("device"))
    # A second parser of the same config, so that the loop's own weights and schedule stay untouched.
    own = ConfigParser(parser.get())
    network, loss, optimizer, inferer = (
        own.get_parsed_content(name) for name in ("network", "loss", "optimizer", "train#inferer")
    )
    network.train()
    first, label = trainer.prepare_batch(next(iter(trainer.data_loader)), device)
    image = torch.rand_like(first)  # shape, type and memory layout as the loop has them
    scaler = torch.amp.GradScaler(device.type, enabled=trainer.amp)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, enabled=trainer.amp):
            value = loss(inferer(image, network), label)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
