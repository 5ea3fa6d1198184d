# SPDX-License-Identifier: Apache-2.0
"""The fit of a patient's probability: from the scores of a run to its record, the card and docs/pacs.md."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.errors import InputError
from bundle.evaluation.examination import fit_examination
from bundle.files import read_json, write_json
from bundle.provenance import describe_run
from bundle.reports.html import format_decimal
from bundle.reports.markdown import fill_block
from bundle.reports.pooling import read_run
from bundle.reports.records import EXAMINATION

PAGE = "pacs.md"
BLOCK = ("<!-- examination -->", "<!-- /examination -->")
_MEND = "run scripts/examination_rule.py again"
_SCORES = {"log_loss": "log loss", "brier": "Brier score", "ece": "calibration error", "auroc": "AUROC"}


def record_examination(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str],
    card: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit, see `fit_examination`, and write the result; with a card also onto that.

    Args:
        run: folder of a pooled or a single evaluation of classifiers.
        output: the result, JSON.
        card: of the classifier in use.
        seed: of the folds and the bootstrap.

    Raises:
        UserError: the run is none of classifiers, or has too few known patients; or a file cannot be read or written.
    """
    read = read_run(Path(run))
    if not read.is_classification:
        raise InputError(run, "is no run of a classifier", "give that of scripts/pool_folds.py over classifiers")
    result = fit_examination(list(read.rows.values()), seed=seed)
    weights = read.metrics.get("weights", {})
    members = [member["sha256"] for member in weights.get("members", ())] or [weights.get("sha256")]
    fitted = result["examination"]["fitted_on"]
    fitted |= {"dataset": read.metrics["provenance"].get("dataset"), "classifiers": members}
    result["examination"]["synthetic"] = bool(read.metrics.get("synthetic"))
    if card is not None:
        write_json(card, {**read_json(Path(card), "give model_classifier.json"), "examination": result["examination"]})
    write_json(output, {**result, "provenance": describe_run()})
    return result


def render_examinations(docs: str | os.PathLike[str]) -> dict[str, str]:
    """Return docs/pacs.md with its table as the record says, by the page's path from the docs folder.

    Nothing where there is no such page or no such record.

    Raises:
        InputError: the record lacks what the page shows.
    """
    page, file = Path(docs) / PAGE, Path(docs) / "results" / f"{EXAMINATION}.json"
    if not page.is_file() or not file.is_file():
        return {}
    record = read_json(file, _MEND)
    if missing := [key for key in ("examination", "rules", "chosen", "provenance") if key not in record]:
        raise InputError(file, f"lacks {', '.join(missing)}", _MEND)
    return {PAGE: fill_block(page.read_text(encoding="utf-8"), BLOCK, _table(record))}


def _table(record: Mapping[str, Any]) -> str:
    fitted, run = record["examination"], record["provenance"]
    on = fitted["fitted_on"]
    lines = [
        f"{on['patients']} patients ({on['malignant']} malignant) with {on['images']} outlined images, "
        f"{on['most_images']} of one at most; {on['without_an_outline']} without an outline have no part. "
        f"Used: {fitted['rule']}, slope {fitted['slope']:.2f}, intercept {fitted['intercept']:.2f}.",
        "",
        f"| images joined by | probability | {' | '.join(_SCORES.values())} |",
        "|---|---|" + "---|" * len(_SCORES),
    ]
    for rule, kinds in record["rules"].items():
        for kind, scores in kinds.items():
            lines.append(f"| {rule} | {kind} | {' | '.join(format_decimal(scores[key]) for key in _SCORES)} |")
    parts = {"chosen by the others": record["chosen"]}
    if "chosen" in record["several"]:
        parts[f"the same, {record['several']['patients']} patients with several images"] = record["several"]["chosen"]
    for name, scores in parts.items():
        lines.append(f"| {name} | calibrated | {' | '.join(format_decimal(scores[key]) for key in _SCORES)} |")
    when = f"Recorded on {run['time'][:10]}, at commit {str(run['commit'])[:10]}: `{run['command']}`."
    return "\n".join([*lines, "", when])
