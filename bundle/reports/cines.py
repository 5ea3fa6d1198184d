# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/cines.md, from the recorded run of scripts/cine_rules.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.files import read_json
from bundle.reports.html import format_decimal
from bundle.reports.markdown import fill_block

RECORD = "cine_rules"
"""Of docs/results/."""

PAGE = "cines.md"
BLOCK = ("<!-- cine rules -->", "<!-- /cine rules -->")
_MEND = "run scripts/cine_rules.py again"
_SCORES = {"log_loss": "log loss", "brier": "Brier score", "ece": "calibration error", "auroc": "AUROC"}
_FATES = {
    **{"followed": "makes the cine's probability", "jump": "jumps", "creep": "creeps"},
    "other track": "follows something else",
}
_PLACES = {
    "on": "on the lesion",
    "off": "elsewhere (Dice below 0.1), in a cine whose lesion is outlined in another frame",
    "never": "elsewhere, in a cine whose lesion is outlined in no frame",
}


def render_cines(docs: str | os.PathLike[str]) -> dict[str, str]:
    """Return docs/cines.md with its tables as the record says, by the page's path from the docs folder.

    Nothing where there is no such page or no such record.

    Raises:
        InputError: the record lacks what the page shows.
    """
    page, file = Path(docs) / PAGE, Path(docs) / "results" / f"{RECORD}.json"
    if not page.is_file() or not file.is_file():
        return {}
    record = read_json(file, _MEND)
    if missing := [key for key in ("rules", "outlines", "settings", "provenance") if key not in record]:
        raise InputError(file, f"lacks {', '.join(missing)}", _MEND)
    return {PAGE: fill_block(page.read_text(encoding="utf-8"), BLOCK, _tables(record))}


def _tables(record: Mapping[str, Any]) -> str:
    settings, run = record["settings"], record["provenance"]
    lines = [
        f"{record['cines']} synthetic cines with an outline ({record['malignant']} malignant) of {settings['frames']} "
        f"frames each; used: {settings['rule']}.",
        "",
        f"| rule | outlines | {' | '.join(_SCORES.values())} | calibration slope |",
        "|---|---|" + "---|" * (len(_SCORES) + 1),
    ]
    for name, kinds in record["rules"].items():
        for kind, scores in kinds.items():
            cells = [format_decimal(scores[key]) for key in _SCORES]
            slope = "–" if scores["slope"] is None else f"{scores['slope']:.2f}"
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} | {slope} |")
    lines += ["", f"| an outline that lies | {' | '.join(_FATES.values())} |", "|---|" + "---|" * len(_FATES)]
    for place, words in _PLACES.items():
        counts = record["outlines"][place]
        total = max(1, sum(counts.values()))
        shares = [f"{counts[fate]} ({counts[fate] / total:.0%})" for fate in _FATES]
        lines.append(f"| {words} | {' | '.join(shares)} |")
    when = f"Recorded on {run['time'][:10]}, at commit {str(run['commit'])[:10]}: `{run['command']}`."
    return "\n".join([*lines, "", when])
