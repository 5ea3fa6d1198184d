# SPDX-License-Identifier: Apache-2.0
"""Put newly trained weights into models/, their cards saying how good networks of the same recipe are out of fold.

    python scripts/ship_weights.py runs/all/model.pt --cross_validated_by NAME --keep_former_as paper
    python scripts/ship_weights.py runs/all_classifier/model_classifier.pt --cross_validated_by NAME

The segmenter first: the classifier's card names it. Then scripts/write_docs.py. The former weights stay as a set of
their own, which every script takes as `--models models/paper`.
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
    parser.add_argument("weights", type=Path, help="of a finished run, the card beside them")
    parser.add_argument(
        "--cross_validated_by", required=True, metavar="NAME", help="recorded result of the same data and recipe"
    )
    parser.add_argument("--left_out", nargs="*", default=[], metavar="NAME", help="recorded results of new hospitals")
    parser.add_argument("--small", action="store_true", help="they are of the small segmenter, for CPUs")
    parser.add_argument("--keep_former_as", metavar="SET", help="first rename what is there to SET_model.pt …")
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "docs" / "results",
        metavar="DIR",
        help="where the recorded results are; default: docs/results",
    )
    options = parser.parse_args(argv)

    from bundle.release.ship import ship_weights  # after the arguments: torch takes seconds to import

    words = (options.results, options.cross_validated_by, options.left_out, options.small, options.keep_former_as)
    print(f"Shipped: {ship_weights(options.weights, options.models, *words)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
