# SPDX-License-Identifier: Apache-2.0
"""Our U-Net beside networks of MONAI: what each costs, joined with what it reaches when trained in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bundle.benchmark_peers import OURS

RECIPE = "peer"
"""The recipe of a recorded run that stands in the comparison alone: same data, loop and steps for every network."""

FIGURE = "peers.png"


def join_peers(
    benchmark: Mapping[str, Any] | None, trained: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Return (cost, recorded run or None) of each network of the benchmark, in its order.

    Args:
        benchmark: of `bundle.benchmark_peers.measure_peers`; None where it is not recorded.
        trained: recorded runs of `RECIPE`; the card of a peer names it, that of our network does not.
    """
    runs = {run["weights"].get("peer") or OURS: run for run in trained}
    return [(cost, runs.get(cost["name"])) for cost in benchmark["runs"]] if benchmark else []


def draw_peers(joined: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> Figure:
    """Draw Dice with its interval against the time for an image, of the networks that were trained."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=120)
    axes = figure.subplots()
    for cost, run in joined:
        if run is None:
            continue
        dice, milliseconds = run["lesions"]["dice"], cost["seconds_per_image"] * 1000
        low, high = (dice["estimate"] if dice[end] is None else dice[end] for end in ("low", "high"))
        spread = [[dice["estimate"] - low], [high - dice["estimate"]]]
        colour = "#0072b2" if cost["name"] == OURS else "#666666"
        axes.errorbar([milliseconds], [dice["estimate"]], yerr=spread, fmt="o", capsize=3, color=colour)
        label = f"{cost['name']}\n{cost['parameters'] / 1e6:.2f} M parameters"
        axes.annotate(
            label, (milliseconds, dice["estimate"]), xytext=(6, 4), textcoords="offset points", fontsize=8, color=colour
        )
    axes.set_xlabel("ms per image on the CPU, float32, one image at a time")
    axes.set_ylabel("Dice with 95 % interval")
    axes.set_title("The same data, training loop and number of steps", fontsize=10)
    axes.set_xlim(left=0)
    axes.margins(x=0.25)
    axes.grid(alpha=0.3)
    return figure
