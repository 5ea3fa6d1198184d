# SPDX-License-Identifier: Apache-2.0
"""Keep beside the weights which images they were trained on, so that no external evaluation ever scores these.

Only the first digits of each image's checksum are kept.
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
    parser.add_argument("prepared_dir", type=Path, help="the prepared folder of the training, with cases.json")
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    options = parser.parse_args(argv)

    from bundle.data.training_sets import record_training_set  # after the arguments: it loads much

    print(f"Written: {record_training_set(options.prepared_dir, options.models)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
