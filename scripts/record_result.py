# SPDX-License-Identifier: Apache-2.0
"""Record a result in docs/results/, from which scripts/write_docs.py writes the pages.

The metrics.json of an evaluation, with --name, --title and --recipe; that of scripts/evaluate_external.py, with --name
and --title; the audit.json, leaks.json or factorial.json of an audit, which need none of them; or what
scripts/compare.py wrote, with --name, --title and --models.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "metrics", type=Path, help="RUN_FOLDER/evaluation/metrics.json, or what an audit or scripts/compare.py wrote"
    )
    parser.add_argument("--name", help="of the recorded file, such as busi_ours_seed0")
    parser.add_argument("--title", help="of the run on the pages")
    parser.add_argument("--recipe", choices=["paper", "ours", "peer"], help="peer: a network of MONAI, trained by ours")
    parser.add_argument("--row", type=int, choices=[1, 2, 3, 4], help="of the paper's Table 1, if the run repeats one")
    parser.add_argument("--models", nargs=2, metavar=("FIRST", "SECOND"), help="of a comparison: both in a few words")
    parser.add_argument("--note", default="", help="a sentence for the run's section")
    parser.add_argument("--allow-synthetic", action="store_true", help="record a result on the synthetic phantom")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "docs" / "results", help="where to record it; default: docs/results"
    )
    options = parser.parse_args(argv)

    # After the arguments: they load torch, which takes seconds.
    from bundle.files import read_json
    from bundle.reports.evidence import kind_of, record_evidence
    from bundle.reports.records import EXTERNAL_TASK, record_comparison, record_external, record_result

    content = read_json(options.metrics)
    if kind_of(content):
        target = record_evidence(options.metrics, options.results, options.allow_synthetic)
    elif options.models:
        if None in (options.name, options.title):
            parser.error("a comparison needs --name, --title and --models")
        names = dict(zip(("first", "second"), options.models, strict=True))
        target = record_comparison(
            options.metrics, options.results, options.name, title=options.title, note=options.note, **names
        )
    elif content.get("task") == EXTERNAL_TASK:
        if None in (options.name, options.title):
            parser.error("an external evaluation needs --name and --title")
        target = record_external(
            options.metrics,
            options.results,
            options.name,
            title=options.title,
            note=options.note,
            allow_synthetic=options.allow_synthetic,
        )
    elif None in (options.name, options.title, options.recipe):
        parser.error("the metrics.json of an evaluation needs --name, --title and --recipe")
    else:
        target = record_result(
            options.metrics,
            options.results,
            options.name,
            title=options.title,
            recipe=options.recipe,
            row=options.row,
            note=options.note,
            allow_synthetic=options.allow_synthetic,
        )
    print(f"Recorded as {target}; run scripts/write_docs.py to renew the pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
