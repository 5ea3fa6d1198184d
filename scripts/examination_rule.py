# SPDX-License-Identifier: Apache-2.0
"""Fit how a patient's images make one probability, on the out-of-fold scores that scripts/pool_folds.py has pooled.

Of datasets that name their patients alone. Writes the result as JSON; --card puts what was fitted on the card of the
classifier in use, which scripts/dicom_node.py goes by in its summaries of examinations (docs/pacs.md).
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
    parser.add_argument("run", type=Path, help="the folder that pool_folds.py wrote to, or that of one run, evaluated")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the result, JSON")
    parser.add_argument("--card", type=Path, metavar="FILE", help="model_classifier.json, gets `examination`")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and the bootstrap; default: %(default)s")
    options = parser.parse_args(argv)

    from bundle.reports.examinations import record_examination  # after the arguments: it takes seconds to import

    result = record_examination(options.run, options.output, options.card, options.seed)
    fitted, score = result["examination"], result["chosen"]["log_loss"]
    told = f"log loss {score['estimate']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    print(f"{fitted['rule']}, slope {fitted['slope']:.2f}, of {fitted['fitted_on']['patients']} patients: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
