# SPDX-License-Identifier: Apache-2.0
"""Compare, on synthetic cines, the rules that make a cine's probability of those of its frames.

The weights have to be those of a training on the phantom (make demo): others know nothing of its pictures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.errors import UserError


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmenter", type=Path, required=True, metavar="FILE", help="model.pt, its card beside it")
    parser.add_argument("--classifier", type=Path, required=True, metavar="FILE", help="model_classifier.pt, likewise")
    parser.add_argument("--cines", type=int, default=60, metavar="N", help="of each class; default: %(default)s")
    parser.add_argument("--frames", type=int, default=12, metavar="N", help="of each cine; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the cines; default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the result, JSON")
    options = parser.parse_args(argv)
    for name in ("cines", "frames"):
        if getattr(options, name) < 2:
            raise UserError(f"--{name} {getattr(options, name)}: give 2 or more")

    from bundle.benchmarks.cines import try_cines  # after the arguments: torch takes seconds to import
    from bundle.files import to_json, write_json
    from bundle.prediction.predictor import Predictor
    from bundle.provenance import describe_run

    predictor = Predictor(options.segmenter, options.classifier, "cpu")
    if not (predictor.classifier.card.get("synthetic") and predictor.classifier.segmenter_card.get("synthetic")):
        raise UserError(f"{options.classifier}: was not trained on the phantom; give the weights of make demo")
    result = try_cines(predictor, options.cines, options.frames, options.seed)
    write_json(options.output, {**result, "provenance": describe_run()})
    print(to_json({"rules": result["rules"], "outlines": result["outlines"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
