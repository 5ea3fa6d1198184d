# SPDX-License-Identifier: Apache-2.0
"""Pool the evaluated runs of a cross-validation: every image scored once, by networks that never saw it.

Several classifiers of one fold (other seeds) are an ensemble. Calibration, operating points and prediction sets of a
fold come from the other folds. Writes metrics.json, per_image.csv and report.html.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, each with its evaluation")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(argv)

    from bundle.reports.pooling import pool_folds  # after the arguments: it loads torch, which takes seconds

    metrics = pool_folds(options.runs, options.output)
    name, score = ("AUROC", metrics["auroc"]) if "auroc" in metrics else ("Dice", metrics["lesions"]["dice"])
    print(f"{name} {score['estimate']:.3f} [{score['low']:.3f}, {score['high']:.3f}]: {options.output / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
