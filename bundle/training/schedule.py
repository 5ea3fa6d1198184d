# SPDX-License-Identifier: Apache-2.0
"""The learning rate of a finished run that goes on: a short warm-up and a new cosine, since the first ended at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

WARMUP = 20
"""One part in so many of the new steps is the warm-up, as in the first schedule."""


def plan_schedule(scheduler: Any, epoch: int, last_epoch: int, length: int, rate: float) -> dict[str, float]:
    """Say how a finished run goes on; what a card tells of it.

    Args:
        scheduler: of the run. One that is no function of its step alone, as PyTorch's `LambdaLR` and all of MONAI's
            are, goes on as it is.
        epoch, last_epoch: epochs that are done, and that will be.
        length: of an epoch, in steps.
        rate: the highest learning rate of the new part.
    """
    plan: dict[str, float] = {"from_epoch": epoch, "to_epoch": last_epoch}
    if isinstance(scheduler, LambdaLR):
        steps = (last_epoch - epoch) * length
        plan |= {"learning_rate": float(rate), "warmup_steps": max(1, steps // WARMUP), "steps": steps}
        plan |= {"first_step": scheduler.last_epoch}
    return plan


def continue_schedule(scheduler: Any, plan: Mapping[str, float]) -> None:
    """Let a schedule rise to a rate and fall to zero once more, from a step on.

    Args:
        scheduler: whose state was loaded already.
        plan: as `plan_schedule` made it.
    """
    if not isinstance(scheduler, LambdaLR):
        return
    highest = float(plan["learning_rate"])
    first, warmup, steps = (int(plan[name]) for name in ("first_step", "warmup_steps", "steps"))

    def share(step: int) -> float:
        done = step - first
        if done < warmup:
            return (done + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / max(1, steps - warmup))))

    # Groups of parameters keep the ratio of their rates.
    before = max(float(base) for base in scheduler.base_lrs)
    scheduler.lr_lambdas = [lambda step: highest / before * share(step)] * len(scheduler.base_lrs)
    rates: list[Any] = [base * scheduler.lr_lambdas[0](scheduler.last_epoch) for base in scheduler.base_lrs]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
