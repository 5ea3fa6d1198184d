# SPDX-License-Identifier: Apache-2.0
"""Our U-Net beside networks of MONAI: what each costs, joined with what it reaches when trained in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bundle.networks.peers import OURS

RECIPE = "peer"
"""The recipe of a recorded run that stands in the comparison alone: same data, loop and steps for every network."""

FIGURE = "peers.png"


def join_peers(
    benchmark: Mapping[str, Any] | None, trained: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Return (cost, recorded run or None) of each network of the benchmark, in its order.

    Args:
        benchmark: of `bundle.benchmarks.peers.measure_peers`; None where it is not recorded.
        trained: recorded runs of `RECIPE`; the card of a peer names it, that of our network does not.
    """
    runs = {run["weights"].get("peer") or OURS: run for run in trained}
    return [(cost, runs.get(cost["name"])) for cost in benchmark["runs"]] if benchmark else []


def draw_peers(joined: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> Figure:
    """Draw Dice with its interval against the time for an image, of the networks that were trained."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=120)
    axes = figure.subplots()
    trained = sorted(((cost, run) for cost, run in joined if run), key=lambda pair: pair[0]["seconds_per_image"])
    slowest = max((cost["seconds_per_image"] for cost, _ in trained), default=0)
    following = [cost["seconds_per_image"] for cost, _ in trained[1:]] + [2 * slowest]
    for (cost, run), after in zip(trained, following, strict=True):
        dice, milliseconds = run["lesions"]["dice"], cost["seconds_per_image"] * 1000
        low, high = (dice["estimate"] if dice[end] is None else dice[end] for end in ("low", "high"))
        spread = [[dice["estimate"] - low], [high - dice["estimate"]]]
        colour = "#0072b2" if cost["name"] == OURS else "#666666"
        axes.errorbar([milliseconds], [dice["estimate"]], yerr=spread, fmt="o", capsize=3, color=colour)
        # To the left of the point where the next one stands close by on its right.
        close = after - cost["seconds_per_image"] < 0.2 * slowest
        axes.annotate(
            f"{cost['name']}\n{cost['parameters'] / 1e6:.2f} M parameters",
            (milliseconds, dice["estimate"]),
            xytext=(-6 if close else 6, 4),
            textcoords="offset points",
            ha="right" if close else "left",
            fontsize=8,
            color=colour,
        )
    axes.set_xlabel("ms per image on the CPU, float32, one image at a time")
    axes.set_ylabel("Dice with 95 % interval")
    axes.set_title("The same data, training loop and number of steps", fontsize=10)
    axes.set_xlim(0, 1400 * slowest)  # the label of the slowest stands to its right
    axes.grid(alpha=0.3)
    return figure
